"""Parity with the authors' values, and that the measurement finds what differs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_rna.convert import export as export_module
from ernie_rna.convert.export import convert
from ernie_rna.convert.verification import Verification
from ernie_rna.parity.differences import (
    BARS,
    Difference,
    compare_with_authors,
    measure_rounding,
)
from ernie_rna.parity.golden import ParityError, read_golden
from ernie_rna.parity.models import Models, belongs_to
from ernie_rna.parity.published import SEQUENCES, cls_embedding, compare_with_published
from ernie_rna.parity.table import format_parity, format_published, format_summary
from ernie_rna.run.threads import use_threads
from scripts import verify_parity
from tests.golden_folder import GOLDEN

CFG, ARGS = GOLDEN / "tiny_fairseq_cfg.pt", GOLDEN / "tiny_fairseq_args.pt"
EXPECTED = GOLDEN / "tiny_expected.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The golden checkpoint, converted; that it loads in a fresh process is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        unverified = Verification(0, 0.0)
        patch.setattr(export_module, "verify_export", lambda folder, conversion: unverified)
        return convert(CFG, tmp_path_factory.mktemp("parity") / "tiny").path


@pytest.fixture(scope="module")
def models(folder) -> Models:
    return Models(folder)


@pytest.fixture(scope="module")
def golden_samples():
    return read_golden(EXPECTED)


@pytest.fixture(scope="module")
def differences(models, golden_samples) -> list[Difference]:
    with use_threads(2):
        return compare_with_authors(models, golden_samples)


@pytest.fixture(scope="module")
def rounding(models, golden_samples) -> list[Difference]:
    with use_threads(2):
        return measure_rounding(models, golden_samples.single, golden_samples.batch)


def worst(differences, *, case, place="") -> float:
    """Of the cases and places that begin so; there must be one."""
    return max(d.value for d in differences if d.case.startswith(case) and place in d.place)


def test_no_difference_from_the_authors_is_more_than_rounding(differences, rounding):
    """The bars are the rule for a backend: twice the authors' error from float64 and 1e-6."""
    assert all(d.bar is not None for d in differences)
    assert not [d for d in differences if d.missed]
    for kind, bar in BARS.items():
        authors = worst(rounding, case="authors from float64", place=kind)
        assert bar == pytest.approx(2 * authors + 1e-6, rel=0.05), kind


def test_the_authors_bits_where_the_values_were_made(differences):
    """Two threads on a CPU with AVX-512, on which MKL sums in their order; measured: 0."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("another order of sums on this CPU")
    assert worst(differences, case="") <= 5e-7  # the pooler's 3e-7; 0 elsewhere
    assert not [d for d in differences if d.value and not d.place.startswith("pooler")]


def test_every_layer_of_every_sequence_is_compared(differences, golden_samples, models):
    layers = models.encoder.config.num_hidden_layers
    places = {d.place for d in differences if d.case == "sdpa alone"}
    assert places == {
        *(f"hidden state {i}" for i in range(layers + 1)),
        *(f"bias {i}" for i in range(layers + 1)),
        *("logits", "pooler output", "logits, masked as in pretraining"),
    }
    assert {d.sample for d in differences if d.case == "eager alone"} == {
        sample.name for sample in golden_samples.single
    }
    rows = {d.sample for d in differences if d.case == "eager padded left"}
    assert len(rows) == len(golden_samples.batch) == 4


def test_sdpa_is_eager(rounding):
    assert worst(rounding, case="sdpa from eager") == 0


def test_our_rounding_is_no_larger_than_the_authors(rounding):
    """Against float64, by the rule for a backend: twice the oracle's error plus 1e-6."""
    for place in {d.place for d in rounding if d.case == "authors from float64"}:
        authors = worst(rounding, case="authors from float64", place=place)
        for attention in ("eager", "sdpa"):
            assert worst(rounding, case=f"{attention} from float64", place=place) <= (
                2 * authors + 1e-6
            )


def test_a_batch_changes_rounding_alone(rounding):
    """What differs in float32 (measured: 2e-5 in the logits) is gone in float64."""
    assert worst(rounding, case="float32 batch from alone") <= 5e-5
    assert worst(rounding, case="float64 batch from alone") <= 1e-12


