"""Attention in one pass over the scores, written in Triton for CUDA devices.

Carried, a kernel reads a tile of the bias, adds query keyᵀ, writes the scores that the next layer
adds and takes their softmax on the way, so each layer reads and writes (seq, seq) once. The
backward pass takes the weights from the log-sum-exp of each row; one kernel goes over rows, one
over columns, so that every sum has one owner and a fixed order. Recomputed, the tile is summed up
in registers and no (seq, seq) memory is touched; its backward pass is PyTorch's.

Importable without Triton and without CUDA: `why_not` says whether the kernels can run.

Shapes and words are those of `attention_ernie_rna`, and
lse       (batch * heads, seq), float32: the log-sum-exp of each row of the scores
ROWS      queries of a tile
COLUMNS   keys of a tile
WIDTH     HEAD_DIM rounded up to a power of two
pitch     elements from one row of the scores to the next: seq, rounded up to `ALIGNMENT`

Whatever is (batch, heads, seq, head_dim) lies in memory as (batch, seq, heads, head_dim), as the
projections make it and read it; whatever is (batch, heads, seq, seq) as the front columns of
(batch, heads, seq, pitch), because only aligned rows can be read in more than single elements.
"""

from __future__ import annotations

import contextlib
import functools

import torch

try:  # Not a requirement: there is none for macOS and Windows.
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

# What the kernels run on. Without "cuda" in it they never run, which is how to compare with
# F.scaled_dot_product_attention.
DEVICE_TYPES = {"cuda"}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HEAD_DIMS = range(16, 129)
ALIGNMENT = 16  # Triton knows of an integer that it is a multiple of 16, or nothing.


def why_not(query: torch.Tensor, bias: torch.Tensor) -> str | None:
    """Why the kernels cannot take these tensors, or None if they can.

    Args:
        query: of the dtype and width of key and value.
        bias: of the dtype of the query or float32.
    """
    if triton is None:
        return "Triton is not installed"
    if query.dtype not in DTYPES or bias.dtype not in (query.dtype, torch.float32):
        return f"they take no {query.dtype} with a bias in {bias.dtype}"
    if query.shape[-1] not in HEAD_DIMS:
        return f"they take heads 16 to 128 wide, not {query.shape[-1]}"
    return _why_not_on(query.device)


@functools.cache
def _why_not_on(device: torch.device) -> str | None:
    """Why nothing compiled by Triton runs on a device, or None; found out once, by trying."""
    if device.type == "cuda" and not _is_supported_gpu(device):
        return "they need an NVIDIA GPU of compute capability 8.0 or newer"
    found = torch.zeros(1, dtype=torch.int32, device=device)
    try:
        with _on(device):
            _set_one[(1,)](found)
    except Exception as error:  # No C compiler, no ptxas, a folder that cannot be written, ...
        return f"Triton fails with {type(error).__name__}: {error}"
    return None if found.item() == 1 else "what Triton compiles gives wrong results here"


def _is_supported_gpu(device: torch.device) -> bool:
    return bool(torch.version.cuda) and torch.cuda.get_device_capability(device) >= (8, 0)


def launch_options(kernel: str, width: int, size: int) -> dict[str, int]:
    """Tile, warps and pipeline stages of a kernel.

    All of them fit 99 KiB of shared memory, the least among GPUs of compute capability 8.0 and
    newer; of those tried on an H200 that do, up to 64 wide they are the fastest or 4 % slower.

    Args:
        kernel: "carried_forward", "carried_rows", "carried_columns" or "recomputed_forward".
        width: of a head, rounded up to a power of two.
        size: bytes of an element of query, key and value.
    """
    rows, columns, warps, stages = _LAUNCHES[size][kernel][0 if width <= 64 else 1]
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": warps, "num_stages": stages}


