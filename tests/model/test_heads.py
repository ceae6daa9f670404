"""The authors' heads: padding, batch norm, losses. Their values: tests/golden."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
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

GOLDEN = Path(__file__).parents[1] / "golden"
SEQUENCES = json.loads((GOLDEN / "sequences.json").read_text())["sequences"]


def encode(names, side="right"):
    tokenizer = ErnieRnaTokenizer(padding_side=side)
    return tokenizer([SEQUENCES[name] for name in names], padding=True, return_tensors="pt")


def predict(model, name, others=(), side="right"):
    """The logits of the first sequence of a batch, without padding."""
    with torch.no_grad():
        logits = model(**encode([name, *others], side)).logits[0]
    length = len(SEQUENCES[name])
    return logits[:length, :length] if logits.dim() else logits


def small(model_class, **settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "pair_channels": 12, "pair_blocks": 4}
    return model_class(ErnieRnaConfig(**sizes, **heads, **settings))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("model_class", [ErnieRnaForCloseness, ErnieRnaForRibosomeLoading])
def test_padding_changes_nothing(model_class, side):
    model = small(model_class).eval()
    for name, value in model.named_buffers():  # as of a trained model, whose shift is not 0
        if value.is_floating_point() and "running" in name:
            value.uniform_(0.5, 1.5)
    for name, other in (("trna_arg", "rrna_5s"), ("readme_1", "trna_arg"), ("one", "trna_arg")):
        alone = predict(model, name)
        torch.testing.assert_close(predict(model, name, [other], side), alone, rtol=0, atol=2e-6)


def test_pair_logits_are_symmetric_and_zero_at_padding():
    model = small(ErnieRnaForCloseness).eval()
    with torch.no_grad():
        logits = model(**encode(["readme_1", "trna_arg"])).logits
    assert logits.shape == (2, 75, 75)
    torch.testing.assert_close(logits, logits.transpose(1, 2))
    assert logits[0, 12:].abs().sum() == 0
    assert logits[0, :, 12:].abs().sum() == 0


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
    batch = {name: value.cuda() for name, value in encode(["readme_1"]).items()}
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


class TestMaskedBatchNorm:
    """nn.BatchNorm over the real positions alone."""

    def test_training_ignores_padding(self):
        values = torch.randn(3, 5, 7) + 2
        ours, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
        padded = torch.cat([values, torch.zeros(3, 5, 6)], dim=-1)
        new, expected = ours(padded, torch.tensor(21))[..., :7], theirs(values)
        torch.testing.assert_close(new, expected, rtol=0, atol=2e-6)
        for name, expected in theirs.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name), expected, rtol=0, atol=2e-6)

    def test_gradient(self):
        values = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
        norm = MaskedBatchNorm(3).double()
        mask = torch.ones(2, 1, 4).double()
        mask[1, :, 2:] = 0
        count = torch.tensor(6)
        torch.autograd.gradcheck(lambda v: norm(v * mask, count) * mask, (values,))

    def test_evaluation_uses_running_statistics(self):
        ours, theirs = MaskedBatchNorm(4).eval(), nn.BatchNorm2d(4).eval()
        state = {k: torch.rand(4) + 0.5 for k in ("weight", "bias", "running_mean", "running_var")}
        state["num_batches_tracked"] = torch.tensor(3)
        ours.load_state_dict(state)
        theirs.load_state_dict(state)
        values = torch.randn(2, 4, 3, 3)
        torch.testing.assert_close(ours(values, torch.tensor(18)), theirs(values))


class TestPairLoss:
    def test_left_out_entries_and_weight(self):
        logits = torch.tensor([[[0.0, 2.0], [2.0, -1.0]]])
        labels = torch.tensor([[[-100, 1], [1, 0]]])
        entry = nn.functional.softplus
        expected = (2 * 3 * entry(torch.tensor(-2.0)) + entry(torch.tensor(-1.0))) / 3
        torch.testing.assert_close(pair_loss(logits, labels, 3.0), expected)
        torch.testing.assert_close(pair_loss(logits, labels, 3.0, 6), expected / 2)

    def test_float32_whatever_the_logits(self):
        labels = torch.zeros(1, 3, 3)
        assert pair_loss(torch.zeros(1, 3, 3).bfloat16(), labels, 1.0).dtype == torch.float32

    def test_shape(self):
        with pytest.raises(ValueError, match=r"\(1, 3, 3\), over bases; got \(1, 5, 5\)"):
            pair_loss(torch.zeros(1, 3, 3), torch.zeros(1, 5, 5), 1.0)


def test_ribosome_loading_units():
    model = small(ErnieRnaForRibosomeLoading).eval()
    labels = torch.tensor([5.0, 7.0])
    output = model(**encode(["readme_1", "trna_arg"]), labels=labels)
    torch.testing.assert_close(
        output.predictions, 1.3539032306228027 * output.logits + 5.269799754058842
    )
    expected = ((output.predictions - labels) / 1.3539032306228027).square().mean()
    torch.testing.assert_close(output.loss, expected)
    with pytest.raises(ValueError, match=r"labels must be \(batch,\)"):
        model(**encode(["readme_1"]), labels=labels)


class TestPreTraining:
    """Two heads, of which those run whose labels are given."""

    def test_both_without_labels(self):
        output = small(ErnieRnaForPreTraining).eval()(**encode(["readme_1"]))
        assert output.logits.shape == (1, 14, 25)
        assert output.pair_logits.shape == (1, 12, 12)
        assert output.loss is None

    @pytest.mark.parametrize("given", [("labels",), ("pair_labels",), ("labels", "pair_labels")])
    def test_only_what_is_labelled(self, given):
        model, batch = small(ErnieRnaForPreTraining), encode(["readme_1"])
        every = {"labels": batch["input_ids"], "pair_labels": torch.zeros(1, 12, 12)}
        output = model(**batch, **{name: every[name] for name in given})
        assert (output.logits is None) == ("labels" not in given)
        assert (output.pair_logits is None) == ("pair_labels" not in given)
        output.loss.backward()
        reached = any(p.grad is not None for p in model.pair_head.parameters())
        assert reached == ("pair_labels" in given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pair_heads": [12]}, "pair_heads"),
        ({"pair_heads": []}, "pair_heads"),
        ({"pair_blocks": 0}, "pair_blocks"),
        ({"pair_dropout": 1.0}, "pair_dropout"),
        ({"pair_positive_weight": -1.0}, "pair_positive_weight"),
        ({"loading_scale": "1"}, "loading_scale"),
    ],
)
def test_config_is_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ErnieRnaConfig(**settings)