def test_the_folders_own_code_runs(models):
    for model in (models.encoder, models.masked_lm, models.tokenizer):
        assert type(model).__module__.startswith("transformers_modules.")


def test_a_changed_weight_misses_the_bars(folder, tmp_path, capsys):
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    weights = load_file(changed / "model.safetensors")
    weights["ernie_rna.layers.2.fc1.bias"][7] += 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    assert verify_parity.main([str(changed)]) == 1
    printed = capsys.readouterr().out
    assert "hidden state 2" in printed
    assert "missed: eager alone, logits of " in printed
    missed = [line for line in printed.splitlines() if line.startswith("missed")]
    assert not any("hidden state 2" in line or "bias 2" in line for line in missed)
    assert any("hidden state 3" in line for line in missed)


def test_nan_misses_every_bar():
    assert Difference("eager alone", "logits", "one", float("nan"), 2e-6).missed
    assert not Difference("eager from float64", "logits", "one", float("nan")).missed


def test_the_script_prints_both_tables(folder, capsys):
    assert verify_parity.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "threads 2" in printed
    for row in ("hidden state 4", "bias 4", "logits, masked as in pretraining", "pooler output"):
        assert printed.count(f"\n{row} ") == 2, row
    assert "missed" not in printed
    assert (
        "Bars: hidden state 1.2e-05, bias 3.9e-05, logits 4.5e-05, pooler output 1.7e-05."
        in printed
    )


