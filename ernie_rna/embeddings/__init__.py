"""Vectors of sequences.

In: sequences and a model. Out: `Embedding`s, one by one, or a file of them (`embed`), in one of
four formats (`formats`), which also reads them.
"""
