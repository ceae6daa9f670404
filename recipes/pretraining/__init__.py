"""Pretraining by transformers' Trainer, on sequences with or without structures; see README.md."""
