"""Embeddings, compared with direct calls of the model for one sequence at a time."""

import numpy as np
import pytest
import torch

from ernie_rna.embeddings.embed import embed, resolve_columns
from ernie_rna.embeddings.formats import Embedding
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.options import POOLINGS
from ernie_rna.run.loading import EncodingError
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.fasta import InputError
from tests.conftest import lively

# In a batch and alone, float32 sums have another order; 7e-7 is the largest difference measured.
TOLERANCE = 3e-6


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)  # Two are no faster here, and much slower on a busy machine.


@pytest.fixture
def encoder(config):
    config.max_position_embeddings = 66
    return lively(ErnieRnaModel(config, add_pooling_layer=False)).eval()


def random_rna(size):
    return "".join("ACGUNacgt"[k] for k in torch.randint(9, (size,)))


@pytest.fixture
def rna():
    sizes = [1, 7, 64, 30, 30, 2, 55, 12]
    return {**{f"rna{i}": random_rna(size) for i, size in enumerate(sizes)}, "unknown": "ACEGU"}


def by_hand(model, tokenizer, sequence, layer=-1):
    """The hidden states of one sequence, (length + 2, hidden)."""
    batch = tokenizer(sequence, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
    return output.hidden_states[layer][0].numpy()


@pytest.mark.parametrize("batch_tokens", [1, 64, 2048])
@pytest.mark.parametrize(
    ("layers", "numbers"), [((-1,), [3]), ((0, 2), [0, 2]), (None, [0, 1, 2, 3])]
)
def test_equals_the_model(encoder, tokenizer, rna, batch_tokens, layers, numbers, monkeypatch):
    collects_states, forward = set(), encoder.forward

    def watch(**inputs):
        collects_states.add(inputs["output_hidden_states"])
        return forward(**inputs)

    options = {"layers": layers, "pooling": POOLINGS, "unknown": "unk"}
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "forward", watch)
        embeddings = list(embed(rna, encoder, batch_tokens=batch_tokens, **options))
    assert collects_states == {layers != (-1,)}  # Only if they are needed.
    assert [(e.id, e.length) for e in embeddings] == [(id, len(rna[id])) for id in rna]
    for embedding, sequence in zip(embeddings, rna.values(), strict=True):
        for layer in numbers:
            states = by_hand(encoder, tokenizer, sequence, layer)
            expected = {"token": states[1:-1], "cls": states[0], "mean": states[1:-1].mean(0)}
            for pooling, vectors in expected.items():
                array = embedding[f"{pooling}_layer{layer}"]
                np.testing.assert_allclose(array, vectors, atol=TOLERANCE, rtol=0)
                assert array.dtype == np.float32


LONG = {"short": "ACGU", "long": "ACGGUU" * 25, "limit": "G" * 64}


@pytest.mark.parametrize(
    ("sequences", "options", "error", "message"),
    [
        ([], {}, InputError, "sequences: it has no sequences"),
        ([*LONG.values(), "A" * 65], {}, InputError, r"2 of 4 .* 64 nt, .*: 1 \(150 nt\), 3 \(65"),
        (["A"], {"layers": (4,)}, ValueError, "layers 0 .embeddings. to 3, or -4 .*no layer 4"),
        (["A"], {"device": "mtia"}, ValueError, "device 'mtia' cannot be used"),
        (["A"], {"long": "window", "overlap": 64}, ValueError, "overlap must be below 64, .*; got"),
    ],
)
def test_errors_come_before_the_first_result(encoder, sequences, options, error, message):
    with pytest.raises(error, match=message):
        embed(sequences, encoder, **options)


def test_long_sequences_by_windows(encoder, tokenizer):
    options = {"long": "window", "overlap": 16, "pooling": POOLINGS}
    embeddings = {e.id: e for e in embed(LONG, encoder, **options)}
    # 150 nt make three windows, from 0, 43 and 86; a cut is in the middle of each overlap.
    token, cls = [], 0
    for start, first, stop in [(0, 0, 54), (43, 54, 97), (86, 97, 150)]:
        states = by_hand(encoder, tokenizer, LONG["long"][start : start + 64])
        token.extend(states[1 + first - start : 1 + stop - start])
        cls += states[0] * (stop - first) / 150
    np.testing.assert_allclose(embeddings["long"]["token"], token, atol=TOLERANCE)
    np.testing.assert_allclose(embeddings["long"]["mean"], np.mean(token, 0), atol=TOLERANCE)
    np.testing.assert_allclose(embeddings["long"]["cls"], cls, atol=TOLERANCE)
    for id in ("short", "limit"):
        states = by_hand(encoder, tokenizer, LONG[id])
        np.testing.assert_allclose(embeddings[id]["token"], states[1:-1], atol=TOLERANCE)


def test_long_sequences_in_full(encoder, tokenizer):
    with pytest.warns(UserWarning, match=r"1 of 3 sequences .* limit of 64 nt.*150 nt"):
        _, embedding, _ = embed(LONG, encoder, long="full", pooling=("token",))
    states = by_hand(encoder, tokenizer, LONG["long"])
    np.testing.assert_allclose(embedding["token"], states[1:-1], atol=TOLERANCE)


def test_an_error_of_memory_names_the_longest_sequence(encoder, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(encoder, "forward", fail)
    with pytest.raises(EncodingError, match=r"1 sequences of up to 4 nt \(the longest: 1\)"):
        list(embed(["GG", "ACGU"], encoder))


def test_the_bytes_of_token_vectors_limit_a_chunk(encoder, monkeypatch):
    monkeypatch.setattr("ernie_rna.embeddings.embed._CHUNK_BYTES", 48 * 4 * 20)
    sizes, chunks = [], chunking.Plan.chunks

    def watch(self, records):
        for chunk in chunks(self, records):
            sizes.append(sum(len(record.sequence) for record in chunk.records))
            yield chunk

    monkeypatch.setattr(chunking.Plan, "chunks", watch)
    assert len(list(embed(["ACGUACGU"] * 9, encoder, pooling=("token",)))) == 9
    assert sizes == [16, 16, 16, 16, 8]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(encoder, rna, tmp_path, dtype):
    encoder.save_pretrained(tmp_path)
    exact = {e.id: e["mean"] for e in embed(rna, tmp_path, unknown="unk")}
    for embedding in embed(rna, tmp_path, dtype=dtype, unknown="unk"):
        assert embedding["mean"].dtype == (np.float16 if dtype == "float16" else np.float32)
        error = np.abs(embedding["mean"] - exact[embedding.id]).max()
        assert 0 < error < (0.15 if dtype == "bfloat16" else 0.02)


def test_an_error_of_nan_names_the_sequence(encoder):
    with torch.no_grad():
        encoder.embed_tokens.weight[8] = float("nan")  # N
    with pytest.raises(EncodingError, match=r"bad: mean_layer3 is not finite"):
        list(embed({"good": "ACGU", "bad": "ACGN", "fine": "GGCC"}, encoder))


def test_names_of_columns():
    names = ["token_layer0", "mean_layer0", "token_layer3", "mean_layer3"]
    assert [*resolve_columns([3, -1, 0], ["mean", "token"], 3)] == names
    arrays = {"mean_layer1": np.zeros(2), "cls_layer1": np.ones(2), "cls_layer2": np.ones(2)}
    embedding = Embedding("a", 4, arrays)
    assert embedding["mean"] is arrays["mean_layer1"]
    assert embedding["cls_layer2"] is arrays["cls_layer2"]
    with pytest.raises(KeyError, match=r"'cls' is not one of mean_layer1, cls_layer1, cls_layer2"):
        embedding["cls"]
