"""Scores of nucleotides by masked language models, and predictions of fine-tuned models.

In: sequences and a model. Out: log-likelihoods of nucleotides and the effects of substitutions
(`mutate`, with `masking`), or the predictions of a fine-tuned model (`predict`).
"""
