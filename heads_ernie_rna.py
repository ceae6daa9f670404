"""Heads of the authors' fine-tuned models: pairs of bases, and mean ribosome loading.

Rewritten after the authors' code (github.com/Bruce-ywj/ERNIE-RNA, commit 215132c). Their batch
norms give padding a value and their convolutions spread it; here padding is set to zero before
every convolution and left out of every mean, so that a sequence gives the same in any batch.

Shapes: batch sequences, length bases of the longest sequence, channels.
"""

import torch
import torch.nn.functional as F
from torch import nn


class MaskedBatchNorm(nn.Module):
    """Batch norm over the real positions of a batch, for any number of spatial dimensions.

    Its parameters and running statistics are those of nn.BatchNorm1d and nn.BatchNorm2d.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, values: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Normalise, without a mask on the result.

        Args:
            values: (batch, channels, ...), zero at padding.
            count: scalar, real positions of the whole batch.
        """
        if self.training:
            mean, variance = self._batch_statistics(values, count)
        else:
            mean, variance = self.running_mean, self.running_var
        wide = torch.promote_types(variance.dtype, torch.float32)
        scale = self.weight * torch.rsqrt(variance.to(wide) + self.eps).to(self.weight.dtype)
        shift = self.bias - mean * scale
        shape = (1, -1) + (1,) * (values.dim() - 2)
        return torch.addcmul(shift.view(shape), values, scale.view(shape))

    def _batch_statistics(self, values, count):
        """Mean and variance (channels,) of the real positions; moves the running ones.

        Without a real position both are 0, and the running ones stay.
        """
        dims = [dim for dim in range(values.dim()) if dim != 1]
        # Padding is zero and adds to neither sum. torch.var_mean takes four times as long.
        divisor = count.clamp(min=1)
        mean = values.sum(dims) / divisor
        variance = values.square().sum(dims) / divisor - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += count > 0
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                new = torch.where(count > 0, new.to(running.dtype), running)
                running.lerp_(new, self.momentum)
        return mean, variance


def _masked_relu(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """relu(values) * mask, in place unless autograd needs the values, or a trace one graph."""
    if values.requires_grad or torch.jit.is_tracing():
        return F.relu(values) * mask
    return values.relu_().mul_(mask)


class PairBlock(nn.Module):
    """x + conv(relu(dropout(conv(relu(norm(x)))))), the second convolution dilated."""

    def __init__(self, channels: int, dilation: int, dropout: float):
        super().__init__()
        self.norm = MaskedBatchNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, pairs: torch.Tensor, mask: torch.Tensor, count) -> torch.Tensor:
        """(batch, channels, length, length), zero at padding, to the same."""
        inner = _masked_relu(self.norm(pairs, count), mask)
        inner = _masked_relu(self.dropout(self.conv1(inner)), mask)
        inner = self.conv2(inner)
        if inner.requires_grad or torch.jit.is_tracing():
            return pairs + inner * mask
        return pairs.add_(inner.mul_(mask))


class PairHead(nn.Module):
    """Maps of attention scores -> a logit for each pair of bases.

    In the authors' files `conv_in`, `conv_expand` and `conv_out` are `conv1`, `conv2` and
    `proj.final`; `blocks.N.norm` is `proj.resnet.N.bn1`.

    Args:
        maps: score maps that come in.
        channels: of the residual blocks, the maps included.
        blocks: how many; their dilations are 1, 2, 4, 1, 2, 4, ....
        dropout: after the first convolution.
        block_dropout: inside each block.
    """

    def __init__(
        self,
        maps: int,
        channels: int,
        blocks: int,
        dropout: float = 0.3,
        block_dropout: float = 0.4,
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(maps, 8, 7, padding=3)
        self.conv_expand = nn.Conv2d(8, channels - maps, 7, padding=3)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PairBlock(channels, 2 ** (block % 3), block_dropout) for block in range(blocks)
        )
        self.conv_out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, maps: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """(batch, maps, length, length) -> symmetric logits (batch, length, length).

        Args:
            maps: zero at padding.
            inside: (batch, length), True at bases.
        """
        both = inside[:, None, :, None] & inside[:, None, None, :]
        mask, count = both.to(maps.dtype), both.sum()
        # oneDNN convolves this layout without copies.
        maps = maps.contiguous(memory_format=torch.channels_last)
        hidden = _masked_relu(self.dropout(self.conv_in(maps)), mask)
        pairs = torch.cat([self.conv_expand(hidden) * mask, maps], dim=1)
        del hidden, maps
        for block in self.blocks:
            pairs = block(pairs, mask, count)
        logits = self.conv_out(pairs)[:, 0] * mask[:, 0]
        return logits + logits.transpose(1, 2)


