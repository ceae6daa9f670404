"""From a foreign file to a folder for the Hub.

In: a checkpoint of the authors (fairseq) or of MultiMolecule, read by `checkpoint` without running
anything in it. Out: our weights and configuration (`conversion`, by the tables of `names`), a
folder with its model card that is proven to load (`export`), and its way to the Hub (`folder`).
"""
