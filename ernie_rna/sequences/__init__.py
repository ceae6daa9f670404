"""Sequences as the model takes them: read, checked, cut and grouped; and the tables beside them.

In: a FASTA file, standard input, or what a caller holds. Out: `FastaRecord`s that are fit for the
model (`fasta`), a survey of the whole input (`sources`), the chunks and batches in which they go
through the model (`chunks`), and the rows of CSV and TSV (`tables`). Loads no torch model.
"""