class LoadingBlock(nn.Module):
    """A residual block over positions; with stride 2 both ways halve the length, rounded up."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.norm1 = MaskedBatchNorm(channels)
        self.conv1 = nn.Conv1d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = MaskedBatchNorm(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        if stride > 1:
            self.shortcut = nn.Conv1d(channels, channels, 1, stride=stride, bias=False)
            self.shortcut_norm = MaskedBatchNorm(channels)

    def forward(self, states: torch.Tensor, lengths: torch.Tensor):
        """(batch, channels, length), zero at padding, and lengths (batch,) to the same."""
        mask = _position_mask(states, lengths)
        inner = F.relu(self.norm1(states, lengths.sum())) * mask
        lengths = -(-lengths // self.stride)
        inner = self.conv1(inner)
        mask, count = _position_mask(inner, lengths), lengths.sum()
        inner = F.relu(self.norm2(inner * mask, count)) * mask
        if self.stride > 1:
            states = self.shortcut_norm(self.shortcut(states) * mask, count)
        return (states + self.conv2(inner)) * mask, lengths


def _position_mask(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(batch, 1, length), 1 at real positions, in the dtype of the states."""
    positions = torch.arange(states.shape[-1], device=states.device)
    return (positions < lengths[:, None])[:, None].to(states.dtype)


