"""Structures in memory and in files.

In: dot-brackets, pairs or files of them (`by_extension`). Out: a `structure.Structure`, the same
files for it, and where `ernie-rna fold` puts them (`output`).
"""
