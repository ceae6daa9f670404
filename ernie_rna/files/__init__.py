"""Output files that are whole under their name, or not there.

In: a path and what is written to it. Out: the file, renamed into place once it is complete and on
the disk, or an `OutputError` that tells what to do (`atomic`, `outputs`); and the results of a
long run, kept beside its output so that it can go on (`store`, `arrays`). Knows nothing of RNA.
"""
