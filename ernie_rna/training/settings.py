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
        lora: rank of the low-rank updates that stand in for the encoder's weights, which are
            merged into them at the end; None trains the weights themselves.
        resume: keep the state of training now and then, and go on from it if there is one.
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
    lora: int | None = None
    resume: bool = False
    gradient_checkpointing: bool = False
    bf16: bool = False
    cpu: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lora is not None and (self.lora < 1 or self.frozen):
            frozen = " and --frozen" if self.frozen else ""
            raise ValueError(
                f"--lora takes a rank of at least 1, without --frozen; got {self.lora}{frozen}"
            )


@dataclass(frozen=True)
class Data:
    """Where the rows of training and of evaluation come from.

    Attributes:
        train: CSV, TSV; for masked-lm FASTA; for structures .ct, .bpseq, .dbn or a folder.
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
