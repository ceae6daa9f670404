"""The command line `ernie-rna`: commands in groups, over the library's functions.

In: arguments and files. Out: files, a summary on standard error, an exit code. The modules hold
what a command accepts and prints, no science; nothing in the library imports them.
"""
