"""Pretraining by transformers' Trainer, on sequences with or without structures.

In: a configuration in JSON, and RNAs from a table or FASTA. Out: checkpoints that a killed run goes
on from exactly (`trainer`), a log that draws itself (`plot`), and a calibrated folder for the Hub
(`export`). `beginning` makes the model, `batches` and `data` draw families and lengths, and
`evaluation` scores a split.
"""
