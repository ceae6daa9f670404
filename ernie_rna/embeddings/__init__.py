"""Vectors of sequences.

In: sequences and a model. Out: `Embedding`s one by one, or a file of them (`embed`) in the format
that its extension names (`formats`, which also reads them).
"""
