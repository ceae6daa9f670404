"""The layers of ERNIE-RNA: embeddings and pairing, attention, feed-forward, pooler, LM head.

Shapes and words are those of `modeling_ernie_rna`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils import logging

from .attention_ernie_rna import (
    ATTENTIONS,
    recomputed_attention,
    resolve_attention,
    under_transform,
    without_autocast,
)
from .configuration_ernie_rna import VOCABULARY, ErnieRnaConfig

logger = logging.get_logger(__name__)


# ---------------------------------------------------------------------------------------------
# Embeddings and pairing


def sinusoidal_positions(position_ids: torch.Tensor, hidden: int, padding: int) -> torch.Tensor:
    """[sin(p f) | cos(p f)] with f_k = 10000^(-k / (hidden / 2 - 1)); zero where p is padding.

    Args:
        position_ids: (batch, seq) integers.

    Returns:
        (batch, seq, hidden) in float32, computed and never stored, so that it outlives casts.
    """
    half = hidden // 2
    steps = torch.arange(half, dtype=torch.float32, device=position_ids.device)
    frequencies = torch.exp(steps * -(math.log(10000.0) / max(half - 1, 1)))
    angles = position_ids[..., None].float() * frequencies  # (batch, seq, hidden / 2)
    positions = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return positions * (position_ids != padding)[..., None]


def product(linear: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """`linear(values)`, by oneDNN's product in inference on CPUs with AVX-512.

    PyTorch multiplies float32 by MKL, there (AMD Zen 4) 1.15 to 1.4 times slower, and adds the
    bias of bfloat16 in a separate step. MKL stays with AVX2 alone, where it is as fast, for small
    matrices, and after `torch.backends.mkldnn.enabled = False`. Whatever replaces a layer (LoRA,
    int8, a hook, a parametrisation, a tensor subclass) is called as it is.
    """
    if runs_onednn(linear, values):
        return _onednn_linear(values, linear.weight, linear.bias)
    return linear(values)


def runs_onednn(linear: nn.Module, values: torch.Tensor) -> bool:
    """Whether oneDNN multiplies these values, (..., in_features)."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or under_transform():
        return False
    if not _is_plain(linear):
        return False
    weight = linear.weight
    served = values.dtype == weight.dtype and values.dtype in _ONEDNN_DTYPES
    on_cpu = values.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return on_cpu and served and weight.numel() >= 2**16 and bool(torch.backends.mkldnn.enabled)


def _is_plain(linear: nn.Module) -> bool:
    """Whether a layer is torch's own, neither replaced nor hooked."""
    hooked = linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear)
    return type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and not hooked


def _onednn_linear(input, weight, bias):
    """F.linear by oneDNN.

    The operator is private. The public ways to it, at 512 tokens: torch.utils.mkldnn gives the
    same bits in the same time, for a second copy of the weights; torch.compile with freezing
    compiles one layer for more than a minute, for the time of F.linear.
    """
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    """What oneDNN multiplies faster than PyTorch here; empty if this torch lacks the operator."""
    avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (avx512 and torch.backends.mkldnn.is_available()):
        return ()
    try:
        half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        dtypes = (torch.float32, torch.bfloat16) if half else (torch.float32,)
        return tuple(dtype for dtype in dtypes if _multiplies(dtype))
    except (AttributeError, RuntimeError, TypeError):  # missing, or of another signature
        return ()


def _multiplies(dtype: torch.dtype) -> bool:
    two, one = torch.full((1, 1), 2.0, dtype=dtype), torch.ones(1, dtype=dtype)
    return _onednn_linear(two, two, one).item() == 5.0


_ONEDNN_DTYPES = _onednn_dtypes()


class ErnieRnaPairingMap(nn.Module):
    """A linear map that stays in float32: no nn.Linear, which quantisation and LoRA would take."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=torch.float32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(values, self.weight, self.bias)


class ErnieRnaPairingProjection(nn.Module):
    """Pairing score -> a bias for each head, in float32 (or float64) whatever the model's dtype."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__()
        self.linear1 = ErnieRnaPairingMap(1, config.pairing_hidden_size)
        self.linear2 = ErnieRnaPairingMap(config.pairing_hidden_size, config.num_attention_heads)

    def forward(self, pairing_scores: torch.Tensor) -> torch.Tensor:
        """(..., seq, seq) -> (..., heads, seq, seq)."""
        with without_autocast(pairing_scores.device):
            scores = pairing_scores.to(self.linear1.weight.dtype)[..., None]
            bias = self.linear2(F.gelu(self.linear1(scores)))
        return bias.movedim(bias.dim() - 1, bias.dim() - 3)  # ONNX knows no negative axes.

    def _apply(self, fn, *args, **kwargs):
        def keep_precision(tensor: torch.Tensor) -> torch.Tensor:
            new = fn(tensor)
            halved = new.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(new.device) if halved else new

        return super()._apply(keep_precision, *args, **kwargs)


