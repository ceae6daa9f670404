"""A foreign checkpoint, read without running anything in it.

In: a file of fairseq, of PyTorch or of MultiMolecule (`reading`). Out: its tensors and settings,
and what each tensor is called here (`names`, `head_names`, `vocabulary`, put to use by `sorting`).
"""
