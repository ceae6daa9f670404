"""Structures in memory and in files.

In: dot-brackets, pairs or files of them (`by_extension` reads each by its own module, `ct` or
`dbn`). Out: a `structure.Structure`, the same files for it, and where `ernie-rna fold` puts them
(`output`). `rdat` reads what chemical probing says of them.
"""