def pairing_table(config: ErnieRnaConfig, device: torch.device) -> torch.Tensor:
    """The pairing score of every two ids, (vocab, vocab) in float32; 0 but for A-U, G-C, G-U.

    Zero everywhere with `config.pairing_scores="zero"`.
    """
    table = torch.zeros(config.vocab_size, config.vocab_size, device=device)
    if config.pairing_scores == "zero":
        return table
    pairs = {"AU": config.au_pairing_score, "GC": config.gc_pairing_score}
    for pair, score in {**pairs, "GU": config.gu_pairing_score}.items():
        first, second = map(VOCABULARY.index, pair)
        table[first, second] = table[second, first] = score
    return table


# ---------------------------------------------------------------------------------------------
# Layers


class ErnieRnaAttention(nn.Module):
    """Multi-head attention that adds a bias to its scores and passes the scores on."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states, state, *, carry, in_place, output_attentions):
        """Attend, and pass the scores on.

        Args:
            hidden_states: (batch, seq, hidden).
            state: of one tensor, the bias (batch, heads, seq, seq); of more, that of
                `recomputed_attention`.
            carry, in_place: as for `eager_attention`.

        Returns:
            The new hidden states, the attention weights if requested, and the next state.
        """
        query = self._split(product(self.q_proj, hidden_states) * self.head_dim**-0.5)
        key = self._split(product(self.k_proj, hidden_states))
        value = self._split(product(self.v_proj, hidden_states))
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        with without_autocast(hidden_states.device):
            if len(state) > 1:
                context, state = recomputed_attention(query, key, value, state, dropout=dropout)
                weights = None
            else:
                attend = self._implementation(output_attentions)
                options = {"dropout": dropout, "carry": carry, "in_place": in_place}
                context, scores, weights = attend(query, key, value, *state, **options)
                state = (scores,)
        context = context.transpose(1, 2).flatten(2)  # (batch, seq, hidden)
        return product(self.out_proj, context), weights if output_attentions else None, state

    def _split(self, projected: torch.Tensor) -> torch.Tensor:
        """(batch, seq, hidden) -> (batch, heads, seq, head_dim)."""
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _implementation(self, output_attentions: bool):
        name = resolve_attention(self.config._attn_implementation) or "sdpa"
        if output_attentions and name == "sdpa":
            logger.warning_once(
                "output_attentions=True needs the attention weights, which "
                "scaled_dot_product_attention keeps to itself: running eager attention instead."
            )
            name = "eager"
        return ATTENTIONS[name]


class ErnieRnaLayer(nn.Module):
    """Attention and feed-forward, each with a residual sum and a LayerNorm.

    The LayerNorm follows the sum (post-LN, the authors' model) or, with
    `config.norm_first`, before the block.
    """

    def __init__(self, config: ErnieRnaConfig):
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attn = ErnieRnaAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_states, carry, in_place, output_attentions, *state):
        """As `ErnieRnaAttention.forward`; flat, because checkpointing tracks no nested tensors."""
        attended = self.self_attn_layer_norm(hidden_states) if self.norm_first else hidden_states
        options = {"carry": carry, "in_place": in_place, "output_attentions": output_attentions}
        attended, attentions, state = self.self_attn(attended, state, **options)
        hidden_states = hidden_states + self.dropout(attended)
        if self.norm_first:
            fed = self._feed_forward(self.final_layer_norm(hidden_states))
            return hidden_states + fed, attentions, *state
        hidden_states = self.self_attn_layer_norm(hidden_states)
        fed = self._feed_forward(hidden_states)
        return self.final_layer_norm(hidden_states + fed), attentions, *state

    def _feed_forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = product(self.fc1, hidden_states)  # (batch, seq, intermediate)
        keep = inner.requires_grad or under_transform()
        inner = F.gelu(inner) if keep else torch.ops.aten.gelu_(inner)
        return self.dropout(product(self.fc2, self.activation_dropout(inner)))


class ErnieRnaPooler(nn.Module):
    """tanh of a linear map of the `<cls>` embedding."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, cls_embedding: torch.Tensor) -> torch.Tensor:
        """(batch, hidden) -> (batch, hidden)."""
        return torch.tanh(self.dense(cls_embedding))


class ErnieRnaLMHead(nn.Module):
    """Linear, GELU, LayerNorm and the transposed token embedding with a bias."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, seq, hidden) -> (batch, seq, vocab)."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(hidden_states))))