def test_the_script_prints_json(folder, capsys):
    assert verify_parity.main([str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["threads"] == 2
    cases = {difference["case"] for difference in printed["differences"]}
    assert {"eager alone", "sdpa padded left", "float64 batch from alone"} <= cases


def test_tables_show_the_worst_of_all_sequences():
    low, high = (Difference("eager alone", "logits", n, v, 2e-6) for n, v in (("a", 0), ("b", 1)))
    for order in ([low, high], [high, low]):
        table = format_parity(order).splitlines()
        assert ["logits", "1.0e+00!"] in [line.split() for line in table]
        assert table[-1] == "missed: eager alone, logits of b: 1.0e+00 > 2.0e-06"


def test_weights_tell_whose_golden_values_they_are(folder, tmp_path):
    assert belongs_to(folder, CFG)
    assert belongs_to(folder, ARGS)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.decoder.bias"][3] += 1e-6
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not belongs_to(tmp_path, CFG)


def test_a_model_of_another_size_is_refused(models, golden_samples, tmp_path):
    values = {"one.input_ids": torch.tensor([0, 4, 2]), "one.hidden_states": torch.zeros(4, 3, 32)}
    save_file(values, tmp_path / "other.safetensors")
    with pytest.raises(ParityError, match=r"3 layers of width 32; .* has 4 layers of width 48"):
        compare_with_authors(models, read_golden(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not a file of golden values"), (b"\0" * 40, "not a file of golden values")],
)
def test_what_is_no_golden_file_is_refused(tmp_path, content, message):
    path = tmp_path / "golden.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ParityError, match=message):
        read_golden(path)


def test_golden_values_need_ids(tmp_path):
    save_file({"one.logits": torch.zeros(3, 25)}, tmp_path / "golden.safetensors")
    with pytest.raises(ParityError, match=r"\['one'\] without input_ids"):
        read_golden(tmp_path / "golden.safetensors")


@pytest.mark.parametrize(
    "values",
    [
        {"pretrain_mask.input_ids": torch.ones(3)},
        {"batch.input_ids": torch.ones(2, 3)},
        {"batch.input_ids": torch.ones(2, 3), "batch.hidden_states": torch.ones(3)},
    ],
)
def test_golden_values_of_which_some_are_missing(tmp_path, values):
    save_file(values, tmp_path / "golden.safetensors")
    with pytest.raises(ParityError, match="golden values are missing or misshaped"):
        read_golden(tmp_path / "golden.safetensors")


def test_what_is_no_folder_is_refused(tmp_path, capsys):
    assert verify_parity.main([str(tmp_path / "absent")]) == 2
    assert "no folder with model.safetensors" in capsys.readouterr().err


def test_threads_come_back():
    before = torch.get_num_threads()
    with use_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


# ---------------------------------------------------------------------------------------------
# The published <cls> embeddings, by a stand-in of the small model


@pytest.fixture
def stand_in(models, tmp_path) -> Path:
    models.use("eager")
    np.save(tmp_path / "cls_embedding.npy", cls_embedding(models).double().numpy())
    return tmp_path / "cls_embedding.npy"


def test_the_published_sequences_are_the_golden_ones(sequences):
    assert SEQUENCES["5S rRNA"] == sequences["rrna_5s"]
    assert SEQUENCES["arginine tRNA"] == sequences["trna_arg"]


def test_cls_embeddings_are_those_behind_each_layer(models, golden):
    models.use("eager")
    embedding = cls_embedding(models)  # (sequences, layers, hidden)
    for row, name in zip(embedding, ("rrna_5s", "trna_arg"), strict=True):
        expected = golden[f"{name}.hidden_states"][1:, 0]
        torch.testing.assert_close(row, expected, atol=BARS["hidden state"], rtol=0)


def test_the_script_compares_with_published_embeddings(folder, stand_in, capsys):
    assert verify_parity.main([str(folder), "--cls-embedding", str(stand_in)]) == 0
    printed = capsys.readouterr().out
    assert "layer 4" in printed
    assert "layer 5" not in printed


def test_other_embeddings_miss_the_bar(folder, stand_in, capsys):
    swapped = np.load(stand_in)[::-1]  # the sequences in another order
    np.save(stand_in, swapped)
    assert verify_parity.main([str(folder), "--cls-embedding", str(stand_in)]) == 1
    assert "missed: eager, layer " in capsys.readouterr().out


def test_layers_are_not_mixed_up(models, stand_in):
    np.save(stand_in, np.load(stand_in)[:, ::-1])
    missed = {d.place for d in compare_with_published(models, stand_in) if d.missed}
    assert missed == {f"layer {layer}" for layer in range(1, 5)}
    assert "layer 1" in format_published(compare_with_published(models, stand_in))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 12, 768)), r"has shape \(2, 12, 768\), for this model .* \(2, 4, 48\)"),
        (np.zeros((2, 4, 48), dtype=int), "holds int64, not floating-point"),
        (np.array([{"a": 1}] * 2, dtype=object), "not a numpy array of numbers"),
    ],
)
def test_wrong_arrays_are_refused(models, tmp_path, array, message):
    path = tmp_path / "wrong.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ParityError, match=message):
        compare_with_published(models, path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com", b"\x80\x04"])
def test_what_is_no_array_is_refused(models, tmp_path, content):
    path = tmp_path / "wrong.npy"
    path.write_bytes(content)
    with pytest.raises(ParityError, match="not a numpy array of numbers"):
        compare_with_published(models, path)


def test_a_header_that_promises_too_much_is_refused(models, tmp_path):
    path = tmp_path / "huge.npy"
    np.save(path, np.zeros((2, 4, 48)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2, 4, 48)", b"(2, 4, 999999999999)").replace(b"   ", b"", 1))
    with pytest.raises(ParityError):
        compare_with_published(models, path)


def test_archives_and_missing_files_are_refused(models, tmp_path):
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    with pytest.raises(ParityError, match="archive of arrays"):
        compare_with_published(models, tmp_path / "many.npz")
    with pytest.raises(ParityError, match="No such file"):
        compare_with_published(models, tmp_path / "absent.npy")


def test_the_summary_has_the_largest_of_each_kind():
    differences = [
        Difference("eager alone", "hidden state 1", "one", 1e-6),
        Difference("eager padded right", "hidden state 4", "two", 3e-6, bar=2e-6),
        Difference("sdpa alone", "bias 0", "one", 0.0),
    ]
    lines = format_summary(differences).splitlines()
    assert lines[1].split() == ["hidden", "state", "3.0e-06!", "·"]
    assert lines[2].split() == ["bias", "·", "0"]
    assert lines[-1].startswith("missed: eager padded right, hidden state 4 of two")
