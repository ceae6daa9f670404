"""What fine-tuning is told: where its rows come from and how to train. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: optimizer steps; None trains for `epochs`.
        warmup: share of the steps in which the learning rate rises; it falls to 0 in the rest.
        frozen: train the head alone.
        bf16: autocast to bfloat16.
        cpu: leave a GPU alone.
    """

    steps: int | None = None
    epochs: float = 3.0
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    frozen: bool = False
    gradient_checkpointing: bool = False
    bf16: bool = False
    cpu: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """Where the rows of training and of evaluation come from.

    Attributes:
        train: CSV, TSV or, for masked-lm, FASTA.
        eval_files: each evaluated on by itself, under the name of the file.
        sequence_column, split_column: of the tables; the second says which split a row is of.
        train_split, eval_splits: values of `split_column`.
        max_length: nucleotides that a sequence may have; None is what the model was made for.
        truncate: cut longer sequences in place of refusing them.
        unknown: see `fasta.read_fasta`.
    """

    train: Path
    eval_files: tuple[Path, ...] = ()
    sequence_column: str = "sequence"
    split_column: str | None = None
    train_split: str = "train"
    eval_splits: tuple[str, ...] = ()
    max_length: int | None = None
    truncate: bool = False
    unknown: str = "error"
