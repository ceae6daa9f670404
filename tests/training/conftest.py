"""A small model, labelled rows, and the command that trains the one on the others."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from ernie_rna.cli.main import main
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

ROWS = 24
QUICK = {"--steps": 2, "--batch-size": 4, "--device": "cpu"}
TEST = ("--split-column", "split", "--eval-split", "test")


class Killer(TrainerCallback):
    """Ctrl-C in a step."""

    def __init__(self, step):
        self._step = step

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == self._step:
            raise KeyboardInterrupt


@pytest.fixture(scope="package")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 8}
    heads = {"pair_channels": 16, "pair_blocks": 2, "loading_channels": 8, "loading_blocks": 2}
    config = ErnieRnaConfig(**sizes, **heads, intermediate_size=32, max_position_embeddings=42)
    ErnieRnaForMaskedLM(config).save_pretrained(folder)
    ErnieRnaTokenizer(model_max_length=42).save_pretrained(folder)
    return folder


@pytest.fixture
def rows() -> list[dict[str, str]]:
    draw = random.Random(0)
    sequences = ["".join(draw.choices("ACGU", k=draw.randint(8, 40))) for _ in range(ROWS)]
    return [
        {
            "sequence": sequence,
            "label": ("tRNA", "rRNA", "miRNA")[i % 3],
            "several": ("short;GC", "", "GC")[i % 3],
            "number": f"{len(sequence) / 10}",
            "bases": "".join("S" if base in "GC" else "W" for base in sequence),
            "dot_bracket": _pairs(sequence),
            "split": "train" if i < ROWS - 6 else "test",
        }
        for i, sequence in enumerate(sequences)
    ]


def _pairs(sequence: str) -> str:
    """The ends paired where they can be."""
    fits = {sequence[0], sequence[-1]} in ({"A", "U"}, {"G", "C"}, {"G", "U"})
    return f"({'.' * (len(sequence) - 2)})" if fits else "." * len(sequence)


@pytest.fixture
def table(tmp_path, rows):
    """A function that writes rows as TSV or CSV."""

    def write(name="data.tsv", rows=rows) -> str:
        delimiter = "," if name.endswith(".csv") else "\t"
        lines = [list(rows[0]), *(row.values() for row in rows)]
        (tmp_path / name).write_text("".join(f"{delimiter.join(line)}\n" for line in lines))
        return str(tmp_path / name)

    return write


@pytest.fixture
def start(model_folder, tmp_path):
    """A function that runs the command and returns the exit code."""

    def start(data, *options, out="out", model=model_folder):
        usual = {"-m": model, "-o": tmp_path / out, **QUICK}
        usual = [word for pair in usual.items() if pair[0] not in options for word in pair]
        return main([*map(str, ["finetune", data, *usual, *options])])

    return start


@pytest.fixture
def run(start, tmp_path):
    """A function that runs the command; it returns the metrics."""

    def finetuned(*given, out="out", **more):
        assert start(*given, out=out, **more) == 0
        return facts_of(tmp_path / out)["metrics"]

    return finetuned


@pytest.fixture
def refusal(start, tmp_path, capsys):
    """A function that runs the command in vain and returns the message; nothing may be left."""

    def message(*given, out="refused", **more):
        before = {path.name for path in tmp_path.iterdir()}
        try:
            code = start(*given, out=out, **more)
        except SystemExit as error:  # argparse
            code = error.code
        text = capsys.readouterr().err
        assert code == (2 if ": error: argument " in text else 1)
        assert {path.name for path in tmp_path.iterdir()} == before
        return text

    return message


def facts_of(folder):
    return json.loads((folder / "metrics.json").read_text())
