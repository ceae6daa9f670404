"""Vectors of sequences.

In: sequences and a model. Out: `Embedding`s, one by one (`embed`), or a file of them in one of
four formats that a killed run goes on with (`to_file`, `writers`), and `readers` for all of
these. On Ray: `on_ray`.
"""
