"""torch.jit.trace, and ONNX files made with it; onnxruntime runs them if it is installed."""

import pytest
import torch
from torch import nn

import ernie_rna
from ernie_rna.model import modeling_ernie_rna

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::torch.jit.TracerWarning",  # from torch itself
    "error::torch.jit.TracerWarning:ernie_rna.model.modeling_ernie_rna",
    "error:ONNX export mode",
)
EXAMPLE = ["GGGGAAAACCCCAUGC", "AUGCAUGC", "GGGAAACCCUU"]
OTHER = ["GGGGAAAACCCCAUGC" * 5, "AUGC"]  # Batch size and length differ from the example.
NAMES = ("input_ids", "attention_mask")


class Exported(nn.Module):
    """A model with the two inputs that are exported, and its first output."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]


@pytest.fixture(scope="module")
def encoder() -> Exported:
    return Exported(ernie_rna.ErnieRnaModel.from_pretrained(ernie_rna.mini()))


def tokens(sequences: list[str]) -> tuple[torch.Tensor, ...]:
    batch = ernie_rna.ErnieRnaTokenizer()(sequences, return_tensors="pt", padding=True)
    return tuple(batch[name] for name in NAMES)


def assert_equals_model(run, model, real_only=True):
    """Compare outputs at the lengths of the example and at others. Measured with ONNX: 2.4e-6."""
    for inputs in (tokens(EXAMPLE), tokens(OTHER)):
        with torch.no_grad():
            output, expected = run(*inputs), model(*inputs)
        places = inputs[1].bool() if real_only else ...
        torch.testing.assert_close(output[places], expected[places], atol=1e-5, rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["encoder", "SecondaryStructure", "RibosomeLoading"])
def test_a_trace_equals_the_model_at_any_length(encoder, config, name, gradients):
    model = encoder
    if name != "encoder":
        config.pair_blocks, config.pair_channels, config.pair_heads = 2, 8, [0]
        model = Exported(getattr(modeling_ernie_rna, f"ErnieRnaFor{name}")(config))
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, tokens(EXAMPLE))  # trace() compares a second run itself.
    assert_equals_model(traced, model, real_only=name == "encoder")


def onnx_function(path):
    """A function that runs an ONNX file in onnxruntime."""
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))

    def run(*inputs):
        feed = {name: tensor.numpy() for name, tensor in zip(NAMES, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def test_an_onnx_file_equals_the_model_at_any_length_and_is_close_in_int8(encoder, tmp_path):
    pytest.importorskip("onnx")
    path, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    axes = {name: {0: "batch", 1: "seq"} for name in (*NAMES, "hidden_states")}
    names = {"input_names": list(NAMES), "output_names": ["hidden_states"], "dynamic_axes": axes}
    options = {"dynamo": False, "opset_version": 17}
    torch.onnx.export(encoder, tokens(EXAMPLE), str(path), **names, **options)
    assert_equals_model(onnx_function(path), encoder)

    quantization = pytest.importorskip("onnxruntime.quantization")
    quantization.quantize_dynamic(str(path), str(small))
    assert small.stat().st_size < path.stat().st_size / 2
    inputs = tokens(OTHER)
    with torch.no_grad():
        expected = encoder(*inputs)
    cosine = torch.cosine_similarity(onnx_function(small)(*inputs), expected, dim=-1)
    assert cosine[inputs[1].bool()].min() > 0.99
    assert cosine.isfinite().all()
