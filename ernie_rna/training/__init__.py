"""Training by transformers' Trainer.

In: tables of sequences with labels, or plain sequences, and a model. Out: a trained model as a
folder for the Hub, with its metrics next to those of the simplest guess. A task defines its
labels, head, batches and metrics.
"""
