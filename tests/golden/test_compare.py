"""Our values equal the authors', and the comparison detects differences."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import ernie_rna
from ernie_rna.run.loading import use_threads
from ernie_rna.verify import PUBLISHED_BAR, compare_with_published, has_weights_of
from scripts import verify_parity
from tests.golden import compare
from tests.golden.compare import Difference
from tests.golden_folder import head_checkpoint, write_golden_folder

pytestmark = pytest.mark.core
CHECKPOINT = os.environ.get("ERNIE_RNA_CHECKPOINT")
CLS_EMBEDDING = os.environ.get("ERNIE_RNA_CLS_EMBEDDING")
PLACES = {
    "secondary_structure": {compare.LOGITS, "contact", compare.CT},
    "closeness": {"probabilities"},
    "ribosome_loading": {"prediction"},
}


@pytest.fixture(scope="module")
def models(golden_folder):
    return compare.Models(golden_folder)


@pytest.fixture(scope="module")
def differences(models):
    with use_threads(compare.THREADS):
        return compare.compare_with_authors(models)


@pytest.fixture(scope="module")
def rounding(models):
    with use_threads(compare.THREADS):
        return compare.measure_rounding(models)


def worst(differences, case, place=""):
    """The largest value of a case at places whose names begin with `place`; one must exist."""
    return max(d.value for d in differences if d.case == case and d.place.startswith(place))


def test_every_layer_equals_the_authors_except_for_rounding(differences, rounding, models):
    """The bars follow the rule for a backend: twice the authors' error from float64 plus 1e-6."""
    for model in (models.encoder, models.masked_lm):  # The folder's code ran, not the library's.
        assert type(model).__module__.startswith("transformers_modules.")
    alone, batch = compare.read_samples()
    layers = range(models.encoder.config.num_hidden_layers + 1)
    places = {"logits", *(f"hidden state {i}" for i in layers)}
    all_places = places | {"pooler output", *(f"bias {i}" for i in layers)}
    cases = (("alone", alone, all_places), ("right", batch, places), ("left", batch, places))
    assert "pretrain_mask" in alone
    for attention in compare.ATTENTIONS:
        for case, samples, expected in cases:
            of_case = [d for d in differences if d.case == f"{attention} {case}"]
            assert {d.place for d in of_case} == expected
            assert {d.sample for d in of_case} == samples.keys()
    assert all(d.bar is not None for d in differences)
    assert not [d for d in differences if d.missed]
    for kind, bar in compare.BARS.items():
        assert bar == pytest.approx(2 * worst(rounding, "authors - float64", kind) + 1e-6, rel=0.05)


