"""`ernie-rna finetune` as it is typed: its options, and what it says at once."""

import pytest

from ernie_rna.cli.arguments import read_options
from ernie_rna.cli.main import build_parser
from ernie_rna.training.options import FinetuneOptions

BASE = ["finetune", "t.tsv", "-m", "mini", "-o", "out", "--task", "regression"]


def options(*words):
    return read_options(FinetuneOptions, build_parser().parse_args([*BASE, *words]))


def test_options_that_are_given_several_times():
    words = "--label-column a b --label-column c --trainer optim=sgd --trainer max_grad_norm=2"
    given = options(*words.split(), "--eval-file", "v.tsv", "--dtype", "bfloat16", "--quiet")
    assert given.label_column == ("a", "b", "c")
    assert given.trainer == {"optim": "sgd", "max_grad_norm": "2"}
    assert given.eval_file == ("v.tsv",)
    assert (given.dtype, given.progress) == ("bfloat16", False)


@pytest.mark.parametrize(
    ("words", "end"),
    [(["--resume"], "again to resume"), ([], "a run without --resume starts anew")],
)
def test_ctrl_c_says_whether_it_can_be_resumed(words, end, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ernie_rna.training.finetune.finetune", interrupt)
    assert run(" ".join([*BASE, *words]), code=130).err.endswith(f"{end}\n")
