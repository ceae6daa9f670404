"""A run: a model loaded, a task computed over an input, resumed, shared, shown and described.

In: options, sequences, a model. Out: results one by one, or outputs that are whole or not there.

runner            what a task is, and how one is run: in memory, or kept beside its output
store, parts      results of a run that is not finished, and those of a chunk
locks             files that one process at a time holds
outputs           files that are whole or not there
matrices          an .npz file with a matrix for each sequence
estimate          what a run will take
find_model        whether a model can be loaded, without torch
loading           a model loaded, and tokens and threads for it
attention_scores  the scores of one layer, taken on their way through the model
provenance        what results depend on
progress          a bar that counts work
on_ray            many files by many machines
"""
