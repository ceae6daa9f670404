"""Loading a model: sources, refusals, precisions, errors of memory, and numbers of threads."""

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
    """A folder with the encoder."""
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
    weights = encoder.state_dict()
    del weights["layers.1.fc1.weight"]
    encoder.save_pretrained(saved, state_dict=weights)
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as layers.1.fc1.weight"):
        load_model(saved)


CONFIG, WEIGHTS = "config.json", "model.safetensors"


def change(old, new):
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
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
def test_errors_name_the_damaged_folder(saved, name, damage, message):
    (saved / name).write_bytes(damage((saved / name).read_bytes()))
    message = f"cannot load the model '{saved}': .*{message}"
    with pytest.raises((ValueError, OSError), match=message):
        load_model(saved)


def test_refuses_fewer_pair_blocks_than_the_weights_have(tmp_path):
    folder = shutil.copytree(mini(), tmp_path / "model")
    config = json.loads((folder / CONFIG).read_text())
    blocks = config["pair_blocks"]
    (folder / CONFIG).write_text(json.dumps({**config, "pair_blocks": blocks - 1}))
    message = f"has pair_blocks {blocks - 1}, but the weights have {blocks}"
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_several_threads_load_models_at_once():
    """transformers patches its own classes while it loads, and could restore another's patch."""
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_masked_lm("mini"), range(8)))
    models.append(load_masked_lm("mini"))
    for model in models:
        assert model.lm_head.decoder.weight is model.get_input_embeddings().weight


def test_tokenizer_files_are_not_read(saved, encoder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        (saved / name).write_bytes(b"\xff{")
    (from_folder,), (expected,) = embed(["ACGU"], saved), embed(["ACGU"], encoder)
    assert np.array_equal(from_folder["mean"], expected["mean"])


def test_options_of_mini_and_of_a_loaded_model():
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
        rough, exact = (item["mean"] / np.linalg.norm(item["mean"]) for item in pair)
        assert 0.99 < rough @ exact < 1  # measured: 0.9996
    with pytest.raises(ValueError, match="a loaded model cannot be quantised"):
        load_model(encoder, quantize="int8")
    with pytest.raises(OptionError, match="quantize needs dtype float32; got bfloat16"):
        embed(rna, tmp_path, quantize="int8", dtype="bfloat16")


@pytest.mark.parametrize(("seconds", "warns"), [((1.0, 0.5), 0), ((1.0, 7.0), 1)])
def test_warns_if_bfloat16_is_slow(monkeypatch, recwarn, seconds, warns):
    times = iter(seconds)
    monkeypatch.setattr("timeit.repeat", lambda *_, **__: [next(times)])
    load_model("mini", dtype="bfloat16", device="cpu")
    texts = [str(warning.message) for warning in recwarn]
    assert sum("this CPU has no instructions for bfloat16" in text for text in texts) == warns


def test_negative_layers_count_from_the_last():
    assert [resolve_layer(layer, 12) for layer in (0, 12, -1, -13)] == [0, 12, 12, 0]
    for layer in (13, -14):
        with pytest.raises(ValueError, match=f"0 .embeddings. to 12, or -13 .*no layer {layer}"):
            resolve_layer(layer, 12)


def test_an_error_of_memory_names_the_longest_sequence():
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
def test_small_batches_use_few_threads(monkeypatch, config, count, length, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    plan = Plan(2048, config.hidden_size)
    (chunk,) = plan.chunks([FastaRecord(str(i), "A" * length) for i in range(count)])
    assert suitable_threads(config, plan, chunk) == threads


def test_the_number_of_threads_is_restored_after_an_error():
    with contextlib.suppress(KeyError), use_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
