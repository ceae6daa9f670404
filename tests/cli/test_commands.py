"""What holds for all commands that load a model, as they are typed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import ENVIRONMENT
from tests.golden_folder import write_golden_folder


@pytest.mark.parametrize(
    "command",
    [
        "embed in.fasta -m golden -o out.npz --quiet",
        "mutate in.fasta -m golden --summary out.tsv --quiet --unmasked",
        "plot in.fasta -m golden --id one -o out.svg --quiet",
    ],
)
def test_random_weights_are_told_in_one_line(folder, golden_folder, run, command):
    assert run(command).err == (
        "ernie-rna: warning: golden has random weights, which were never trained: what follows "
        "means nothing\n"
    )


def test_a_model_without_the_head_that_is_asked_for(folder, run):
    assert run("mutate in.fasta -m model -o out.tsv", code=1).err == (
        "ernie-rna: error: model has no language-model head, which this needs: it is "
        "ErnieRnaModel; take the pretrained model, as `ernie-rna convert` makes it of "
        "ERNIE-RNA_pretrain.pt, or save an ErnieRnaForMaskedLM\n"
    )
    assert not Path("out.tsv").exists()


REMOTE_CODE = """
import sys
from transformers import AutoModel

model = AutoModel.from_pretrained("golden", trust_remote_code=True)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
assert not isinstance(model, ErnieRnaModel)
from ernie_rna.embeddings.embed import embed
from ernie_rna.structures.fold import fold
print(next(embed(["GGGGAAAACCCC"], model))["mean"].shape)
print(next(fold(["GGGGAAAACCCC"], model)).structure.dot_bracket)
"""


def test_the_library_takes_models_of_remote_code(folder, golden_folder, tmp_path):
    environment = {**ENVIRONMENT, "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE_CODE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(48,)"
    assert len(done.stdout.splitlines()[1]) == 12


@pytest.fixture
def golden_folder(folder):
    """Has random weights, as its conversion found, and the code beside them."""
    return write_golden_folder(folder / "golden")


@pytest.mark.parametrize(
    ("command", "count", "sent", "code", "end"),
    [
        (
            "embed in.fasta -m model --pooling token -o out.npz",
            1500,
            signal.SIGINT,
            130,
            "ernie-rna: interrupted; run the same command again to resume\n",
        ),
        ("fold in.fasta -m model -o out.npz", 300, signal.SIGTERM, 143, ""),
        ("closeness in.fasta -m close -o out.npz", 300, signal.SIGKILL, -9, ""),
    ],
)
def test_a_run_that_is_ended_is_resumed_by_the_same_command(
    folder, run, command, count, sent, code, end
):
    Path("in.fasta").write_text("".join(f">{i}\n{'GCAU' * 6}\n" for i in range(count)))
    command += " --batch-tokens 64"
    process = subprocess.Popen(
        [sys.executable, "-m", "ernie_rna", *command.split()],
        env=ENVIRONMENT,
        text=True,
        stderr=subprocess.PIPE,
        # A shell that starts us in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list(Path().glob("out.npz.partial/part-*.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    text = process.stderr.read()
    assert process.wait() == code
    assert text.endswith(end)
    assert "Traceback" not in text
    assert not Path("out.npz").exists()
    left = sorted(path.name for path in Path("out.npz.partial").iterdir())
    assert "manifest.json" in left
    assert sent == signal.SIGKILL or not [name for name in left if name.endswith(".tmp")]
    assert "of which a part was there already" in run(command).err
    run(command.replace("out.npz", "whole.npz"))
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not list(Path().glob("*.partial"))
