"""A run: load a model and compute a task over an input, with resuming, sharing and progress.

In: options, sequences, a model. Out: results one by one, or complete outputs.

runner            what a task is, and how one runs: in memory, or stored beside its output
store, parts      the results of an unfinished run, and those of one chunk
locks             files that one process at a time holds
outputs           files that appear complete or not at all
matrices          an .npz file with a matrix for each sequence
estimate          the time, memory and disk space that a run needs
find_model        whether a model can be loaded, checked without torch
loading           loads a model, and prepares tokens and threads for it
attention_scores  the scores of one layer, copied during the forward pass
provenance        what results depend on
progress          a progress bar that counts work
on_ray            many files on many machines
"""
