"""From a foreign file to a folder for the Hub.

In: a checkpoint of the authors (fairseq) or of MultiMolecule, read by `foreign`. Out: our
weights and configuration (`conversion`), a folder that is proven to load (`export`) with its
model card, and its way to the Hub (`folder`).
"""
