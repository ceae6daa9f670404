"""What a command says at once, before torch is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.main import build_parser
from ernie_rna.cli.options import reading_off

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    Path("ERNIE-RNA_pretrain.pt").write_bytes(b"PK")
    Path("unconverted").mkdir()
    Path("unconverted/released.pt").write_bytes(b"PK")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            "ERNIE-RNA_pretrain.pt",
            ValueError,
            r"is a file.*ernie-rna convert ERNIE-RNA_pretrain\.pt ERNIE-RNA_pretrain, then -m",
        ),
        (
            "unconverted",
            ValueError,
            r"no config\.json; `ernie-rna convert unconverted/released\.pt",
        ),
        ("./NOSUCH", FileNotFoundError, r"there is no folder \./NOSUCH; .*-m mini"),
        ("a/b/c", FileNotFoundError, "there is no folder a/b/c"),
        ("some body", ValueError, "neither a folder here nor a name on the Hub"),
        ("user/name", ConnectionError, r"cannot be asked \(http://127\.0\.0\.1:9: .*refused"),
    ],
)
def test_a_model_that_cannot_be_loaded(model, error, message):
    with pytest.raises(error, match=message):
        check_model(model)


@pytest.mark.parametrize("model", ["model", "./model", "mini"])
def test_a_model_that_may_be_loaded(model):
    check_model(model)


def test_offline_by_choice_is_told(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        check_model("user/name")


def test_a_model_in_the_cache_needs_no_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: "config.json")
    check_model("user/name")


def test_inputs():
    check_input("-")
    check_input("model/config.json")
    with pytest.raises(FileNotFoundError, match=r"in\.fasta: no such file"):
        check_input("in.fasta")
    with pytest.raises(IsADirectoryError, match="model: a folder"):
        check_input("model")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from ernie_rna.cli.main import main
for line in open("commands.txt"):
    assert main(line.split()) == 1, line
"""


