"""Embeddings against the model called by hand, one sequence at a time."""

import numpy as np
import pytest
import torch

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.embedding import Embedding, resolve_columns
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import EncodingError
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.fasta import InputError
from tests.conftest import lively

# A sequence in a batch and alone differ by the order of float32 sums; 7e-7 was measured.
TOLERANCE = 3e-6


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)  # Two are no faster here, and much slower on a busy machine.


@pytest.fixture
def encoder_model(config):
    config.max_position_embeddings = 66
    return lively(ErnieRnaModel(config, add_pooling_layer=False)).eval()


@pytest.fixture
def rna():
    generator = torch.Generator().manual_seed(1)
    sizes = [1, 7, 64, 30, 30, 2, 55, 12]
    rnas = {
        f"rna{i}": "".join("ACGUNacgt"[k] for k in torch.randint(9, (size,), generator=generator))
        for i, size in enumerate(sizes)
    }
    return {**rnas, "unknown": "ACEGU"}


def by_hand(model, tokenizer, sequence, layer=-1):
    """The hidden states of one sequence, (length + 2, hidden)."""
    batch = tokenizer(sequence, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
    return output.hidden_states[layer][0].numpy()


@pytest.mark.parametrize("batch_tokens", [1, 64, 2048])
@pytest.mark.parametrize("layers", [(-1,), (0, 2), None])
def test_equals_the_model(encoder_model, tokenizer, rna, batch_tokens, layers):
    options = {"layers": layers, "pooling": ("token", "cls", "mean"), "unknown": "unk"}
    found = list(embed(rna, encoder_model, batch_tokens=batch_tokens, **options))
    assert [(e.id, e.length) for e in found] == [(id, len(text)) for id, text in rna.items()]
    for embedding, sequence in zip(found, rna.values(), strict=True):
        for layer in {(-1,): [3], (0, 2): [0, 2], None: [0, 1, 2, 3]}[layers]:
            states = by_hand(encoder_model, tokenizer, sequence, layer)
            expected = {"token": states[1:-1], "cls": states[0], "mean": states[1:-1].mean(0)}
            for pooling, vectors in expected.items():
                got = embedding[f"{pooling}_layer{layer}"]
                np.testing.assert_allclose(got, vectors, atol=TOLERANCE, rtol=0)
                assert got.dtype == np.float32


def test_refuses_sequences_before_it_computes(encoder_model):
    with pytest.raises(InputError, match="sequences: no sequences in it"):
        embed([], encoder_model)
    message = r"2 of 3 .* than the 64 nt .*: 2 \(99 nt\), 0 \(65 nt\)"
    with pytest.raises(InputError, match=message):
        embed(["A" * 65, "C" * 64, "G" * 99], encoder_model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (4,)}, "layers 0 .embeddings. to 3, or -4 to -1 .*no layer 4"),
        ({"device": "mtia"}, "device 'mtia' cannot be used"),
        ({"long": "window", "overlap": 64}, "overlap must be below 64, .*; got 64"),
    ],
)
def test_refuses_arguments(encoder_model, options, message):
    with pytest.raises(ValueError, match=message):
        embed(["ACGU"], encoder_model, **options)


# ---------------------------------------------------------------------------------------------
# Long sequences


def test_long_sequences_by_windows(encoder_model, tokenizer):
    sequence = "".join("ACGU"[k] for k in torch.randint(4, (150,)))
    rna = {"short": "ACGU", "long": sequence, "limit": "G" * 64}
    options = {"long": "window", "overlap": 16, "pooling": ("token", "cls", "mean")}
    embeddings = {e.id: e for e in embed(rna, encoder_model, **options)}

    # 150 nt: three windows that begin at 0, 43 and 86, cut halfway between their neighbours' ends.
    kept = [(0, 0, 54), (43, 54, 97), (86, 97, 150)]
    windows = [by_hand(encoder_model, tokenizer, sequence[s : s + 64]) for s, _, _ in kept]
    token = np.concatenate(
        [states[1 + a - s : 1 + b - s] for states, (s, a, b) in zip(windows, kept, strict=True)]
    )
    cls = sum(states[0] * (b - a) for states, (_, a, b) in zip(windows, kept, strict=True)) / 150
    np.testing.assert_allclose(embeddings["long"]["token"], token, atol=TOLERANCE)
    np.testing.assert_allclose(embeddings["long"]["mean"], token.mean(0), atol=TOLERANCE)
    np.testing.assert_allclose(embeddings["long"]["cls"], cls, atol=TOLERANCE)
    for id in ("short", "limit"):
        states = by_hand(encoder_model, tokenizer, rna[id])
        np.testing.assert_allclose(embeddings[id]["token"], states[1:-1], atol=TOLERANCE)


