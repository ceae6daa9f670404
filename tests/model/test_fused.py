"""The kernels of `fused_ernie_rna` in Triton's interpreter, compiled, and on a GPU."""

import os
import subprocess
import sys

import pytest
import torch

from ernie_rna.model import attention_ernie_rna, fused_ernie_rna
from ernie_rna.model.attention_ernie_rna import AlignedLookUp, look_up_bias
from ernie_rna.model.fused_ernie_rna import why_not
from tests.conftest import ROOT
from tests.model.small_models import (
    DTYPES,
    assert_deterministic,
    gradient_error,
    on_path,
    outcome,
    padded_ids,
    small_model,
)

needs_triton = pytest.mark.skipif(fused_ernie_rna.triton is None, reason="needs Triton")


@pytest.mark.slow
@needs_triton
def test_kernels_in_the_interpreter():
    """Run the tests of fused_kernels.py in a process in which Triton interprets the kernels."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "tests/model/fused_kernels.py"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


# ---------------------------------------------------------------------------------------------
# Whether the kernels run


def tensors(dtype=torch.float32, bias_dtype=None, width=16):
    query = torch.zeros(1, 1, 3, width, dtype=dtype)
    return query, torch.zeros(1, 1, 3, 3, dtype=bias_dtype or dtype)


@needs_triton
@pytest.mark.parametrize(
    ("query_and_bias", "reason"),
    [
        (tensors(torch.float64), "no torch.float64 with a bias in torch.float64"),
        (tensors(torch.bfloat16, torch.float16), "no torch.bfloat16 with a bias in torch.float16"),
        (tensors(torch.float32, torch.float16), "no torch.float32 with a bias in torch.float16"),
        (tensors(width=8), "16 to 128 wide, not 8"),
        (tensors(width=129), "16 to 128 wide, not 129"),
        (tensors(), "Triton fails with"),  # on a CPU
        (None, "Triton is not installed"),
    ],
)
def test_one_warning_says_why_the_kernels_do_not_run(monkeypatch, query_and_bias, reason):
    warnings = []
    monkeypatch.setattr(attention_ernie_rna.logger, "warning_once", warnings.append)
    if query_and_bias is None:
        monkeypatch.setattr(fused_ernie_rna, "triton", None)
    query_and_bias = query_and_bias or tensors()
    assert reason in why_not(*query_and_bias)
    # A CPU never runs the kernels, so there is nothing to warn about.
    assert not attention_ernie_rna.runs_fused(*query_and_bias)
    assert not warnings
    monkeypatch.setattr(attention_ernie_rna, "DEVICE_TYPES", {"cpu"})
    assert not attention_ernie_rna.runs_fused(*query_and_bias)
    assert "do not run here: " in warnings[0]
    assert reason in warnings[0]


# ---------------------------------------------------------------------------------------------
# Bias 0, aligned for the kernels


@pytest.mark.parametrize("batch_shape", [(1, 2), (2,)])
@pytest.mark.parametrize("seq", [1, 5, 16])
def test_aligned_look_up(batch_shape, seq):
    rows = torch.randn(*batch_shape, seq, 4, dtype=torch.float64, requires_grad=True)
    columns = torch.randint(4, (*batch_shape, seq))
    plain, aligned = look_up_bias(rows, columns), AlignedLookUp.apply(rows, columns)
    assert torch.equal(aligned, plain)
    assert aligned.stride(-2) == 16
    grad = torch.randn_like(plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(bias, rows, grad) for bias in (aligned, plain))
    )
    assert torch.autograd.gradgradcheck(lambda rows: AlignedLookUp.apply(rows, columns), rows)


# ---------------------------------------------------------------------------------------------
# Compiled for a GPU on any machine

# The dtype of each pointer: that of query, key and value (q), that of the bias (b), or a fixed one.
POINTERS = {
    "carried_forward": "q q q b b q fp32",
    "carried_rows": "q q q b q q fp32 b b q",
    "carried_columns": "q q b q fp32 b q q",
    "recomputed_forward": "q q q b i64 q",
}


def compiled(name, width, dtype, bias_dtype, capability=90, even=True, dropout=False):
    """Compile a kernel with its launch options for a compute capability."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel = getattr(fused_ernie_rna, f"_{name}")
    constants = fused_ernie_rna.launch_options(name, width, 4 if dtype == "fp32" else 2)
    launch = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    constants |= {"HEAD_DIM": width, "WIDTH": width, "EVEN": even}
    flags = {"PRECISION": "ieee", "DROPOUT": dropout, "CARRY": True, "MORE": True, "BINS": 26}
    names = kernel.arg_names
    constants |= {key: flag for key, flag in flags.items() if key in names}
    pointers = [{"q": dtype, "b": bias_dtype}.get(kind, kind) for kind in POINTERS[name].split()]
    # seq, heads, pitch, rate and seed; or seq and layers
    numbers = ["i32", "i32", "i32", "fp32", "i64"] if "pitch" in names else ["i32", "i32"]
    types = [f"*{pointer}" for pointer in pointers] + numbers
    signature = dict(zip(names, types, strict=False))
    aligned = list(range(len(pointers)))
    aligned += [names.index("pitch")] if "pitch" in names else []
    aligned += [names.index("seq")] if even else []
    source = ASTSource(
        fn=kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={(names.index(key),): value for key, value in constants.items()},
        attrs={(number,): [["tt.divisibility", 16]] for number in aligned},
    )
    return compile(source, target=GPUTarget("cuda", capability, 32), options=launch)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("capability", "even"), [(80, False), (90, True)])