# By element size and kernel, for heads up to 64 and up to 128 wide: ROWS, COLUMNS, warps, stages.
_LAUNCHES = {
    2: {
        "carried_forward": ((64, 64, 4, 3), (64, 64, 4, 2)),
        "carried_rows": ((64, 64, 4, 2), (64, 64, 8, 1)),
        "carried_columns": ((64, 64, 4, 2), (64, 64, 8, 1)),
        "recomputed_forward": ((128, 64, 8, 1), (128, 64, 8, 1)),
    },
    4: {
        "carried_forward": ((32, 64, 8, 1), (32, 32, 8, 1)),
        "carried_rows": ((32, 32, 4, 1), (32, 16, 8, 1)),
        "carried_columns": ((32, 64, 8, 1), (32, 32, 8, 1)),
        "recomputed_forward": ((64, 32, 8, 1), (32, 32, 8, 1)),
    },
}


# ---------------------------------------------------------------------------------------------
# Carried scores


def carried_forward(query, key, value, bias, dropout, carry, in_place=False):
    """Attend with scores that are carried.

    Args:
        query, key, value, bias, carry, in_place: as for `eager_attention`.
        dropout: a `Dropout`.

    Returns:
        The attended values (batch, heads, seq, head_dim); the scores, or None without `carry`;
        lse.
    """
    batch, heads, seq, _ = query.shape
    query, key, value = map(_by_token, (query, key, value))
    bias = _aligned(bias)
    scores = _empty_scores(bias) if carry and not in_place else bias
    context = torch.empty_like(query)
    lse = torch.empty(batch * heads, seq, dtype=torch.float32, device=query.device)
    tensors = query, key, value, bias, scores, context, lse
    numbers = seq, heads, _pitch(seq), dropout.rate, dropout.seed
    options = _options("carried_forward", query, DROPOUT=dropout.rate > 0, CARRY=carry)
    _launch(_carried_forward, batch * heads, "ROWS", tensors, numbers, options)
    return context, scores if carry else None, lse


def carried_backward(
    query, key, value, kept, context, lse, dropout, carry, grad_context, grad_scores
):
    """The gradients of query, key, value and bias.

    Args:
        kept: the scores, with `carry`, or the bias.
        context, lse: what `carried_forward` returned.
        grad_context, grad_scores: None is zero.
    """
    batch, heads, seq, _ = query.shape
    query, key, value, context = map(_by_token, (query, key, value, context))
    grad_context = torch.zeros_like(context) if grad_context is None else _by_token(grad_context)
    kept = _aligned(kept)
    grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
    grad_bias = _empty_scores(kept)
    numbers = seq, heads, _pitch(seq), dropout.rate, dropout.seed
    more = kept if grad_scores is None else _aligned(grad_scores)
    tensors = (query, key, value, kept, context, grad_context, lse, more, grad_bias, grad_query)
    flags = {"DROPOUT": dropout.rate > 0, "CARRY": carry}
    options = _options("carried_rows", query, MORE=grad_scores is not None, **flags)
    _launch(_carried_rows, batch * heads, "ROWS", tensors, numbers, options)
    tensors = (query, key, kept, grad_context, lse, grad_bias, grad_key, grad_value)
    options = _options("carried_columns", query, **flags)
    _launch(_carried_columns, batch * heads, "COLUMNS", tensors, numbers, options)
    return grad_query, grad_key, grad_value, grad_bias


# ---------------------------------------------------------------------------------------------
# Recomputed scores


def recomputed_forward(value, bias_rows, columns, queries, keys):
    """Attend with scores that are recomputed, without dropout.

    Args:
        value, bias_rows, columns: as for `RecomputedAttention`.
        queries, keys: of all layers side by side, (batch * heads, seq, layers * head_dim).

    Returns:
        The attended values (batch * heads, seq, head_dim).
    """
    heads, seq, head_dim = value.shape
    tensors = [t.contiguous() for t in (queries, keys, value, bias_rows, columns)]
    context = torch.empty_like(tensors[2])
    options = _options("recomputed_forward", value, BINS=bias_rows.shape[-1])
    numbers = seq, queries.shape[-1] // head_dim
    _launch(_recomputed_forward, heads, "ROWS", (*tensors, context), numbers, options)
    return context


# ---------------------------------------------------------------------------------------------
# Launches


