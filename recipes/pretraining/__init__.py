"""Pretraining with the Trainer of transformers, with or without structures; see README.md."""
