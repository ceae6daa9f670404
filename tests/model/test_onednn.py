"""oneDNN's product: as good as PyTorch's, switched off, missing, changed."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ernie_rna.model import layers_ernie_rna
from ernie_rna.model.layers_ernie_rna import _onednn_dtypes, product

pytestmark = pytest.mark.core
x86 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX")
    or not torch.backends.mkldnn.is_available(),
    reason="needs an x86 CPU with oneDNN",
)


@pytest.fixture
def avx512(monkeypatch):
    """A CPU that says so; the operator runs on others as well."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(300, 300)


@pytest.fixture
def calls(monkeypatch) -> list:
    """Calls of oneDNN's product, with float32 served."""
    seen: list = []
    original = layers_ernie_rna._onednn_linear

    def record(*operands):
        seen.append(operands)
        return original(*operands)

    monkeypatch.setattr(layers_ernie_rna, "_ONEDNN_DTYPES", (torch.float32,))
    monkeypatch.setattr(layers_ernie_rna, "_onednn_linear", record)
    return seen


@x86
@torch.no_grad()
def test_the_product_is_as_good_as_pytorchs(layer, calls):
    inputs = torch.randn(2, 50, 300)
    exact = F.linear(inputs.double(), layer.weight.double(), layer.bias.double())
    ours = (product(layer, inputs) - exact).abs().max()
    assert len(calls) == 1
    assert ours <= 2 * (F.linear(inputs, layer.weight, layer.bias) - exact).abs().max() + 1e-6


class Low(nn.Linear):
    """As peft's layers."""


def replaced(layer, how) -> nn.Module:
    if how == "hooked":
        layer.register_forward_hook(lambda module, inputs, output: output + 1)
    if how == "offloaded":
        layer.forward = layer.forward  # as accelerate does
    if how == "parametrized":
        nn.utils.parametrizations.weight_norm(layer)
    if how == "quantized":
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]
    kinds = {"of a subclass": Low(300, 300), "small": nn.Linear(255, 255)}
    return kinds.get(how, layer.double() if how == "double" else layer)


@x86
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize(
    "how",
    [
        *("hooked", "offloaded", "parametrized", "quantized", "of a subclass"),
        *("small", "double", "with gradients", "switched off"),
    ],
)
def test_what_is_no_plain_layer_is_called_as_it_is(layer, calls, how, monkeypatch):
    """With PyTorch's bits."""
    other = replaced(layer, how)
    inputs = torch.randn(2, 50, 255 if how == "small" else 300)
    inputs = inputs.double() if how == "double" else inputs
    if how == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with torch.set_grad_enabled(how == "with gradients"):
        assert torch.equal(product(other, inputs), other(inputs))
    assert not calls


@x86
def test_the_operator_is_found(avx512):
    assert torch.float32 in _onednn_dtypes()


def test_a_cpu_without_avx512_does_without(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert _onednn_dtypes() == ()


def raises(error):
    def other(*operands):
        raise error("expected at most 4 arguments")

    return other


@pytest.mark.parametrize(
    ("bfloat16", "product"),
    [
        (None, None),  # a torch without the operators
        (True, None),
        (False, raises(TypeError)),  # of another signature
        (False, raises(RuntimeError)),
        (True, lambda input, weight, *rest: input @ weight),  # means something else: no bias
    ],
)
def test_other_operators_are_not_used(avx512, monkeypatch, bfloat16, product):
    found = {"_is_mkldnn_bf16_supported": bfloat16 if bfloat16 is None else lambda: bfloat16}
    found["_linear_pointwise"] = product
    there = {name: operator for name, operator in found.items() if operator is not None}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**there))
    assert _onednn_dtypes() == ()
