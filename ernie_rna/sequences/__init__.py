"""Sequences as the model takes them: read, checked, cut and grouped.

In: a FASTA file, standard input, or what a caller holds. Out: `FastaRecord`s that are fit for the
model (`fasta`, `sources`), a survey of the whole input (`survey`), and the windows and
batches in which they go through the model (`long`, `batches`). Loads no torch model.
"""
