"""Vectors of sequences.

In: sequences and a model. Out: `Embedding`s, one by one, or a file of them (`embed`), whose
extension names the format (`formats`, which also reads them).
"""