@pytest.mark.parametrize("dtypes", [("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "fp32")], ids=str)
@pytest.mark.parametrize("width", [16, 64, 128])
@pytest.mark.parametrize("name", POINTERS)
def test_kernels_compile_and_fit_into_shared_memory(name, width, dtypes, capability, even):
    kernel = compiled(name, width, *dtypes, capability, even, dropout=not even)
    assert kernel.metadata.shared <= 99 * 1024
    if dtypes[0] == "bf16" and capability == 90:
        assert "wgmma" in kernel.asm["ptx"]


# ---------------------------------------------------------------------------------------------
# On a GPU


def gpu_test(function):
    needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(needs_cuda(needs_triton(function)))


IN_PLACE = {"carry": True, "in_place": True}


@gpu_test
@pytest.mark.parametrize("dtypes", ["float32", "bfloat16", "float16", "autocast"])
@pytest.mark.parametrize(
    ("kernel", "seq", "width", "options"),
    [
        ("carried", 300, 16, {"padding": "left", **IN_PLACE}),
        ("carried", 300, 24, {"padding": "right", **IN_PLACE}),
        ("carried", 300, 64, {"padding": "left", "carry": False, "dropout": 0.3}),
        ("carried", 1024, 64, {"padding": "right", **IN_PLACE}),
        ("carried", 1024, 128, {"padding": "none", "dropout": 0.3, **IN_PLACE}),
        ("recomputed", 300, 16, {"padding": "left", "layers": 1}),
        ("recomputed", 300, 24, {"padding": "right", "layers": 3}),
        ("recomputed", 1024, 64, {"padding": "left", "layers": 12}),
        ("recomputed", 1024, 128, {"padding": "none", "layers": 2}),
    ],
)
def test_kernels_on_a_gpu(dtypes, kernel, seq, width, options):
    from tests.model import fused_kernels

    check = getattr(fused_kernels, f"check_{kernel}")
    check("cuda", fused_kernels.DTYPES[dtypes], seq, width, **options)


@pytest.fixture(params=[64, 256])  # heads 16 or 64 wide
def large_model(request) -> torch.nn.Module:
    return small_model(request.param, 4, 12).cuda()


@gpu_test
@pytest.mark.parametrize("seq", [300, 1024])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["sdpa", "recompute"])
def test_models_on_a_gpu(large_model, path, dtype, seq):
    ids = padded_ids(seq, "right").cuda()
    assert why_not(*(tensor.cuda() for tensor in tensors(dtype, width=64))) is None
    exact_hidden, exact = outcome(on_path(large_model, "eager", torch.float64), ids)
    eager_hidden, eager = outcome(on_path(large_model, "eager", dtype), ids)
    hidden, gradients = outcome(on_path(large_model, path, dtype), ids)
    allowed = 2 * (eager_hidden - exact_hidden).abs().max() + 1e-6
    assert (hidden - exact_hidden).abs().max() <= allowed
    assert gradient_error(gradients, exact) <= 2 * gradient_error(eager, exact) + 1e-6


@gpu_test
@pytest.mark.parametrize("path", ["sdpa", "recompute"])
def test_runs_on_a_gpu_are_deterministic(large_model, path):
    assert_deterministic(on_path(large_model, path, torch.bfloat16), padded_ids(300, "left").cuda())
