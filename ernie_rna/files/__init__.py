"""Output files that are whole under their name, or not there.

In: a path and what is written to it. Out: the file, renamed into place once it is complete and on
the disk, or an `OutputError` that tells what to do. Knows nothing of RNA.
"""
