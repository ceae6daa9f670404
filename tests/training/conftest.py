"""A small model, labelled rows, and functions that run the command `finetune` on them."""

import json
import random
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.cli.main import main
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.training import trainer

ROWS = 24
QUICK = {"--steps": 2, "--batch-size": 4, "--device": "cpu"}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
SMALL |= {"max_position_embeddings": 42, "pair_blocks": 2}
TEST = ("--split-column", "split", "--eval-split", "test")


@pytest.fixture(scope="package")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    heads = {"pair_channels": 16, "loading_channels": 8, "loading_blocks": 2}
    config = ErnieRnaConfig(**SMALL, **heads, num_attention_heads=8)
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
    """The structure in which the first and the last base pair if they can, in dot-bracket."""
    can_pair = {sequence[0], sequence[-1]} in ({"A", "U"}, {"G", "C"}, {"G", "U"})
    return f"({'.' * (len(sequence) - 2)})" if can_pair else "." * len(sequence)


@pytest.fixture
def table(tmp_path, rows):
    """A function that writes rows as TSV or CSV and returns the path."""

    def write(name="data.tsv", rows=rows) -> str:
        delimiter = "," if name.endswith(".csv") else "\t"
        lines = [delimiter.join(cells) for cells in (rows[0], *(row.values() for row in rows))]
        (tmp_path / name).write_text("\n".join([*lines, ""]))
        return str(tmp_path / name)

    return write


@pytest.fixture
def start(model_folder, tmp_path):
    """A function that runs the command and returns the exit code. Options replace the defaults."""

    def start(data, *options, out="out", model=model_folder):
        words = ["finetune", data, *options]
        for option, value in {"-m": model, "-o": tmp_path / out, **QUICK}.items():
            if option not in options:
                words += [option, value]
        return main([*map(str, words)])

    return start


class Finetuned:
    """The folder that the command wrote, and what the command printed."""

    def __init__(self, folder, out, err):
        self.folder, self.out, self.err = folder, out, err
        self.facts = json.loads((folder / "metrics.json").read_text())
        self.metrics, self.notes = self.facts["metrics"], self.facts["notes"]
        self.config = ErnieRnaConfig.from_pretrained(folder)
        self.weights = load_file(folder / "model.safetensors")
        self.card = (folder / "README.md").read_text()
        self.log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]

    def same(self, weights):
        """For each name in `weights`, whether this model has an equal weight of that name."""
        return {
            name: name in self.weights and torch.equal(self.weights[name], weight)
            for name, weight in weights.items()
        }


@pytest.fixture
def run(start, tmp_path, capsys):
    """A function that runs the command, checks that no state is left, and returns `Finetuned`."""

    def run(*words, out="out", **keywords):
        capsys.readouterr()
        assert start(*words, out=out, **keywords) == 0
        assert not (tmp_path / f"{out}.partial").exists()
        return Finetuned(tmp_path / out, *capsys.readouterr())

    return run


@pytest.fixture
def interrupt(start, monkeypatch):
    """A function that runs the command with --resume and interrupts it as Ctrl-C does: after
    `trainings` complete trainings, at `step` of the next; if `step` is None, at the save."""

    def interrupt(*words, step=None, trainings=0):
        started = []

        class InterruptingProgress(trainer.Progress):
            def __init__(self, *args):
                super().__init__(*args)
                started.append(self)

            def on_step_end(self, args, state, control, **rest):
                if len(started) > trainings and state.global_step == step:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "Progress", InterruptingProgress)
            if step is None:
                save = Mock(side_effect=KeyboardInterrupt)
                patch.setattr("ernie_rna.training.finetune._Run._save", save)
            assert start(*words, "--resume") == 130

    return interrupt


@pytest.fixture
def refusal(start, tmp_path, capsys):
    """A function that runs a failing command, checks that no file is left, and returns stderr."""

    def refusal(*words, out="refused", **keywords):
        files_before = {*tmp_path.iterdir()}
        try:
            code = start(*words, out=out, **keywords)
        except SystemExit as error:  # from argparse
            code = error.code
        errors = capsys.readouterr().err
        assert code == (2 if ": error: argument " in errors else 1)
        assert {*tmp_path.iterdir()} == files_before
        return errors

    return refusal
