"""Structures in memory and in files.

`by_extension` reads files as `structure.Structure` and writes them, `dot_bracket` converts text to
pairs, `probabilities` reads pair probabilities, and `output` writes results of `ernie-rna fold`.
"""
