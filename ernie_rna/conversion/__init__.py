"""From a foreign file to a folder for the Hub.

In: a checkpoint of the authors (fairseq) or of MultiMolecule, here, on the Hub or at an address
(`hub`), read by `checkpoint` without running anything in it. Out: our weights and configuration
(`weights`, by the tables of `names`), and a folder with its model card (`folder`) that is proven to
load (`proof`). `convert` is the whole; `hub` is also the folder's way to the Hub.
"""
