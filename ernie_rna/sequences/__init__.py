"""Sequences for the model: read, checked, cut and grouped into batches; and the tables beside them.

In: a FASTA file, standard input, or what a caller holds. Out: valid `FastaRecord`s (`fasta`), a
survey of the whole input (`sources`), the chunks and batches for the model (`chunks`), and the rows
of CSV and TSV files (`tables`). Does not import torch.
"""
