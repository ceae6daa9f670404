"""A small table of hairpins, the configuration of a small model, and runs of a few steps."""

import json
import random

import pytest

from recipes.pretraining import train
from recipes.pretraining.rnas import read_table

MODEL = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 32, "pair_channels": 8, "pair_blocks": 1},
}
TRAINING = {
    **{"max_steps": 6, "warmup_steps": 2, "learning_rate": 0.01, "eval_steps": 3, "save_steps": 2},
    **{"logging_steps": 1, "seed": 0, "lr_scheduler_type": "warmup_stable_decay"},
    "lr_scheduler_kwargs": {"num_decay_steps": 2, "decay_type": "linear"},
}
SETTINGS = {
    **{"_about": "a remark", "model": MODEL, "training": TRAINING},
    **{"masked": 0.5, "masked_tokens": 120, "masked_max_length": 40},
    **{"pairs_squared_tokens": 3000, "pairs_max_length": 40, "permuted": 0.5},
    **{"ema_decay": 0.9, "eval_sequences": 4},
}
PAIRS = {"AU", "UA", "GC", "CG", "GU", "UG"}
HEADER = "id\tsequence\tdot_bracket\tfamily\tsplit"


@pytest.fixture
def table(tmp_path):
    draw = random.Random(0)
    lines = [HEADER]
    for row in range(40):
        split = "validation" if row % 5 == 0 else "train"
        stem, loop = draw.randint(3, 12), draw.randint(3, 9)
        left, middle = ("".join(draw.choices("ACGU", k=length)) for length in (stem, loop))
        right = left[::-1].translate(str.maketrans("ACGU", "UGCA"))
        structure = "(" * stem + "." * loop + ")" * stem
        family = f"family{min(row % 7, 3)}"
        lines.append(f"rna{row}\t{left}{middle}{right}\t{structure}\t{family}\t{split}")
    path = tmp_path / "rnas.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rnas(table):
    return list(read_table(table, "train"))


@pytest.fixture
def fasta(rnas, tmp_path):
    path = tmp_path / "rnas.fasta"
    path.write_text("".join(f">{rna.id}\n{rna.sequence}\n" for rna in rnas))
    return path


@pytest.fixture
def config(tmp_path):
    """A function that writes a configuration with the given changes and returns its path."""

    def write(**changes):
        path = tmp_path / f"config-{len(list(tmp_path.glob('config-*')))}.json"
        path.write_text(json.dumps({**SETTINGS, **changes}))
        return path

    return write


def pretrain(*arguments):
    return train.main([*map(str, arguments), "--cpu"])


@pytest.fixture
def refused(capsys):
    """A function that asserts that a pretraining fails with the given message."""

    def refused(message, *arguments):
        assert pretrain(*arguments) == 1
        assert message in capsys.readouterr().err

    return refused


def log(run):
    return json.loads((run / "trainer_state.json").read_text())["log_history"]
