"""Likelihoods of nucleotides under the masked language model.

In: sequences and a model with its LM head. Out: for each position the log-likelihood of every
nucleotide, and so the effect of each substitution (`mutate`). `masking` knows what pretraining
did to the pairing scores of masked positions.
"""
