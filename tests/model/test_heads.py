"""The authors' heads: their values, padding, batch norm, losses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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
    ErnieRnaForSecondaryStructure,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from safetensors.torch import load_file
from torch import nn

from tests.conftest import ROOT

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = load_file(GOLDEN / "tiny_heads_expected.safetensors")
SEQUENCES = json.loads((GOLDEN / "sequences.json").read_text())["sequences"] | {
    "utr_50": "GGAGACUUCAGGCAUCCAGUAUCUGACGGAACUUUAGCUAGCCGAUUACG"
}
SEQUENCES["utr_76"] = SEQUENCES["trna_arg"]
OTHERS = ["readme_1", "rrna_5s"]
MODELS = {
    "secondary_structure": (ErnieRnaForSecondaryStructure, {"pair_heads": [5], "pair_blocks": 8}),
    "closeness": (ErnieRnaForCloseness, {"pair_blocks": 16}),
    "ribosome_loading": (ErnieRnaForRibosomeLoading, {}),
}
# Names in the authors' files and ours.
PAIR_NAMES = (
    (r"^conv1\.", "pair_head.conv_in."),
    (r"^conv2\.", "pair_head.conv_expand."),
    (r"^proj\.final\.", "pair_head.conv_out."),
    (r"^proj\.resnet\.(\d+)\.bn1\.", r"pair_head.blocks.\1.norm."),
    (r"^proj\.resnet\.(\d+)\.conv", r"pair_head.blocks.\1.conv"),
)
LOADING_NAMES = (
    (r"^head\.reductio_module\.", "loading_head.reduce."),
    (r"^head\.predictor\.10\.", "loading_head.output."),
    (r"^head\.predictor\.0\.", "loading_head.conv_in."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut_norm."),
    (r"\.bn([12])\.", r".norm\1."),
)
NOT_OURS = r"^(lm_|masked_lm|segment_|layer_norm|sentence_projection)"


def load(task: str, attention: str = "sdpa"):
    """The model with the weights of the authors' file."""
    model_class, settings = MODELS[task]
    sizes = {"num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 96}
    config = ErnieRnaConfig(**sizes, **settings, attn_implementation=attention)
    model = model_class(config).eval()
    theirs = torch.load(GOLDEN / f"tiny_{task}_head.pt", weights_only=True)
    model.load_state_dict(dict(filter(None, map(rename, theirs.items()))))
    return model


def rename(item):
    name, tensor = item
    name = name.removeprefix("module.")
    if name.startswith("sentence_encoder."):
        name = name.removeprefix("sentence_encoder.").removeprefix("sentence_encoder.")
        return None if re.match(NOT_OURS, name) else (f"ernie_rna.{name}", tensor)
    for pattern, ours in (*PAIR_NAMES, *LOADING_NAMES):
        name = re.sub(pattern, ours, name)
    count_from_0 = lambda match: f"loading_head.blocks.{int(match[1]) - 1}."  # noqa: E731
    return re.sub(r"^head\.predictor\.(\d)\.", count_from_0, name), tensor


def encode(names, side="right"):
    tokenizer = ErnieRnaTokenizer(padding_side=side)
    return tokenizer([SEQUENCES[name] for name in names], padding=True, return_tensors="pt")


def predict(model, name, others=(), side="right"):
    """The logits of the first sequence of a batch, without padding."""
    with torch.no_grad():
        logits = model(**encode([name, *others], side)).logits[0]
    length = len(SEQUENCES[name])
    return logits[:length, :length] if logits.dim() else logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("others", "side"), [([], "right"), (OTHERS, "right"), (OTHERS, "left")])
class TestGolden:
    """Values of the authors' code, in whatever batch."""

    @pytest.mark.parametrize("name", ["trna_arg", "rrna_5s"])
    def test_secondary_structure(self, name, others, side, attention):
        expected = EXPECTED[f"secondary_structure.{name}.logits"]
        logits = predict(load("secondary_structure", attention), name, others, side)
        # The random weights make logits of up to 500.
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()

    def test_closeness(self, others, side, attention):
        logits = predict(load("closeness", attention), "trna_arg", others, side)
        torch.testing.assert_close(
            logits.sigmoid(), EXPECTED["closeness.trna_arg.probabilities"], rtol=0, atol=1e-5
        )

    @pytest.mark.parametrize("name", ["utr_50", "utr_76"])
    def test_ribosome_loading(self, name, others, side, attention):
        model = load("ribosome_loading", attention)
        logits = predict(model, name, others, side)
        expected = EXPECTED[f"ribosome_loading.{name}.prediction"][0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


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
