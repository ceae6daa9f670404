"""oneDNN's matrix product: its accuracy, and when it must not be used."""

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
    """Make torch report a CPU with AVX-512; oneDNN's operator runs on other CPUs as well."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.fixture
def layer() -> nn.Linear:
    return nn.Linear(300, 300)


@pytest.fixture
def calls(monkeypatch) -> list:
    """The operands of all calls of oneDNN's product, which is enabled for float32."""
    recorded: list = []
    original = layers_ernie_rna._onednn_linear

    def record(*operands):
        recorded.append(operands)
        return original(*operands)

    monkeypatch.setattr(layers_ernie_rna, "_ONEDNN_DTYPES", (torch.float32,))
    monkeypatch.setattr(layers_ernie_rna, "_onednn_linear", record)
    return recorded


@x86
@torch.no_grad()
def test_the_error_is_at_most_twice_that_of_pytorch(layer, calls):
    inputs = torch.randn(2, 50, 300)
    exact = F.linear(inputs.double(), layer.weight.double(), layer.bias.double())
    error = (product(layer, inputs) - exact).abs().max()
    assert len(calls) == 1
    assert error <= 2 * (F.linear(inputs, layer.weight, layer.bias) - exact).abs().max() + 1e-6


class LoraLinear(nn.Linear):
    """A subclass, like the layers of peft."""


def changed_layer(layer, change) -> nn.Module:
    if change == "hooked":
        layer.register_forward_hook(lambda module, inputs, output: output + 1)
    if change == "offloaded":
        layer.forward = layer.forward  # as accelerate does
    if change == "parametrized":
        nn.utils.parametrizations.weight_norm(layer)
    if change == "quantized":
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]
    if change == "double":
        return layer.double()
    return {"subclass": LoraLinear(300, 300), "small": nn.Linear(255, 255)}.get(change, layer)


@x86
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize(
    "change",
    [
        *("hooked", "offloaded", "parametrized", "quantized", "subclass"),
        *("small", "double", "with gradients", "switched off"),
    ],
)
def test_other_layers_are_called_unchanged(layer, calls, change, monkeypatch):
    """Their results equal PyTorch's bit for bit."""
    layer = changed_layer(layer, change)
    inputs = torch.randn(2, 50, 255 if change == "small" else 300)
    inputs = inputs.double() if change == "double" else inputs
    if change == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with torch.set_grad_enabled(change == "with gradients"):
        assert torch.equal(product(layer, inputs), layer(inputs))
    assert not calls


@x86
def test_the_operator_is_found(avx512):
    assert torch.float32 in _onednn_dtypes()


def test_a_cpu_without_avx512_does_not_use_it(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert _onednn_dtypes() == ()


def raises(error):
    def operator(*operands):
        raise error("expected at most 4 arguments")

    return operator


@pytest.mark.parametrize(
    ("bfloat16", "product"),
    [
        (None, None),  # a torch without the operators
        (True, None),
        (False, raises(TypeError)),  # another signature
        (False, raises(RuntimeError)),
        (True, lambda input, weight, *rest: input @ weight),  # another meaning: it adds no bias
    ],
)
def test_other_operators_are_not_used(avx512, monkeypatch, bfloat16, product):
    operators = SimpleNamespace()
    if bfloat16 is not None:
        operators._is_mkldnn_bf16_supported = lambda: bfloat16
    if product is not None:
        operators._linear_pointwise = product
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    assert _onednn_dtypes() == ()
