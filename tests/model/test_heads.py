"""The authors' heads: batch norm, losses, cost. Their values, padded as well: tests/golden."""

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
    """Logits of pairs are symmetric, and zero at padding."""
    model = small(kind)
    alone, padded = (model(**encode("G", *more, side=side)).logits for more in ([], [LONG]))
    if padded.dim() == 3:
        assert padded.shape == (2, 75, 75)
        torch.testing.assert_close(padded, padded.transpose(1, 2))
        assert padded[0].count_nonzero() == 1
    found = padded[0, :1, :1] if padded.dim() == 3 else padded[0]
    torch.testing.assert_close(found, alone[0], rtol=0, atol=2e-6)


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


def test_nobody_waits_for_a_device():
    """Tensors without numbers, as on a GPU that is not asked for them."""
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
    # Three of 64 channels: 770 MiB at 1022 nt. Measured 3.1.
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3.5


def test_masked_batch_norm_is_that_of_the_real_positions():
    values, weights = torch.randn(2, 3, 5, 7)
    values.add_(2).requires_grad_()
    ours, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    padded = torch.cat([values, torch.zeros(3, 5, 6)], dim=-1)
    new, expected = ours(padded, torch.tensor(21))[..., :7], theirs(values)
    torch.testing.assert_close(new, expected, rtol=0, atol=2e-6)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=0, atol=2e-6)
    found, exact = (
        torch.autograd.grad((one * weights).sum(), values)[0] for one in (new, expected)
    )
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-6)


def test_the_loss_of_pairs():
    logits = torch.tensor([[[0.0, 2.0], [2.0, -1.0]]])
    labels = torch.tensor([[[-100, 1], [1, 0]]])  # One entry is left out.
    entry = nn.functional.softplus
    expected = (2 * 3 * entry(torch.tensor(-2.0)) + entry(torch.tensor(-1.0))) / 3
    torch.testing.assert_close(pair_loss(logits, labels, 3.0), expected)
    torch.testing.assert_close(pair_loss(logits, labels, 3.0, 6), expected / 2)
    assert pair_loss(logits.bfloat16(), labels, 3.0).dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(1, 2, 2\), over bases; got \(1, 5, 5\)"):
        pair_loss(logits, torch.zeros(1, 5, 5), 1.0)


def test_ribosome_loading_units():
    model, labels = small(ErnieRnaForRibosomeLoading), torch.tensor([5.0, 7.0])
    output, scale = model(**encode(SHORT, LONG), labels=labels), 1.3539032306228027
    torch.testing.assert_close(output.predictions, scale * output.logits + 5.269799754058842)
    expected = ((output.predictions - labels) / scale).square().mean()
    torch.testing.assert_close(output.loss, expected)
    with pytest.raises(ValueError, match=r"labels must be \(batch,\)"):
        model(**encode(SHORT), labels=labels)


@pytest.mark.parametrize("given", [(), ("labels",), ("pair_labels",), ("labels", "pair_labels")])
def test_pretraining_runs_the_heads_that_are_labelled(given):
    """Both without labels."""
    model, batch = small(ErnieRnaForPreTraining).train(), encode(SHORT)
    every = {"labels": batch["input_ids"], "pair_labels": torch.zeros(1, 12, 12)}
    output = model(**batch, **{name: every[name] for name in given})
    heads = {
        "labels": (output.logits, (1, 14, 25)),
        "pair_labels": (output.pair_logits, (1, 12, 12)),
    }
    for name, (logits, shape) in heads.items():
        assert (None if logits is None else logits.shape) == (
            shape if name in (given or every) else None
        )
    assert (output.loss is None) == (not given)
    if given:
        output.loss.backward()
        reached = any(p.grad is not None for p in model.pair_head.parameters())
        assert reached == ("pair_labels" in given)