def test_values_equal_the_authors_bit_for_bit_on_a_cpu_like_theirs(differences):
    """With two threads on a CPU with AVX-512 MKL sums in the same order; measured: 0."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this CPU sums in another order")
    # The pooler output differs by 3e-7.
    assert {d.place for d in differences if d.value} <= {"pooler output"}
    assert max(d.value for d in differences) <= 5e-7


def test_rounding_is_like_the_authors_and_a_batch_changes_nothing_else(rounding):
    """A batch changes float32 values (measured: 2e-5) but not float64 values."""
    assert worst(rounding, "sdpa - eager") == 0
    for place in {d.place for d in rounding}:
        authors = worst(rounding, "authors - float64", place)
        assert worst(rounding, "eager - float64", place) <= 2 * authors + 1e-6
    assert worst(rounding, "float32 batch") <= 5e-5
    assert worst(rounding, "float64 batch") <= 1e-12


@pytest.mark.parametrize("task", compare.HEADS)
def test_heads_equal_the_authors(tmp_path, task, monkeypatch):
    """With sdpa, which equals eager bit for bit on a CPU; the script compares both."""
    folder = write_golden_folder(tmp_path, head_checkpoint(task))
    differences = compare.compare_head(folder, task, ["sdpa"])
    assert not [d for d in differences if d.missed]
    assert {d.place for d in differences} == PLACES[task]
    assert {d.case for d in differences} == {"sdpa alone", "sdpa right", "sdpa left"}
    if compare.CT in PLACES[task]:
        monkeypatch.setattr(compare, "predict_pairs", lambda contact: [])
        differences = compare.compare_head(folder, task, ["sdpa"])
        assert {d.place for d in differences if d.missed} == {compare.CT}


def test_a_changed_weight_misses_the_bars(golden_folder, tmp_path):
    def changed(folder, name, by):
        """A copy of a folder in which one weight is larger by `by`."""
        # transformers 4.41 imports code by the name of its folder, which must not have a dot.
        out = shutil.copytree(folder, tmp_path / name.replace(".", "_"))
        weights = load_file(out / "model.safetensors")
        weights[name].view(-1)[-1] += by
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        return out

    out = changed(golden_folder, "ernie_rna.layers.2.fc1.bias", 1e-3)
    missed = {d.place for d in compare.compare_with_authors(compare.Models(out)) if d.missed}
    assert {"hidden state 3", "logits"} <= missed
    assert not {"hidden state 2", "bias 2"} & missed
    (tmp_path / "model").mkdir()
    folder = write_golden_folder(tmp_path / "model", head_checkpoint("ribosome_loading"))
    out = changed(folder, "loading_head.output.bias", 1.0)
    assert any(d.missed for d in compare.compare_head(out, "ribosome_loading", ["eager"]))
    nan = Difference("eager alone", "logits", "one", float("nan"), 2e-6)
    assert (nan.missed, nan._replace(bar=None).missed) == (True, False)


def test_tables_show_the_largest_value_of_all_sequences():
    differences = [
        Difference("eager alone", "hidden state 1", "one", 1e-6),
        Difference("eager right", "hidden state 4", "two", 3e-6, bar=2e-6),
        Difference("eager right", "hidden state 4", "three", 2.5e-6, bar=3e-6),
        Difference("sdpa alone", "bias 0", "one", 0.0),
    ]
    for order in (differences, differences[::-1]):
        table = compare.format_table(order)
        assert "3.0e-06!" in table
        assert "2.5e-06" not in table
        assert table.endswith("missed: eager right, hidden state 4 of two: 3.0e-06 > 2.0e-06")
    lines = compare.format_table(compare.summarize(differences)).splitlines()
    assert lines[1].split() == ["hidden", "state", "3.0e-06!", "·"]
    assert lines[2].split() == ["bias", "·", "0"]
    assert lines[-1] == "missed: eager, hidden state of two: 3.0e-06 > 2.0e-06"


def test_the_script_prints_all_tables(capsys, monkeypatch, differences, rounding):
    monkeypatch.setattr(compare, "compare_with_authors", lambda models: differences)
    monkeypatch.setattr(compare, "measure_rounding", lambda models: rounding)
    monkeypatch.setattr(compare, "HEADS", {"ribosome_loading": compare.HEADS["ribosome_loading"]})
    assert verify_parity.main([]) == 0
    printed = capsys.readouterr().out
    for row in ("hidden state 4", "bias 4", "logits", "pooler output"):
        assert printed.count(f"\n{row} ") == 2, row
    assert "\nprediction " in printed
    assert "missed" not in printed
    assert "threads 2" in printed


@pytest.mark.checkpoint
@pytest.mark.skipif(CHECKPOINT is None, reason="needs the released checkpoint")
def test_the_released_checkpoint_and_its_published_embeddings(tmp_path):
    """Run with `python -m pytest -m checkpoint`. ERNIE_RNA_CHECKPOINT names the authors'
    ERNIE-RNA_pretrain.pt, and ERNIE_RNA_CLS_EMBEDDING their cls_embedding.npy."""
    folder = ernie_rna.convert(CHECKPOINT, tmp_path / "ERNIE-RNA").path
    assert has_weights_of(folder, CHECKPOINT)
    if CLS_EMBEDDING is None:
        pytest.skip("needs the published embeddings")
    differences = compare_with_published(folder, CLS_EMBEDDING)
    assert all((differences[case] <= PUBLISHED_BAR).all() for case in ("eager", "sdpa"))