def _by_token(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, heads, seq, head_dim), in memory (batch, seq, heads, head_dim)."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _pitch(seq: int) -> int:
    return -(-seq // ALIGNMENT) * ALIGNMENT


def _empty_scores(like: torch.Tensor) -> torch.Tensor:
    """(batch, heads, seq, seq), its rows a pitch apart."""
    seq = like.shape[-1]
    shape = *like.shape[:-1], _pitch(seq)
    return torch.empty(shape, dtype=like.dtype, device=like.device)[..., :seq]


def _aligned(scores: torch.Tensor) -> torch.Tensor:
    """Scores as `_empty_scores` lays them out, copied if they are not yet."""
    batch, heads, seq, _ = scores.shape
    pitch = _pitch(seq)
    strides = heads * seq * pitch, seq * pitch, pitch, 1
    sizes = zip(scores.shape, scores.stride(), strides, strict=True)
    in_place = all(size == 1 or is_stride == stride for size, is_stride, stride in sizes)
    end = (scores.storage_offset() + batch * heads * seq * pitch) * scores.element_size()
    if in_place and scores.data_ptr() % 16 == 0 and end <= scores.untyped_storage().nbytes():
        return scores
    return _empty_scores(scores).copy_(scores)


def _options(kernel, query, **flags):
    """What a kernel is compiled for."""
    head_dim = query.shape[-1]
    width = triton.next_power_of_2(head_dim)
    options = launch_options(kernel, width, query.element_size())
    even = all(query.shape[-2] % options[name] == 0 for name in ("ROWS", "COLUMNS"))
    options |= {"HEAD_DIM": head_dim, "WIDTH": width}
    return options | {"EVEN": even, "PRECISION": _precision()} | flags


def _precision() -> str:
    """How float32 is multiplied: as everywhere in PyTorch."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch >= 2.9, where to ask the other may raise
        return "tf32" if matmul.fp32_precision == "tf32" else "ieee"
    return "tf32" if matmul.allow_tf32 else "ieee"


def _launch(kernel, heads, axis, tensors, numbers, options):
    """Run a program for each strip of ROWS or COLUMNS of each head; seq is the first number."""
    strips = triton.cdiv(numbers[0], options[axis])
    with _on(tensors[0].device):
        kernel[(heads * strips,)](*tensors, *numbers, **options)


def _on(device: torch.device):
    """Triton launches on the current device, whatever that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


# ---------------------------------------------------------------------------------------------
# Kernels: parts


def _jit(function):
    if triton is None:
        return function
    # Neither a seed nor the number of layers is worth a compilation of its own.
    return triton.jit(function, do_not_specialize=["rate", "seed", "layers"])


def _part(function):
    return function if triton is None else triton.jit(function)


@_jit
def _set_one(found):
    tl.store(found, 1)


@_part
def _matrix(
    pointer,
    first,
    seq,
    stride,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    EVEN: tl.constexpr,
):
    """(COUNT, WIDTH) from row `first` of a (seq, HEAD_DIM) matrix, zero beyond it."""
    rows = first + tl.arange(0, COUNT)
    width = tl.arange(0, WIDTH)
    at = pointer + rows[:, None] * stride + width[None, :]
    if HEAD_DIM != WIDTH:
        found = tl.load(at, mask=(rows < seq)[:, None] & (width < HEAD_DIM)[None, :], other=0.0)
    elif EVEN:
        found = tl.load(at)
    else:
        found = tl.load(at, mask=(rows < seq)[:, None], other=0.0)
    return found


@_part
def _put_matrix(
    pointer,
    values,
    first,
    seq,
    stride,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The inverse of `_matrix`."""
    rows = first + tl.arange(0, COUNT)
    width = tl.arange(0, WIDTH)
    at = pointer + rows[:, None] * stride + width[None, :]
    mask = (rows < seq)[:, None] & (width < HEAD_DIM)[None, :]
    tl.store(at, values.to(pointer.dtype.element_ty), mask=mask)


@_part
def _vector(pointer, first, seq, COUNT: tl.constexpr):
    """(COUNT) from entry `first` of (seq), zero beyond it."""
    at = first + tl.arange(0, COUNT)
    return tl.load(pointer + at, mask=at < seq, other=0.0)


@_part
def _put_vector(pointer, values, first, seq, COUNT: tl.constexpr):
    """The inverse of `_vector`."""
    at = first + tl.arange(0, COUNT)
    tl.store(pointer + at, values, mask=at < seq)


@_part
def _tile(pointer, rows, columns, left, seq, pitch, other, EVEN: tl.constexpr):
    """Entries of (left, seq), where the pointer stands; rows and columns broadcast.

    Beyond it `other`: what lies between seq and pitch is read, as part of an aligned whole, and
    left out.
    """
    at = pointer + rows * pitch + columns
    if EVEN:
        found = tl.load(at)
    else:
        found = tl.load(at, mask=(rows < left) & (columns < pitch), other=other)
        found = tl.where(columns < seq, found, other)
    return found


@_part
def _put_tile(pointer, values, rows, columns, left, pitch, EVEN: tl.constexpr):
    """The inverse of `_tile`; anything may stand between seq and pitch afterwards."""
    at = pointer + rows * pitch + columns
    if EVEN:
        tl.store(at, values)
    else:
        tl.store(at, values, mask=(rows < left) & (columns < pitch))


@_part
def _keeps(head, rows, columns, rate, seed):
    """Which weights dropout keeps, drawn from the seed and the place alone."""
    columns = columns + rows * 0
    rows = rows + columns * 0
    bits, _, _, _ = tl.philox(seed, columns, rows, columns * 0 + head, columns * 0)
    return tl.random.uint_to_uniform_float(bits) >= rate


@_part
def _take_in(
    scores,
    value,
    head,
    rows,
    columns,
    top,
    total,
    context,
    rate,
    seed,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Online softmax: a further tile of scores and values.

    Args:
        scores, value: (ROWS, COLUMNS) in float32 and (COLUMNS, WIDTH).
        top, total: (ROWS), the maximum of the scores so far and the sum of exp(scores - top).
        context: (ROWS, WIDTH), the sum of exp(scores - top) value.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf - -inf is NaN.
    weights = tl.exp(scores - shift[:, None])
    shrink = tl.exp(top - shift)
    total = total * shrink + tl.sum(weights, 1)
    if DROPOUT:
        weights = tl.where(_keeps(head, rows, columns, rate, seed), weights, 0.0)
    context = context * shrink[:, None]
    context = tl.dot(weights.to(value.dtype), value, context, input_precision=PRECISION)
    return new_top, total, context


@_part
def _finish(top, total, context, rate, DROPOUT: tl.constexpr):
    """Context and log-sum-exp. Rows without a key get zeros, and weights of zero from lse = inf."""
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    context = context / total[:, None]
    if DROPOUT:
        context = context / (1.0 - rate)
    return context, tl.where(empty, float("inf"), top + tl.log(total))


# ---------------------------------------------------------------------------------------------
# Kernels: carried scores


@_part
def _head_start(head, seq, heads, HEAD_DIM: tl.constexpr):
    """Where a head begins in (batch, seq, heads, HEAD_DIM)."""
    return ((head // heads).to(tl.int64) * seq * heads + head % heads) * HEAD_DIM


@_part
def _carried_scores(
    kept,
    rows,
    columns,
    left,
    seq,
    pitch,
    one,
    two,
    CARRY: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of the scores, in float32: as kept, or the bias kept and one twoᵀ."""
    scores = _tile(kept, rows, columns, left, seq, pitch, float("-inf"), EVEN).to(tl.float32)
    if not CARRY:
        scores = tl.dot(one, tl.trans(two), scores, input_precision=PRECISION)
        scores = scores.to(kept.dtype.element_ty).to(tl.float32)
    return scores


@_jit
def _carried_forward(
    query,
    key,
    value,
    bias,
    scores,
    context,
    lse,
    seq,
    heads,
    pitch,
    rate,
    seed,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    DROPOUT: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    CARRY: tl.constexpr,
):
    """A strip of rows: from query, key, value and bias to scores (if CARRY), context and lse."""
    strips = tl.cdiv(seq, ROWS)
    head = tl.program_id(0) // strips
    first = tl.program_id(0) % strips * ROWS
    start, stride = _head_start(head, seq, heads, HEAD_DIM), heads * HEAD_DIM
    corner = (head.to(tl.int64) * seq + first) * pitch  # of this strip in (heads, seq, pitch)
    rows = tl.arange(0, ROWS)[:, None]
    left = seq - first
    q = _matrix(query + start, first, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    attended = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, seq, COLUMNS):
        columns = begin + tl.arange(0, COLUMNS)[None, :]
        k = _matrix(key + start, begin, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
        v = _matrix(value + start, begin, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
        tile = _carried_scores(
            bias + corner, rows, columns, left, seq, pitch, q, k, False, EVEN, PRECISION
        )
        if CARRY:
            tile_scores = tile.to(scores.dtype.element_ty)
            _put_tile(scores + corner, tile_scores, rows, columns, left, pitch, EVEN)
        top, total, attended = _take_in(
            tile,
            v,
            head,
            first + rows,
            columns,
            top,
            total,
            attended,
            rate,
            seed,
            DROPOUT,
            PRECISION,
        )
    attended, sums = _finish(top, total, attended, rate, DROPOUT)
    _put_matrix(context + start, attended, first, seq, stride, ROWS, HEAD_DIM, WIDTH)
    _put_vector(lse + head.to(tl.int64) * seq, sums, first, seq, ROWS)


@_jit
def _carried_rows(
    query,
    key,
    value,
    kept,
    context,
    grad_context,
    lse,
    more,
    grad_bias,
    grad_query,
    seq,
    heads,
    pitch,
    rate,
    seed,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    DROPOUT: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    CARRY: tl.constexpr,
    MORE: tl.constexpr,
):
    """A strip of rows: grad_bias, to which the next layer adds `more` (if MORE), and grad_query."""
    strips = tl.cdiv(seq, ROWS)
    head = tl.program_id(0) // strips
    first = tl.program_id(0) % strips * ROWS
    start, stride = _head_start(head, seq, heads, HEAD_DIM), heads * HEAD_DIM
    corner = (head.to(tl.int64) * seq + first) * pitch
    rows = tl.arange(0, ROWS)[:, None]
    left = seq - first
    q = _matrix(query + start, first, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
    attended = _matrix(context + start, first, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
    grad = _matrix(grad_context + start, first, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
    delta = tl.sum(attended.to(tl.float32) * grad.to(tl.float32), 1)
    sums = _vector(lse + head.to(tl.int64) * seq, first, seq, ROWS)
    grad_q = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, seq, COLUMNS):
        columns = begin + tl.arange(0, COLUMNS)[None, :]
        k = _matrix(key + start, begin, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
        v = _matrix(value + start, begin, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
        tile = _carried_scores(
            kept + corner, rows, columns, left, seq, pitch, q, k, CARRY, EVEN, PRECISION
        )
        weights = tl.exp(tile - sums[:, None])
        grad_tile = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            keeps = _keeps(head, first + rows, columns, rate, seed)
            grad_tile = tl.where(keeps, grad_tile / (1.0 - rate), 0.0)
        grad_tile = weights * (grad_tile - delta[:, None])
        if MORE:
            from_next = _tile(more + corner, rows, columns, left, seq, pitch, 0.0, EVEN)
            grad_tile += from_next.to(tl.float32)
        rounded = grad_tile.to(grad_bias.dtype.element_ty)
        _put_tile(grad_bias + corner, rounded, rows, columns, left, pitch, EVEN)
        grad_q = tl.dot(rounded.to(k.dtype), k, grad_q, input_precision=PRECISION)
    _put_matrix(grad_query + start, grad_q, first, seq, stride, ROWS, HEAD_DIM, WIDTH)


@_jit
def _carried_columns(
    query,
    key,
    kept,
    grad_context,
    lse,
    grad_bias,
    grad_key,
    grad_value,
    seq,
    heads,
    pitch,
    rate,
    seed,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    DROPOUT: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    CARRY: tl.constexpr,
):
    """A strip of columns: grad_key and grad_value, with tiles (COLUMNS, ROWS)."""
    strips = tl.cdiv(seq, COLUMNS)
    head = tl.program_id(0) // strips
    first = tl.program_id(0) % strips * COLUMNS
    start, stride = _head_start(head, seq, heads, HEAD_DIM), heads * HEAD_DIM
    corner = head.to(tl.int64) * seq * pitch
    columns = (first + tl.arange(0, COLUMNS))[:, None]
    rows = tl.arange(0, ROWS)[None, :]
    k = _matrix(key + start, first, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
    grad_k = tl.zeros((COLUMNS, WIDTH), tl.float32)
    grad_v = tl.zeros((COLUMNS, WIDTH), tl.float32)
    for begin in range(0, seq, ROWS):
        left = seq - begin
        q = _matrix(query + start, begin, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
        grad = _matrix(grad_context + start, begin, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
        sums = _vector(lse + head.to(tl.int64) * seq, begin, seq, ROWS)
        tile = _carried_scores(
            kept + corner, rows, columns, left, seq, pitch, k, q, CARRY, EVEN, PRECISION
        )
        weights = tl.exp(tile - sums[None, :])
        if DROPOUT:
            keeps = _keeps(head, begin + rows, columns, rate, seed)
            weights = tl.where(keeps, weights / (1.0 - rate), 0.0)
        grad_v = tl.dot(weights.to(grad.dtype), grad, grad_v, input_precision=PRECISION)
        grad_tile = _tile(grad_bias + corner, rows, columns, left, seq, pitch, 0.0, EVEN)
        grad_k = tl.dot(grad_tile.to(q.dtype), q, grad_k, input_precision=PRECISION)
        corner += ROWS * pitch
    _put_matrix(grad_key + start, grad_k, first, seq, stride, COLUMNS, HEAD_DIM, WIDTH)
    _put_matrix(grad_value + start, grad_v, first, seq, stride, COLUMNS, HEAD_DIM, WIDTH)


# ---------------------------------------------------------------------------------------------
# Kernels: recomputed scores


@_part
def _first_scores(bias_rows, bins, rows, left, BINS: tl.constexpr, EVEN: tl.constexpr):
    """A tile of bias 0 in float32: entries (rows, bins), which broadcast, of (left, BINS).

    Columns beyond the sequence have bins of -1.
    """
    at = bias_rows + rows * BINS + bins
    if EVEN:
        found = tl.load(at)
    else:
        found = tl.load(at, mask=(rows < left) & (bins >= 0), other=float("-inf"))
    return found.to(tl.float32)


@_part
def _bins(columns, first, seq, COUNT: tl.constexpr):
    at = first + tl.arange(0, COUNT)
    return tl.load(columns + at, mask=at < seq, other=-1).to(tl.int32)


@_jit
def _recomputed_forward(
    queries,
    keys,
    value,
    bias_rows,
    columns,
    context,
    seq,
    layers,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BINS: tl.constexpr,
):
    """A strip of rows of the context."""
    strips = tl.cdiv(seq, ROWS)
    head = tl.program_id(0) // strips
    first = tl.program_id(0) % strips * ROWS
    before = head.to(tl.int64) * seq  # Tokens of the heads before this one.
    stride = layers * HEAD_DIM
    joined = before * layers * HEAD_DIM
    bias_rows += (before + first) * BINS
    rows = tl.arange(0, ROWS)[:, None]
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    attended = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, seq, COLUMNS):
        bins = _bins(columns + before, begin, seq, COLUMNS)[None, :]
        tile = _first_scores(bias_rows, bins, rows, seq - first, BINS, EVEN)
        for layer in range(layers):
            shift = layer * HEAD_DIM
            q = queries + joined + shift
            q = _matrix(q, first, seq, stride, ROWS, HEAD_DIM, WIDTH, EVEN)
            k = keys + joined + shift
            k = _matrix(k, begin, seq, stride, COLUMNS, HEAD_DIM, WIDTH, EVEN)
            tile = tl.dot(q, tl.trans(k), tile, input_precision=PRECISION)
        v = value + before * HEAD_DIM
        v = _matrix(v, begin, seq, HEAD_DIM, COLUMNS, HEAD_DIM, WIDTH, EVEN)
        top, total, attended = _take_in(
            tile, v, head, rows, rows, top, total, attended, 0.0, 0, False, PRECISION
        )
    attended, _ = _finish(top, total, attended, 0.0, False)
    context += before * HEAD_DIM
    _put_matrix(context, attended, first, seq, HEAD_DIM, ROWS, HEAD_DIM, WIDTH)
