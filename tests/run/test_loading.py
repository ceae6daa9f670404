"""A model loaded: from what, what is refused, what is said where memory is short, and threads."""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ernie_rna.data import mini
from ernie_rna.embeddings.embed import embed
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.options import OptionError
from ernie_rna.run.loading import (
    EncodingError,
    has_head,
    load_masked_lm,
    load_model,
    memory_explained,
    read_config,
    resolve_layer,
    suitable_threads,
    use_threads,
)
from ernie_rna.run.provenance import model_sha256
from ernie_rna.sequences.chunks import Plan
from ernie_rna.sequences.fasta import FastaRecord

MINI, FULL = (ErnieRnaConfig(hidden_size=size) for size in (192, 768))


@pytest.fixture
def saved(encoder, tmp_path):
    """The folder of an encoder."""
    encoder.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_loads_a_model_with_a_head(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, attention="eager")
    assert loaded.config._attn_implementation == "eager"
    torch.testing.assert_close(loaded.layers[0].fc1.weight, model.ernie_rna.layers[0].fc1.weight)
    for source in (model, str(tmp_path)):
        assert has_head(source, read_config(source), "ErnieRnaForMaskedLM")
        assert not has_head(source, read_config(source), "ErnieRnaForCloseness")


def test_refuses_a_model_that_lacks_weights(encoder, saved):
    state = encoder.state_dict()
    del state["layers.1.fc1.weight"]
    encoder.save_pretrained(saved, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as layers.1.fc1.weight"):
        load_model(saved)


CONFIG, WEIGHTS = "config.json", "model.safetensors"


def change(old, new):
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        (CONFIG, lambda text: text[:-9], "is not a valid JSON file"),
        (CONFIG, lambda text: b"[" * 100_000, "damaged|not a valid JSON"),
        (CONFIG, change(b'layers": 3', b'layers": 999999999'), "num_hidden_layers 999999999"),
        (CONFIG, change(b'layers": 3', b'layers": 2'), "layers 2, but the weights have 3"),
        (CONFIG, change(b'size": 96', b'size": 97'), "is another model's"),
        (CONFIG, lambda text: b'{"model_type": "bert"}', "not an ERNIE-RNA: .* says bert"),
        (WEIGHTS, lambda data: data[:-1], "SafetensorError"),
        (WEIGHTS, lambda data: b"\xff" * len(data), "SafetensorError"),
    ],
)
def test_a_damaged_folder_is_named(saved, name, harm, message):
    (saved / name).write_bytes(harm((saved / name).read_bytes()))
    named = f"cannot load the model '{saved}': .*{message}"
    with pytest.raises((ValueError, OSError), match=named):
        load_model(saved)


def test_models_are_loaded_by_several_threads_at_once():
    """transformers changes its own classes for a while; what it puts back was another's change."""
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_masked_lm("mini"), range(8)))
    models.append(load_masked_lm("mini"))
    tied = [one.lm_head.decoder.weight is one.get_input_embeddings().weight for one in models]
    assert tied == [True] * 9


def test_tokenizer_files_are_not_needed(saved, encoder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        (saved / name).write_bytes(b"\xff{")
    (found,), (expected,) = embed(["ACGU"], saved), embed(["ACGU"], encoder)
    assert np.array_equal(found["mean"], expected["mean"])


def test_mini_and_what_is_asked_of_it():
    model = load_model("mini", dtype="bfloat16", device="cpu")
    assert (model.dtype, model.device.type, model.training) == (torch.bfloat16, "cpu", False)
    assert load_model(model, dtype="float32", attention="eager") is model
    assert (model.dtype, model.config._attn_implementation) == (torch.float32, "eager")
    with pytest.raises(TypeError, match="expected a folder, a Hub id or an ErnieRnaForMaskedLM"):
        load_masked_lm(model)
    with pytest.raises(ValueError, match=r"dtype must be one of 'float32', .*; got 'int8'"):
        load_model("mini", dtype="int8")


def test_int8(encoder, model, tmp_path):
    rna = ["GGGGAAAACCCCAUGCUUAGC", "AUGCAUGC"]
    model.save_pretrained(tmp_path)
    quantized = load_model(tmp_path, quantize="int8")
    kind = torch.ao.nn.quantized.dynamic.Linear
    assert sum(type(module) is kind for module in quantized.modules()) == 6 * 3
    assert not any(type(module) is torch.nn.Linear for module in quantized.layers.modules())
    assert model_sha256(quantized) != model_sha256(load_model(tmp_path))
    assert model_sha256(quantized) == model_sha256(load_model(tmp_path, quantize="int8"))
    for pair in zip(embed(rna, tmp_path, quantize="int8"), embed(rna, tmp_path), strict=True):
        one, other = (found["mean"] / np.linalg.norm(found["mean"]) for found in pair)
        assert 0.99 < one @ other < 1  # measured: 0.9996
    with pytest.raises(ValueError, match="a loaded model cannot be quantised"):
        load_model(encoder, quantize="int8")
    with pytest.raises(OptionError, match="quantize needs dtype float32; got bfloat16"):
        embed(rna, tmp_path, quantize="int8", dtype="bfloat16")


@pytest.mark.parametrize(("seconds", "warns"), [((1.0, 0.5), 0), ((1.0, 7.0), 1)])
def test_bfloat16_without_instructions(monkeypatch, recwarn, seconds, warns):
    times = iter(seconds)
    monkeypatch.setattr("timeit.repeat", lambda *_, **__: [next(times)])
    load_model("mini", dtype="bfloat16", device="cpu")
    texts = [str(one.message) for one in recwarn]
    assert sum("this CPU has no instructions for bfloat16" in text for text in texts) == warns


def test_layers():
    assert [resolve_layer(layer, 12) for layer in (0, 12, -1, -13)] == [0, 12, 12, 0]
    for layer in (13, -14):
        with pytest.raises(ValueError, match=f"0 .embeddings. to 12, or -13 .*no layer {layer}"):
            resolve_layer(layer, 12)


def test_want_of_memory_names_the_longest_sequence():
    records = [FastaRecord("short", "ACGU"), FastaRecord("long", "ACGUACGU")]
    with (
        pytest.raises(EncodingError, match=r"2 sequences of up to 8 nt .*long.*--batch-tokens"),
        memory_explained(records),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="another"), memory_explained(records):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("config", "count", "length", "threads"),
    [(MINI, 4, 60, 1), (MINI, 16, 60, 4), (FULL, 4, 60, 8), (FULL, 1, 10, 1)],
)
def test_small_batches_take_few(monkeypatch, config, count, length, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    plan = Plan(2048, config.hidden_size)
    (chunk,) = plan.chunks([FastaRecord(str(i), "A" * length) for i in range(count)])
    assert suitable_threads(config, plan, chunk) == threads


def test_threads_are_put_back():
    with contextlib.suppress(KeyError), use_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_fewer_blocks_than_weights_are_refused(tmp_path):
    shutil.copytree(mini(), tmp_path / "model")
    path = tmp_path / "model" / CONFIG
    blocks = json.loads(path.read_text())["pair_blocks"]
    path.write_text(
        path.read_text().replace(f'pair_blocks": {blocks}', f'pair_blocks": {blocks - 1}')
    )
    with pytest.raises(
        ValueError, match=f"has pair_blocks {blocks - 1}, but the weights have {blocks}"
    ):
        load_model(tmp_path / "model")
