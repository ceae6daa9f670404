"""The command line `ernie-rna`: groups of commands that call the library's functions.

In: arguments and files. Out: files, a summary on standard error, an exit code. The modules define
what a command accepts and prints, and no computation; nothing in the library imports them.
"""
