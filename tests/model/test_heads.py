"""The heads: padding, losses, memory. tests/golden compares their values with the authors'."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ernie_rna.model.heads_ernie_rna import (
    MaskedBatchNorm,
    bases_of_scores,
    pair_loss,
    pairs_in_front,
)
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForCloseness,
    ErnieRnaForPreTraining,
    ErnieRnaForRibosomeLoading,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from tests.conftest import ROOT
from tests.model.small_models import small_model

SHORT, LONG = "GGGGAAAACCCC", "GCAUCCGUAGCUCAG" * 5


def small(kind):
    return small_model(24, 4, 2, kind, pair_channels=12, pair_blocks=4)


def encode(*sequences, side="right"):
    tokenizer = ErnieRnaTokenizer(padding_side=side)
    return tokenizer(list(sequences), padding=True, return_tensors="pt")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", [ErnieRnaForCloseness, ErnieRnaForRibosomeLoading])
@torch.no_grad()
def test_a_single_base_is_the_same_in_a_batch(kind, side):
    """Also, logits of pairs are symmetric, and zero at padding."""
    model = small(kind)
    (alone,) = model(**encode("G", side=side)).logits
    batch = model(**encode("G", LONG, side=side)).logits
    single_base = batch[0]
    if kind is ErnieRnaForCloseness:
        assert batch.shape == (2, 75, 75)
        torch.testing.assert_close(batch, batch.transpose(1, 2))
        assert batch[0].count_nonzero() == 1
        single_base = batch[0, :1, :1]
    torch.testing.assert_close(single_base, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", [ErnieRnaForCloseness, ErnieRnaForRibosomeLoading])
@torch.no_grad()
def test_sequences_without_a_base_are_the_same_in_a_batch(kind, side):
    """As the only ones, or of a single token."""
    model = small(kind)
    padded = model(**encode("", "", "AUG", side=side)).logits[:2]
    for alone in (
        model(**encode("", "", side=side)).logits,
        model(torch.tensor([[0], [0]])).logits,
    ):
        if kind is ErnieRnaForCloseness:
            assert (alone.shape, padded.count_nonzero()) == ((2, 0, 0), 0)
        else:
            torch.testing.assert_close(alone, padded, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ids", [torch.ones(0, 5).long(), torch.ones(2, 5).long()])
@pytest.mark.parametrize("kind", [ErnieRnaForCloseness, ErnieRnaForRibosomeLoading])
def test_training_on_no_bases_changes_no_statistics(kind, ids):
    """Of no sequence, or of padding alone."""
    model = small(kind).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    labels = (
        torch.zeros(len(ids)) if kind is ErnieRnaForRibosomeLoading else torch.zeros(len(ids), 3, 3)
    )
    model(ids, labels=labels).loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_cutting_maps_reads_no_values_from_the_device():
    """Meta tensors have no values, so code that reads one, which would wait for a GPU, fails."""
    with torch.device("meta"):
        scores, mask = torch.empty(2, 4, 9, 9), torch.ones(2, 9, dtype=torch.bool)
        maps, inside = bases_of_scores(scores, mask, [1, 3])
        assert (maps.shape, inside.shape) == ((2, 2, 7, 7), (2, 7))
        assert pairs_in_front(maps[:, 0], mask).shape == (2, 7, 7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_labels_may_be_on_another_device():
    model = small(ErnieRnaForPreTraining).cuda()
    batch = {name: value.cuda() for name, value in encode(SHORT).items()}
    labels = {"labels": batch["input_ids"].cpu(), "pair_labels": torch.zeros(1, 12, 12)}
    assert model(**batch, **labels).loss.isfinite()


PEAK = """
import torch
from ernie_rna.model.heads_ernie_rna import PairHead

def status(name):
    text = open("/proc/self/status").read()
    return 1024 * int(text.split(name + ":")[1].split()[0])

torch.set_num_threads(1)
head = PairHead(12, 64, 1, 0.3, 0.4).eval()
maps, inside = torch.zeros(1, 12, 600, 600), torch.ones(1, 600, dtype=torch.bool)
with torch.no_grad():
    head(maps[:, :, :64, :64].clone(), inside[:, :64])
    before = status("VmRSS")
    head(maps, inside)
print((status("VmHWM") - before) / (64 * 600**2 * 4))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak memory")
def test_inference_holds_few_buffers():
    """It holds three buffers of 64 channels, 770 MiB at 1022 nt. Measured: 3.1."""
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3.5


def test_masked_batch_norm_equals_batch_norm_without_the_padding():
    values, weights = torch.randn(2, 3, 5, 7)
    values.add_(2).requires_grad_()
    masked, plain = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    padded = torch.cat([values, torch.zeros(3, 5, 6)], dim=-1)
    outputs = masked(padded, torch.tensor(21))[..., :7], plain(values)
    torch.testing.assert_close(*outputs, rtol=0, atol=2e-6)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(masked.get_buffer(name), buffer, rtol=0, atol=2e-6)
    gradients = (torch.autograd.grad((output * weights).sum(), values) for output in outputs)
    torch.testing.assert_close(*gradients, rtol=0, atol=2e-6)


def test_pair_loss():
    logits = torch.tensor([[[0.0, 2.0], [2.0, -1.0]]])
    labels = torch.tensor([[[-100, 1], [1, 0]]])  # The loss ignores -100.
    pair_entry, other_entry = nn.functional.softplus(torch.tensor([-2.0, -1.0]))
    expected = (2 * 3 * pair_entry + other_entry) / 3
    torch.testing.assert_close(pair_loss(logits, labels, 3.0), expected)
    torch.testing.assert_close(pair_loss(logits, labels, 3.0, 6), expected / 2)
    assert pair_loss(logits.bfloat16(), labels, 3.0).dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(1, 2, 2\), over bases; got \(1, 5, 5\)"):
        pair_loss(logits, torch.zeros(1, 5, 5), 1.0)


def test_ribosome_loading_units():
    model, labels = small(ErnieRnaForRibosomeLoading), torch.tensor([5.0, 7.0])
    output = model(**encode(SHORT, LONG), labels=labels)
    scale = 1.3539032306228027
    torch.testing.assert_close(output.predictions, scale * output.logits + 5.269799754058842)
    expected = ((output.predictions - labels) / scale).square().mean()
    torch.testing.assert_close(output.loss, expected)
    with pytest.raises(ValueError, match=r"labels must be \(batch,\)"):
        model(**encode(SHORT), labels=labels)


@pytest.mark.parametrize("names", [(), ("labels",), ("pair_labels",), ("labels", "pair_labels")])
def test_pretraining_runs_the_heads_that_have_labels(names):
    """Without labels it runs both."""
    model, batch = small(ErnieRnaForPreTraining).train(), encode(SHORT)
    labels = {"labels": batch["input_ids"], "pair_labels": torch.zeros(1, 12, 12)}
    output = model(**batch, **{name: labels[name] for name in names})
    heads = names or ("labels", "pair_labels")
    lm_shape, pair_shape = (getattr(x, "shape", None) for x in (output.logits, output.pair_logits))
    assert lm_shape == ((1, 14, 25) if "labels" in heads else None)
    assert pair_shape == ((1, 12, 12) if "pair_labels" in heads else None)
    assert (output.loss is None) == (not names)
    if names:
        output.loss.backward()
        trained = any(p.grad is not None for p in model.pair_head.parameters())
        assert trained == ("pair_labels" in names)
