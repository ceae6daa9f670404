"""Fine-tuned folders against the authors' values, and files that cannot be compared."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_rna.cli.main import main
from ernie_rna.parity.golden import ParityError
from ernie_rna.parity.heads import CT, LOGITS, SOLVED, compare_head, is_head_folder
from ernie_rna.parity.table import format_heads
from tests.golden_folder import GOLDEN, head_checkpoint, write_golden_folder

EXPECTED = GOLDEN / "tiny_heads_expected.safetensors"
PLACES = {
    "secondary_structure": {LOGITS, "contact", SOLVED, CT},
    "closeness": {"probabilities"},
    "ribosome_loading": {"prediction"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    for task in PLACES:
        (root / task).mkdir()
        write_golden_folder(root / task, head_checkpoint(task))
    return root


@pytest.mark.parametrize("task", PLACES)
def test_the_authors_values(folders, task):
    differences = compare_head(folders / task, EXPECTED)
    assert not [one for one in differences if one.missed]
    assert {one.place for one in differences} == PLACES[task]
    cases = {f"{a} {how}" for a in ("eager", "sdpa") for how in ("alone", "padded right")}
    assert cases < {one.case for one in differences}
    assert "!" not in format_heads(differences)


def test_what_differs_is_found(folders, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(folders / "secondary_structure", folder)
    weights = load_file(folder / "model.safetensors")
    weights["pair_head.conv_out.bias"] = weights["pair_head.conv_out.bias"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    missed = {one.place for one in compare_head(folder, EXPECTED) if one.missed}
    assert LOGITS in missed


def test_files_that_cannot_be_compared(folders, tmp_path):
    with pytest.raises(ParityError, match="holds none of the authors' fine-tuned models"):
        compare_head(tmp_path, EXPECTED)
    with pytest.raises(ParityError, match="not a file of golden values of heads"):
        compare_head(folders / "closeness", tmp_path / "none.safetensors")
    for name in ("sequences.json", "tiny_structures.json"):
        shutil.copy(GOLDEN / name, tmp_path)
    save_file({"other.a.logits": torch.ones(1)}, tmp_path / "e.safetensors")
    with pytest.raises(ParityError, match="no values of closeness"):
        compare_head(folders / "closeness", tmp_path / "e.safetensors")


def test_the_configuration_tells(folders, tmp_path):
    assert [is_head_folder(folders / task) for task in PLACES] == list(PLACES)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": None}))
    assert is_head_folder(tmp_path) is None


def test_verify_takes_a_fine_tuned_folder(folders, capsys):
    folder = str(folders / "ribosome_loading")
    checkpoint = str(head_checkpoint("ribosome_loading"))
    assert main(["verify", folder, "--checkpoint", checkpoint, "--golden", str(EXPECTED)]) == 0
    out = capsys.readouterr().out
    assert "are those of" in out
    assert "prediction" in out
    assert main(["verify", folder, "--cls-embedding", "x.npy"]) == 1
    other = str(head_checkpoint("secondary_structure"))
    assert main(["verify", folder, "--checkpoint", other]) == 1