def test_no_command_waits_for_torch_to_refuse_what_is_plain():
    Path("in.fasta").write_text(">a\nACGU\n")
    Path("in.dbn").write_text(">a\nACGU\n(..)\n")
    Path("words.rdat").write_text("NAME words\n")
    Path("words.shape").write_text("1 high\n")
    for id in "ab":
        Path(f"{id}.shape").write_text("1 0.5\n2 -999\n")
    Path("there.tsv").write_text("")
    Path("there.npz").write_text("")
    commands = {
        "fold in.fasta -m ./NOSUCH": "no folder ./NOSUCH",
        "fold in.fasta -m model -o out.xyz": "extension",
        "fold in.fasta -m model -o there.tsv": "--force",
        "fold no.fasta -m model": "no.fasta: no such file",
        "fold in.fasta -m model --as-authors --min-loop 3": "--as-authors sets --min-loop 0",
        "fold in.fasta -m model --reactivity no.tsv": "no.tsv: no such file",
        "fold in.fasta -m model --reactivity words.shape": "words.shape:1: 'high' is no number",
        "evaluate in.dbn": "name REF",
        "evaluate in.dbn --reactivity a.shape": "a has 4 nt and 2 reactivities",
        "evaluate in.dbn --reactivity b.shape": "no reactivities of 1 sequences: a",
        "evaluate in.dbn --reactivity b.shape --with-mfe": "--with-mfe scores against known",
        "embed in.fasta -m ERNIE-RNA_pretrain.pt -o out.npz": "convert it first",
        "embed no.fasta -m model -o out.npz": "no.fasta: no such file",
        "embed in.fasta -m model -o out.xyz": "out.xyz: the extension must be one of .safetensors",
        "embed in.fasta -m model -o there.npz": "there.npz exists already; --force",
        "embed in.fasta -m model -o no/out.npz": "there is no folder no",
        "embed in.fasta -m model -o out.npz --pooling sum": "sum",
        "closeness in.fasta -m model -o out.npy": "out.npy: the extension must be .npz",
        "closeness in.fasta -m model -o there.npz": "there.npz exists already; --force",
        "closeness in.fasta -m model -o no/out.npz": "there is no folder no",
        "ribosome-loading in.fasta -m model -o out.csv": "out.csv: the extension must be .tsv",
        "ribosome-loading in.fasta -m model -o there.tsv": "there.tsv exists already; --force",
        "fold in.fasta -m model --reactivity words.rdat": "words.rdat:1: no line SEQUENCE",
        "mutate in.fasta -m model": "nothing to write",
        "mutate in.fasta -m model -o out.npz": "out.npz: the extension must be .tsv",
        "mutate in.fasta -m unconverted -o out.tsv": "config.json",
        "plot in.fasta -m model -o out.gif": "extension",
        "plot in.fasta -m ./NOSUCH -o out.svg": "no folder ./NOSUCH",
        "convert no.pt out": "no.pt: no such file",
        "convert ERNIE-RNA_pretrain.pt model": "not empty and no earlier export",
        "finetune model in.dbn model --task classification": "model: not empty; --force",
        "evaluate in.dbn in.dbn -o out.csv": "out.csv: the extension must be .tsv",
        "finetune model no.tsv out --task classification": "no.tsv: no such file",
        "pretrain nano in.tsv run": "nano: no such file, and no config of mini, mini-2, mini-3",
        "pretrain model/config.json no.tsv run": "no.tsv: no such file",
        "pretrain mini in.fasta run": "FASTA has no structures; set masked_lm.fraction to 1",
        "pretrain paper in.fasta run": "--eval-fasta",
        "pretrain mini there.tsv run --stream": "family_power is 0.5",
        "export-pretrained model in.tsv out --card card.md": "no whole checkpoint",
        "verify model": "nothing to compare",
        "verify model --golden no.safetensors": "no.safetensors: no such file",
        "info -m ./NOSUCH": "no folder ./NOSUCH",
        "info --batch 0": "--batch must be at least 1",
        "push ./NOSUCH USER/NAME --dry-run": "no such folder",
        "evaluate no.dbn model": "no.dbn: no such file",
    }
    Path("commands.txt").write_text("\n".join(commands))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(commands)
    for line, (command, message) in zip(said, commands.items(), strict=True):
        assert line.startswith("ernie-rna: error: "), command
        assert message in line, command


@pytest.mark.parametrize(
    ("options", "scores", "loop", "stem"),
    [
        ([], None, 3, 2),  # the model's configuration says what stands for the pairing scores
        (["--as-authors"], "zero", 0, 1),
        (["--as-authors", "--min-loop", "0"], "zero", 0, 1),
        (["--pairing-scores", "zero"], "zero", 3, 2),
        (["--min-loop", "0", "--min-stem", "3"], None, 0, 3),
    ],
)
def test_what_structures_are_read_off(options, scores, loop, stem):
    args = build_parser().parse_args(["fold", "in.fasta", "-m", "model", *options])
    how = reading_off(args)
    assert (how["pairing_scores"], how["min_loop"], how["min_stem"]) == (scores, loop, stem)


@pytest.mark.parametrize("command", ["embed", "fold", "mutate", "plot"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "nonsense", "'nonsense' is no device: auto, cpu, cuda, .* such as cuda:1"),
        ("--device", "cuda:x", "'cuda:x' is no device"),
        ("--threads", "0", "--threads: '0' is no whole number of at least 1; left out, the def"),
        ("--threads", "two", "'two' is no whole number"),
        ("--batch-tokens", "0", "--batch-tokens: '0' is no whole number of at least 1"),
    ],
)
def test_how_it_is_computed_is_checked_as_wrong_usage(command, option, value, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        build_parser().parse_args([command, "in.fasta", "-m", "mini", "-o", "out", option, value])
    assert leaving.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