class RibosomeLoadingHead(nn.Module):
    """Hidden states of the bases -> one number, the standardised mean ribosome loading.

    In the authors' files, under `head.`, `reduce` is `reductio_module`, `conv_in`, `blocks.N` and
    `output` are `predictor.0`, `predictor.N+1` and `predictor.10`; in a block `shortcut` and
    `shortcut_norm` are `downsample.0` and `downsample.1`, `normN` is `bnN`.

    Args:
        hidden: width of the hidden states.
        reduced: width that they are brought to first.
        channels: of the convolutions.
        blocks: how many; every other one, the first included, halves the length.
        dropout: before the last map.
    """

    def __init__(self, hidden: int, reduced: int, channels: int, blocks: int, dropout: float):
        super().__init__()
        self.reduce = nn.Linear(hidden, reduced)
        self.conv_in = nn.Conv1d(reduced, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            LoadingBlock(channels, 2 - block % 2) for block in range(blocks)
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels, 1)

    def forward(self, states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """(batch, length, hidden) -> (batch,).

        Args:
            states: hidden states of the bases.
            inside: (batch, length), True at bases; they stand first.
        """
        lengths = inside.sum(dim=1)
        hidden = (self.reduce(states) * inside[..., None]).transpose(1, 2)
        hidden = self.conv_in(hidden)  # (batch, channels, length)
        hidden = hidden * _position_mask(hidden, lengths)
        for block in self.blocks:
            hidden, lengths = block(hidden, lengths)
        mean = hidden.sum(dim=-1) / lengths.clamp(min=1)[:, None]
        return self.output(self.dropout(mean))[:, 0]


def base_spans(mask: torch.Tensor):
    """Where the bases of each sequence lie among its tokens.

    Args:
        mask: (batch, seq), True at real tokens, which stand together, `<cls>` first, `<eos>` last.

    Returns:
        The token index of the first base (batch,), the number of bases (batch,), and `inside`
        (batch, length), True at the bases of each sequence once they are moved to the front.
    """
    first = mask.int().argmax(dim=1) + 1
    lengths = (mask.sum(dim=1) - 2).clamp(min=0)
    length = max(mask.shape[1] - 2, 0)
    inside = torch.arange(length, device=mask.device) < lengths[:, None]
    return first, lengths, inside


def _has_no_position(inside: torch.Tensor) -> bool:
    """Whether the longest sequence has no base; no convolution takes that. A trace cannot tell."""
    return not torch.jit.is_tracing() and inside.shape[1] == 0


def bases_of_scores(scores: torch.Tensor, mask: torch.Tensor, heads: list[int] | None):
    """Scores between bases, where they stand between the first token and the last, and `inside`.

    Args:
        scores: (batch, all heads, seq, seq).
        mask: as for `base_spans`.
        heads: which of them; None takes all.

    Returns:
        (batch, heads, length, length), zero at padding, and (batch, length), True at bases; length
        is seq - 2, but at least 1.
    """
    first, lengths, _ = base_spans(mask)
    stop = max(mask.shape[1] - 1, 1)
    positions = torch.arange(1, stop, device=mask.device)
    inside = (positions >= first[:, None]) & (positions < (first + lengths)[:, None])
    if heads is not None:
        scores = scores[:, heads]
    # A slice, whichever side the padding is on: its gradient is far cheaper than a gather's, and
    # it needs no value from a GPU. `pairs_in_front` moves the logits to the front.
    scores = scores[:, :, 1:stop, 1:stop]
    if _has_no_position(inside):
        scores, inside = F.pad(scores, (0, 1, 0, 1)), F.pad(inside, (0, 1))
    both = inside[:, None, :, None] & inside[:, None, None, :]
    return scores.masked_fill(~both, 0.0), inside


def pairs_in_front(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits (batch, length, length) of `bases_of_scores`, first base at 0, zero at padding.

    Args:
        mask: (batch, length + 2), as for `base_spans`.
    """
    first, _, inside = base_spans(mask)
    length = inside.shape[1]
    index = first[:, None] - 1 + torch.arange(length, device=mask.device)
    index = index.clamp(max=max(length - 1, 0))
    logits = logits.gather(1, index[:, :, None].expand(-1, -1, length))
    logits = logits.gather(2, index[:, None, :].expand(-1, length, -1))
    return logits.masked_fill(~(inside[:, :, None] & inside[:, None, :]), 0.0)


def bases_of_states(states: torch.Tensor, mask: torch.Tensor):
    """The hidden states of bases, moved to the front, then zeros; and `inside`. At least 1 long."""
    first, _, inside = base_spans(mask)
    if _has_no_position(inside):
        inside = F.pad(inside, (0, 1))
    index = first[:, None] + torch.arange(inside.shape[1], device=mask.device)
    index = index.clamp(max=mask.shape[1] - 1)
    states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
    return states * inside[..., None], inside


def pair_loss(logits, labels, positive_weight: float, num_items=None) -> torch.Tensor:
    """Binary cross entropy in float32 over the admitted pairs, (batch, length, length) each.

    Args:
        labels: 1 for pairs, 0 for none, -100 for entries to leave out, padding among them.
        positive_weight: weight of a pair; of all others 1.
        num_items: admitted entries of the whole batch that this one is a part of; None divides
            by those here.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"pair labels must be (batch, length, length) = {tuple(logits.shape)}, over bases; "
            f"got {tuple(labels.shape)}"
        )
    admitted = labels != -100
    targets = labels.clamp(min=0).float()
    weights = admitted * (1 + (positive_weight - 1) * targets)
    entries = F.binary_cross_entropy_with_logits(
        logits.float(), targets, weight=weights, reduction="sum"
    )
    return entries / at_least_one(admitted.sum() if num_items is None else num_items)


def at_least_one(count):
    """A number of labels as a divisor: without any label a loss is 0, and not 0 / 0."""
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)
