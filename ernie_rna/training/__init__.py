"""Training by transformers' Trainer.

In: tables of sequences with labels, or plain sequences, and a model. Out: a trained model as a
folder for the Hub, with its metrics beside those of the simplest guess. A task says what its
labels, head, batches and metrics are.
"""
