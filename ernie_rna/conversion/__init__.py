"""Converts a checkpoint of another program into a folder for the Hub.

In: a checkpoint of the authors (fairseq) or of MultiMolecule: a local file, a repository on the Hub
or a file at an address (`hub`). `checkpoint` reads it without running any code in it. Out: weights
and a configuration of this package (`weights`, by the tables in `names`), and a folder with a model
card (`folder`) that is proven to load (`proof`). `convert` runs all steps; `hub` also uploads.
"""