def test_long_sequences_whole(encoder_model, tokenizer):
    sequence = "ACGGU" * 30
    with pytest.warns(UserWarning, match=r"1 of 1 sequences are longer than the 64 nt .*150 nt"):
        (embedding,) = embed([sequence], encoder_model, long="full", pooling=("token",))
    states = by_hand(encoder_model, tokenizer, sequence)
    np.testing.assert_allclose(embedding["token"], states[1:-1], atol=TOLERANCE)


def test_memory_that_does_not_suffice(encoder_model, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(encoder_model, "forward", fail)
    with pytest.raises(EncodingError, match=r"1 sequences of up to 4 nt \(the longest: 1\)"):
        list(embed(["GG", "ACGU"], encoder_model))


# ---------------------------------------------------------------------------------------------
# The model


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(encoder_model, tokenizer, rna, tmp_path, dtype):
    encoder_model.save_pretrained(tmp_path)
    exact = {e.id: e["mean"] for e in embed(rna, tmp_path, unknown="unk")}
    for embedding in embed(rna, tmp_path, dtype=dtype, unknown="unk"):
        assert embedding["mean"].dtype == (np.float16 if dtype == "float16" else np.float32)
        error = np.abs(embedding["mean"] - exact[embedding.id]).max()
        assert 0 < error < (0.15 if dtype == "bfloat16" else 0.02)


def test_a_result_that_is_not_finite_is_named(encoder_model):
    with torch.no_grad():
        encoder_model.embed_tokens.weight[8] = float("nan")  # N
    with pytest.raises(EncodingError, match=r"bad: mean_layer3 is not finite"):
        list(embed({"good": "ACGU", "bad": "ACGN", "fine": "GGCC"}, encoder_model))


def test_hidden_states_are_collected_only_if_needed(encoder_model, monkeypatch):
    asked, forward = [], encoder_model.forward

    def watch(**inputs):
        asked.append(inputs["output_hidden_states"])
        return forward(**inputs)

    monkeypatch.setattr(encoder_model, "forward", watch)
    list(embed(["ACGU"], encoder_model, layers=(3,)))
    list(embed(["ACGU"], encoder_model, layers=(3, 1)))
    assert asked == [False, True]


# ---------------------------------------------------------------------------------------------
# Columns


def test_columns():
    names = [column.name for column in resolve_columns([3, -1, 0], ["mean", "token"], 3)]
    assert names == ["token_layer0", "mean_layer0", "token_layer3", "mean_layer3"]


def test_arrays_by_pooling():
    arrays = {"mean_layer1": np.zeros(2), "cls_layer1": np.ones(2), "cls_layer2": np.ones(2)}
    embedding = Embedding("a", 4, arrays)
    assert embedding["mean"] is arrays["mean_layer1"]
    assert embedding["cls_layer2"] is arrays["cls_layer2"]
    with pytest.raises(KeyError, match=r"'cls' is not one of mean_layer1, cls_layer1, cls_layer2"):
        embedding["cls"]


def test_memory_holds_one_chunk_of_tokens(encoder_model, monkeypatch):
    monkeypatch.setattr("ernie_rna.embeddings.embed._CHUNK_BYTES", 48 * 4 * 20)
    sizes = []
    chunks = chunking.Plan.chunks

    def watch(self, records):
        for chunk in chunks(self, records):
            sizes.append(sum(len(record.sequence) for record in chunk.records))
            yield chunk

    monkeypatch.setattr(chunking.Plan, "chunks", watch)
    assert len(list(embed(["ACGUACGU"] * 9, encoder_model, pooling=("token",)))) == 9
    assert sizes == [16, 16, 16, 16, 8]
