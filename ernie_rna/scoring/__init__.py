"""Letters and labels: what models expect of sequences and of their bases.

In: sequences and a model. Out: log-likelihoods of nucleotides and the effects of substitutions
(`mutate`, by `masking`), or what a fine-tuned model predicts (`predict`).
"""
