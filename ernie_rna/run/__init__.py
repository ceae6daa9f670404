"""A model at work, whatever for.

In: a folder or Hub id, device, dtype, threads. Out: a loaded model, token ids of a batch, the
attention scores of a layer; runs over a whole input that can be resumed (`resumable`), with the
processes that share the work and the progress that is shown.
"""
