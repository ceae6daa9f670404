"""ERNIE-RNA: an RNA encoder whose attention carries its scores from layer to layer.

The model is that of Yin et al., Nature Communications 16:8407 (2025), rewritten after the
authors' code (github.com/Bruce-ywj/ERNIE-RNA, commit 215132c). How likely two nucleotides are
to pair biases the attention of the first layer; the scores of each layer bias the next one's.

Shapes: batch sequences, seq tokens, heads, head_dim, hidden = heads * head_dim, vocab. Words:
pairing_scores      (batch, seq, seq), the potential to pair, read off the sequence
attention_scores    (batch, heads, seq, seq), before softmax; -inf for keys that are padding
attention_biases    what a layer adds to query keyᵀ: the attention_scores of the layer before
attentions          after softmax
"""

import copy
import difflib
import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .attention_ernie_rna import bias_by_id, look_up_bias, resolve_attention, under_transform
from .configuration_ernie_rna import ErnieRnaConfig

# Unused: transformers up to 5.5 fetches no files but those that this one imports itself.
from .fused_ernie_rna import why_not  # noqa: F401
from .heads_ernie_rna import (
    MaskedBatchNorm,
    PairHead,
    RibosomeLoadingHead,
    at_least_one,
    bases_of_scores,
    bases_of_states,
    pair_loss,
    pairs_in_front,
)
from .layers_ernie_rna import (
    ErnieRnaLayer,
    ErnieRnaLMHead,
    ErnieRnaPairingMap,
    ErnieRnaPairingProjection,
    ErnieRnaPooler,
    pairing_table,
    sinusoidal_positions,
)

if TYPE_CHECKING:
    # Never run: save_pretrained copies the files that this one names so, and a model that was
    # loaded from the Hub then has them. The pipeline imports what it needs itself.
    from .pipeline_ernie_rna import RnaSecondaryStructurePipeline  # noqa: F401
    from .structures_ernie_rna import solve_each  # noqa: F401


@dataclass
class ErnieRnaModelOutput(ModelOutput):
    """What `ErnieRnaModel` returns.

    Attributes:
        last_hidden_state: (batch, seq, hidden), the last layer's output.
        pooler_output: (batch, hidden), tanh of a linear map of the `<cls>` embedding.
        hidden_states: embedding output and each layer's, (batch, seq, hidden) each.
        attentions: each layer's attention weights, (batch, heads, seq, seq).
        attention_biases: the projected pairing scores, then each layer's scores before softmax,
            (batch, heads, seq, seq) each; -inf at keys that are padding.
        attention_scores: the last layer's scores alone, (batch, heads, seq, seq).
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None
    attention_scores: torch.Tensor | None = None


@dataclass
class ErnieRnaHeadOutput(ModelOutput):
    """What the models with a head return; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, if labels were given.
        logits: (batch, seq, vocab), (batch, seq, num_labels) or (batch, num_labels); of pairs
            (batch, length, length) over bases, symmetric, zero at padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None


@dataclass
class ErnieRnaRibosomeLoadingOutput(ModelOutput):
    """What `ErnieRnaForRibosomeLoading` returns; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, of standardised values, if labels were given.
        logits: (batch,), standardised.
        predictions: (batch,), mean ribosome loading.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None


@dataclass
class ErnieRnaPreTrainingOutput(ModelOutput):
    """What `ErnieRnaForPreTraining` returns; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, if labels were given: the sum of those of the two heads.
        logits: (batch, seq, vocab), of the masked-LM head.
        pair_logits: (batch, length, length) over bases, symmetric, zero at padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pair_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None


# What the Trainer, tokenizers and peft pass to any model, found by running them and pipelines on
# transformers 4.41 to 5.24.
_PASSED = frozenset(("num_items_in_batch", "token_type_ids"))


class ErnieRnaPreTrainedModel(PreTrainedModel):
    """Weight initialisation, dtypes and attention implementations of all ERNIE-RNA models."""

    config_class = ErnieRnaConfig
    base_model_prefix = "ernie_rna"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ErnieRnaLayer"]
    # The first covers float16, the second (transformers >= 4.53) bfloat16 as well.
    _keep_in_fp32_modules = ["twod_proj"]
    _keep_in_fp32_modules_strict = ["twod_proj"]
    _keys_to_ignore_on_load_unexpected = [
        *(r"^lm_head\.", r"^(ernie_rna\.)?pooler\.", r"^pair_head\.", r"^loading_head\."),
    ]
    # The losses divide by num_items_in_batch themselves.
    accepts_loss_kwargs = True

    def __init__(self, config: ErnieRnaConfig, *args, **kwargs):
        config.check_values()  # transformers also sets values after the constructor.
        super().__init__(config, *args, **kwargs)

    @classmethod
    def _from_config(cls, config: ErnieRnaConfig, **kwargs):  # what `AutoModel.from_config` calls
        config = copy.deepcopy(config)  # The caller's stays as it is.
        config.weights_origin = "random"
        return super()._from_config(config, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        # nn.init respects what is loaded already; module.weight.data would overwrite it.
        if isinstance(module, (nn.Linear, nn.Embedding, ErnieRnaPairingMap)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, (nn.Linear, ErnieRnaPairingMap)) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (nn.LayerNorm, MaskedBatchNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, MaskedBatchNorm):
            nn.init.zeros_(module.running_mean)
            nn.init.ones_(module.running_var)
            nn.init.zeros_(module.num_batches_tracked)
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @classmethod
    def _autoset_attn_implementation(cls, config, *args, **kwargs):  # transformers < 4.54
        name = getattr(config, "_attn_implementation_internal", None)
        config._attn_implementation_internal = resolve_attention(name)
        return super()._autoset_attn_implementation(config, *args, **kwargs)

    def _check_and_adjust_attn_implementation(self, name, *args, **kwargs):  # >= 4.54
        return super()._check_and_adjust_attn_implementation(
            resolve_attention(name), *args, **kwargs
        )

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    def set_attn_implementation(self, name, *args, **kwargs):
        """Switch between 'sdpa', 'eager' and 'flash_attention_2' (which runs eager)."""
        name = resolve_attention(name)
        parent = getattr(super(), "set_attn_implementation", None)
        if parent is None:  # transformers < 4.54
            self.config._attn_implementation = name
        else:
            parent(name, *args, **kwargs)

    def _flag(self, value: bool | None, name: str) -> bool:
        """An argument of forward, or the config's value if it was left out."""
        return bool(getattr(self.config, name, False) if value is None else value)

    def _refuse(self, kwargs: dict) -> None:
        """TypeError for a value under a name that `forward` does not have."""
        odd = [n for n, value in kwargs.items() if value is not None and n not in _PASSED]
        if not odd:
            return
        known = [name for name in inspect.signature(self.forward).parameters if name != "kwargs"]
        near = difflib.get_close_matches(odd[0], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
        raise TypeError(f"{type(self).__name__} takes no argument {odd[0]!r}: {hint}")

    def _as_tuple(self, output: ModelOutput, return_dict: bool | None):
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        return output if return_dict else output.to_tuple()


class ErnieRnaModel(ErnieRnaPreTrainedModel):
    """The encoder, with a pooler if its weights have one and unless `add_pooling_layer=False`."""

    def __init__(self, config: ErnieRnaConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embed_tokens: nn.Module = nn.Embedding(
            config.vocab_size, config.hidden_size, config.pad_token_id
        )
        self.emb_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.twod_proj = ErnieRnaPairingProjection(config)
        self.layers = nn.ModuleList(ErnieRnaLayer(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = None
        if config.norm_first:  # The sums of pre-LN layers leave the last one unnormalised.
            self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = ErnieRnaPooler(config) if add_pooling_layer and config.has_pooler else None
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_tokens = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pairing_scores: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attention_biases: bool | None = None,
        return_dict: bool | None = None,
        output_attention_scores: bool = False,
        **kwargs,
    ) -> ErnieRnaModelOutput | tuple:
        """Encode a batch of sequences.

        Args:
            input_ids: (batch, seq) token ids; these or `inputs_embeds`.
            attention_mask: (batch, seq), 0 at padding. None reads it from the padding id. A
                sequence without a real token attends to its padding: finite, of no meaning.
            position_ids: (batch, seq) rows of the sinusoidal table, counted from
                `pad_token_id + 1` for the first real token. None counts the real tokens.
            inputs_embeds: (batch, seq, hidden) in place of the token embedding.
            pairing_scores: (batch, seq, seq) in place of what `config.pairing_scores` says.
            output_attentions: return each layer's attention weights.
            output_hidden_states: return the embedding output and each layer's.
            output_attention_biases: return the projected pairing scores and each layer's scores.
            return_dict: False returns a tuple without the None entries.
            output_attention_scores: return the last layer's scores, without those of the others.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`, `inputs_embeds`
                without `pairing_scores`, or a shape that does not fit.
        """
        self._refuse(kwargs)
        output_attentions = self._flag(output_attentions, "output_attentions")
        output_hidden_states = self._flag(output_hidden_states, "output_hidden_states")
        output_biases = self._flag(output_attention_biases, "output_attention_biases")
        _check_inputs(input_ids, attention_mask, inputs_embeds, pairing_scores)
        if input_ids is not None:
            _check_range("input_ids", input_ids, self.config.vocab_size - 1, left_out=False)

        mask = self._attention_mask(input_ids, attention_mask, inputs_embeds)
        hidden_states = self._embed(input_ids, mask, position_ids, inputs_embeds)
        needs_scores = {
            "output_attentions": output_attentions,
            "output_attention_biases": output_biases,
            "output_attention_scores": output_attention_scores,
            "pairing_scores": pairing_scores is not None,
        }
        recompute = self._recomputes(hidden_states, [k for k, v in needs_scores.items() if v])
        state = self._first_state(input_ids, mask, pairing_scores, recompute, hidden_states.dtype)
        # Autograd and the caller need each layer's scores; else one buffer serves all layers.
        in_place = not (torch.is_grad_enabled() or output_biases or under_transform())
        all_hidden, all_biases, all_attentions = [hidden_states], [*state], []
        for layer in self.layers:
            wanted = output_biases or output_attention_scores
            carry = wanted or layer is not self.layers[-1]
            hidden_states, attentions, *state = self._run(
                layer, hidden_states, carry, in_place, output_attentions, *state
            )
            if self.layer_norm is not None and layer is self.layers[-1]:
                hidden_states = self.layer_norm(hidden_states)
            if output_hidden_states:
                all_hidden.append(hidden_states)
            if output_biases:
                all_biases.append(*state)
            if output_attentions:
                all_attentions.append(attentions)
        pooled = None
        if self.pooler is not None:
            pooled = self.pooler(cls_embedding(hidden_states, mask))
        output = ErnieRnaModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooled,
            hidden_states=tuple(all_hidden) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
            attention_biases=tuple(all_biases) if output_biases else None,
            attention_scores=state[0] if output_attention_scores else None,
        )
        return self._as_tuple(output, return_dict)

    def _run(self, layer, *args):
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(layer.__call__, *args)
        return layer(*args)

    def _attention_mask(self, input_ids, attention_mask, inputs_embeds) -> torch.Tensor:
        """(batch, seq), True at real tokens."""
        if attention_mask is not None:
            return attention_mask != 0
        if input_ids is not None:
            return input_ids != self.config.pad_token_id
        batch, seq, _ = inputs_embeds.shape
        return torch.ones(batch, seq, dtype=torch.bool, device=inputs_embeds.device)

    def _embed(self, input_ids, mask, position_ids, inputs_embeds) -> torch.Tensor:
        """(batch, seq, hidden), zero at padding."""
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        padding = self.config.pad_token_id
        if position_ids is None:
            position_ids = mask.long().cumsum(dim=1) * mask + padding
        hidden = self.config.hidden_size
        positions = sinusoidal_positions(position_ids, hidden, padding).to(inputs_embeds.dtype)
        return self.dropout(self.emb_layer_norm(inputs_embeds + positions)) * mask[..., None]

    def _first_state(self, input_ids, mask, pairing_scores, recompute, dtype) -> tuple:
        """The projected pairing scores, -inf at keys that are padding, for the first layer.

        Args:
            dtype: that of the residual stream, in which the scores are carried as well. Against
                float64, scores in bfloat16 add nothing to the error of a bfloat16 model but 30
                to 50 % to that of a float32 model under autocast (tests/model/test_attention.py).

        Returns:
            The bias (batch, heads, seq, seq) or, to recompute from, its flat `bias_by_id`.
        """
        # A row of -inf alone has no softmax: sequences without a real token keep all their keys.
        keep = mask | ~mask.any(dim=1, keepdim=True)
        if pairing_scores is not None:
            bias = self.twod_proj(pairing_scores).to(dtype)
            return (bias.masked_fill(~keep[:, None, None, :], -math.inf),)
        table = self.twod_proj(pairing_table(self.config, input_ids.device)).to(dtype)
        rows, columns = bias_by_id(table, input_ids, keep)
        if recompute:
            return rows.flatten(0, 1), columns.flatten(0, 1)
        return (look_up_bias(rows, columns),)

    def _recomputes(self, hidden_states: torch.Tensor, needs_scores: list[str]) -> bool:
        """Whether the scores are recomputed in each layer, by `config.score_memory`.

        "auto" recomputes beyond `max_position_embeddings` tokens if the carried scores (one
        buffer, or one a layer for gradients) would take more than half of the free memory;
        torch.compile, torch.export and torch.jit.trace, which cannot query it, always carry.

        Raises:
            ValueError: "recompute" with something that needs the scores, named by `needs_scores`.
        """
        choice = self.config.score_memory
        if choice == "recompute" and needs_scores:
            raise ValueError(
                f"score_memory='recompute' never holds the scores that {needs_scores[0]} needs: "
                "use score_memory='carry' or 'auto'"
            )
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if choice != "auto" or needs_scores or traced:
            return choice == "recompute"
        batch, seq, _ = hidden_states.shape
        if seq <= self.config.max_position_embeddings:
            return False
        buffers = self.config.num_hidden_layers if torch.is_grad_enabled() else 1
        scores = batch * self.config.num_attention_heads * seq**2
        size = hidden_states.element_size() * scores * buffers
        return size > free_memory(hidden_states.device) / 2


def free_memory(device: torch.device) -> float:
    """Bytes that can still be allocated; infinity if that is unknown."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        with open("/proc/meminfo") as file:
            kilobytes = {line.split(":")[0]: line.split()[1] for line in file}
        return 1024 * int(kilobytes["MemAvailable"])
    except (OSError, KeyError):
        return math.inf


def _check_inputs(input_ids, attention_mask, inputs_embeds, pairing_scores) -> None:
    if (input_ids is None) == (inputs_embeds is None):
        given = "both" if input_ids is not None else "neither"
        raise ValueError(f"give either input_ids or inputs_embeds; got {given}")
    if inputs_embeds is not None and pairing_scores is None:
        raise ValueError(
            "inputs_embeds say nothing about base pairs: give pairing_scores "
            "(batch, seq, seq) as well, zeros for none"
        )
    given = input_ids if inputs_embeds is None else inputs_embeds
    if not isinstance(given, torch.Tensor) or given.ndim != 2 + (inputs_embeds is not None):
        found = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise ValueError(
            "input_ids must be a tensor (batch, seq), and inputs_embeds (batch, seq, hidden), as "
            f"of model(**tokenizer(sequences, return_tensors='pt', padding=True)); got {found}"
        )
    if torch.jit.is_tracing():  # Shapes are then tensors, and it warns of each comparison.
        return
    batch, seq = given.shape[:2]
    if seq == 0:  # `not seq` would make torch 2.4 compile for each length
        raise ValueError(f"a sequence needs at least one token; got the shape {tuple(given.shape)}")
    _check_shape("attention_mask must be (batch, seq)", attention_mask, (batch, seq))
    _check_shape("pairing_scores must be (batch, seq, seq)", pairing_scores, (batch, seq, seq))


def _check_shape(rule: str, given: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    if given is not None and given.shape != shape:
        raise ValueError(f"{rule} = {shape}; got {tuple(given.shape)}")


def _check_range(name: str, values: torch.Tensor, last: int, left_out: bool = True) -> None:
    """ValueError for a value that is neither 0 to `last` nor, if left out, -100; on CPUs only.

    On a GPU the check would have to wait, and a trace or a transform has no values. It takes
    a ten-thousandth of the time of a full-size batch of 8 x 512 tokens.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling() or under_transform():
        return
    right = (values >= 0) & (values <= last)  # NaN is neither.
    if left_out:
        right |= values == -100
    if not right.all():
        none = ", or -100 where there is none" if left_out else ""
        raise ValueError(f"{name} hold {values[~right][0].item()}; they must be 0 to {last}{none}")


def cls_embedding(hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(batch, seq, hidden) -> (batch, hidden) at the first real token, however it is padded."""
    first = mask.int().argmax(dim=1)[:, None, None].expand(-1, -1, hidden_states.shape[-1])
    return hidden_states.gather(1, first)[:, 0]


class _ErnieRnaHeadModel(ErnieRnaPreTrainedModel):
    """The encoder and a head on it; subclasses say what the logits and the loss are."""

    _reads_scores = False
    # Outputs that the Trainer does not hand to metrics; it looks for them in the configuration.
    _keys_to_ignore_at_inference: tuple[str, ...] = ()

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        self.ernie_rna = ErnieRnaModel(config, add_pooling_layer=False)

    def post_init(self) -> None:
        super().post_init()
        self.config.keys_to_ignore_at_inference = list(self._keys_to_ignore_at_inference)

    def _logits(self, outputs: ErnieRnaModelOutput, mask: torch.Tensor) -> torch.Tensor:
        """The head on the encoder's outputs; `mask` (batch, seq) is True at real tokens."""
        raise NotImplementedError

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, num_items) -> torch.Tensor:
        """The loss of float32 logits; here those of classes."""
        return _class_loss(logits, labels, num_items)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pairing_scores: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attention_biases: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> ErnieRnaHeadOutput | tuple:
        """Encode a batch, apply the head and, given labels, the loss.

        Args:
            labels: see the class; -100 is left out of a loss over classes.
            num_items_in_batch: labels in the whole batch of which this one is a part (the Trainer
                passes it when it accumulates gradients); None takes the mean over this part.

        The other arguments are those of `ErnieRnaModel.forward`.
        """
        self._refuse(kwargs)
        outputs = self.ernie_rna(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pairing_scores=pairing_scores,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_attention_biases=output_attention_biases,
            output_attention_scores=self._reads_scores,
            return_dict=True,
        )
        mask = self.ernie_rna._attention_mask(input_ids, attention_mask, inputs_embeds)
        logits = self._logits(outputs, mask)
        loss = None
        if labels is not None:
            loss = self._loss(logits.float(), labels.to(logits.device), num_items_in_batch)
        output = self._output(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            attention_biases=outputs.attention_biases,
        )
        return self._as_tuple(output, return_dict)

    def _output(self, **parts) -> ModelOutput:
        return ErnieRnaHeadOutput(**parts)


def _class_loss(logits, labels, num_items) -> torch.Tensor:
    """Cross entropy of (..., classes) over labels but -100, 0 if all are that; see `forward`."""
    _check_range("labels", labels, logits.shape[-1] - 1)
    logits, labels = logits.flatten(0, -2), labels.flatten()
    if num_items is None:
        num_items = (labels != -100).sum()
    return F.cross_entropy(logits, labels, reduction="sum") / at_least_one(num_items)


def _squared_loss(values, targets, labels, num_items) -> torch.Tensor:
    """Mean squared error of numbers, none of which is left out.

    Args:
        values, targets: to be compared, of one shape.
        labels: as they were given: the Trainer does not count those that are exactly -100.
        num_items: see `forward`.
    """
    count = labels.numel() if num_items is None else num_items + (labels == -100).sum()
    return F.mse_loss(values, targets, reduction="sum") / at_least_one(count)


class ErnieRnaForMaskedLM(_ErnieRnaHeadModel):
    """Predicts masked tokens; `labels` are (batch, seq) ids."""

    # A dict works in 4.x, which iterates its keys, and in 5.x.
    _tied_weights_keys = {"lm_head.decoder.weight": "ernie_rna.embed_tokens.weight"}

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        self.lm_head = ErnieRnaLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head.decoder = new_embeddings

    def tie_weights(self, *args, **kwargs):
        # transformers 5.3.0 leaves the tied decoder of remote code on the meta device.
        missing = kwargs.get("missing_keys")
        if missing is not None and self.lm_head.decoder.weight.is_meta:
            missing.add("lm_head.decoder.weight")
        return super().tie_weights(*args, **kwargs)

    def _logits(self, outputs, mask):
        return self.lm_head(outputs.last_hidden_state)


class _ErnieRnaClassifier(_ErnieRnaHeadModel):
    """A linear map of hidden states."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        rate = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class ErnieRnaForTokenClassification(_ErnieRnaClassifier):
    """Predicts a class for each token; `labels` are (batch, seq), -100 where there is none."""

    def _logits(self, outputs, mask):
        return self.classifier(self.dropout(outputs.last_hidden_state))


class ErnieRnaForSequenceClassification(_ErnieRnaClassifier):
    """Predicts from the `<cls>` embedding, as `config.problem_type` says.

    - "regression": `labels` are numbers, (batch,) or (batch, num_labels); mean squared error.
    - "single_label_classification": (batch,) class ids; cross entropy.
    - "multi_label_classification": (batch, num_labels) of 0 to 1; binary cross entropy.

    None becomes regression for one label, else the multi-label form for floats and for labels of
    (batch, num_labels), the single-label form for other integers, with the first labels that are
    seen; as with transformers' own models, a saved config.json then says so.
    """

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the Trainer counts labels for the loss; a number of -100 it would not count."""
        return self._problem_type(None) != "regression"

    def _logits(self, outputs, mask):
        return self.classifier(self.dropout(cls_embedding(outputs.last_hidden_state, mask)))

    def _loss(self, logits, labels, num_items):
        problem = self.config.problem_type = self._problem_type(labels)
        if problem == "single_label_classification":
            return _class_loss(logits, labels, num_items)
        if labels.numel() != logits.numel():
            raise ValueError(
                f"labels of {problem} must be (batch, num_labels) = {tuple(logits.shape)}; "
                f"got {tuple(labels.shape)}"
            )
        labels = labels.view_as(logits).float()
        if problem == "regression":
            return _squared_loss(logits, labels, labels, num_items)
        _check_range("labels", labels, 1, left_out=False)
        if num_items is None:
            num_items = labels.numel()
        entries = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return entries / at_least_one(num_items)

    def _problem_type(self, labels: torch.Tensor | None) -> str | None:
        """What the config says, or what the labels are; None without either."""
        count = self.config.num_labels
        if self.config.problem_type is not None or labels is None:
            return self.config.problem_type or ("regression" if count == 1 else None)
        if count == 1:
            return "regression"
        several = labels.is_floating_point() or labels.shape[1:] == (count,)
        return f"{'multi' if several else 'single'}_label_classification"


class _ErnieRnaPairModel(_ErnieRnaHeadModel):
    """A pair head on the last attention scores; `labels` (batch, length, length) over bases.

    Labels are 1 for a pair, 0 for none and -100 for entries to leave out, padding among them.
    `config.pair_heads` says which heads of the scores it reads.
    """

    _reads_scores = True

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        self.pair_head = _pair_head(config)
        self.post_init()

    def _logits(self, outputs, mask):
        scores = bases_of_scores(outputs.attention_scores, mask, self.config.pair_heads)
        return pairs_in_front(self.pair_head(*scores), mask)

    def _loss(self, logits, labels, num_items):
        _check_range("labels", labels, 1)
        return pair_loss(logits, labels, self.config.pair_positive_weight, num_items)


def _pair_head(config: ErnieRnaConfig) -> nn.Module:
    heads = config.pair_heads
    config.check_pair_head()
    return PairHead(
        config.num_attention_heads if heads is None else len(heads),
        config.pair_channels,
        config.pair_blocks,
        config.pair_dropout,
        config.pair_block_dropout,
    )


class ErnieRnaForSecondaryStructure(_ErnieRnaPairModel):
    """Predicts which bases pair, the authors' model from the scores of head 5, by 8 blocks."""


class ErnieRnaForCloseness(_ErnieRnaPairModel):
    """Predicts which bases are close in space, the authors' model from all heads, by 16 blocks."""


class ErnieRnaForRibosomeLoading(_ErnieRnaHeadModel):
    """Predicts mean ribosome loading; `labels` are (batch,), in its units.

    The loss is the mean squared error of (label - mean) / scale, with the config's numbers. The
    Trainer gets the predictions alone.
    """

    accepts_loss_kwargs = False  # The Trainer would not count a number of -100.
    _keys_to_ignore_at_inference = ("logits",)

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        self.loading_head = RibosomeLoadingHead(
            config.hidden_size,
            config.loading_reduced_size,
            config.loading_channels,
            config.loading_blocks,
            config.loading_dropout,
        )
        self.post_init()

    def _logits(self, outputs, mask):
        return self.loading_head(*bases_of_states(outputs.last_hidden_state, mask))

    def _loss(self, logits, labels, num_items):
        if labels.numel() != logits.numel():
            raise ValueError(
                f"labels must be (batch,) = {tuple(logits.shape)}; got {tuple(labels.shape)}"
            )
        labels = labels.view_as(logits).float()
        standardised = (labels - self.config.loading_mean) / self.config.loading_scale
        return _squared_loss(logits, standardised, labels, num_items)

    def _output(self, **parts):
        logits = parts["logits"].float()
        predictions = logits * self.config.loading_scale + self.config.loading_mean
        return ErnieRnaRibosomeLoadingOutput(predictions=predictions, **parts)


class ErnieRnaForPreTraining(ErnieRnaForMaskedLM):
    """Predicts masked tokens and pairs of bases, by two heads on one encoder."""

    def __init__(self, config: ErnieRnaConfig):
        super().__init__(config)
        self.pair_head = _pair_head(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pairing_scores: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attention_biases: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        pair_labels: torch.Tensor | None = None,
        **kwargs,
    ) -> ErnieRnaPreTrainingOutput | tuple:
        """Encode a batch and apply the heads whose labels are given, or both if none are.

        Args:
            labels: (batch, seq) ids, -100 where nothing is to be predicted.
            num_items_in_batch: of the masked-LM loss, as for the other heads.
            pair_labels: (batch, length, length) over bases: 1 a pair, 0 none, -100 left out.

        The other arguments are those of `ErnieRnaModel.forward`.
        """
        neither = labels is None and pair_labels is None
        self._refuse(kwargs)
        outputs = self.ernie_rna(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pairing_scores=pairing_scores,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_attention_biases=output_attention_biases,
            output_attention_scores=neither or pair_labels is not None,
            return_dict=True,
        )
        losses, logits = [], {}
        if neither or labels is not None:
            tokens = logits["logits"] = self.lm_head(outputs.last_hidden_state)
            if labels is not None:
                labels = labels.to(tokens.device)
                losses.append(self._loss(tokens.float(), labels, num_items_in_batch))
        if neither or pair_labels is not None:
            mask = self.ernie_rna._attention_mask(input_ids, attention_mask, inputs_embeds)
            scores = bases_of_scores(outputs.attention_scores, mask, self.config.pair_heads)
            pairs = self.pair_head(*scores)
            pairs = logits["pair_logits"] = pairs_in_front(pairs, mask)
            if pair_labels is not None:
                pair_labels = pair_labels.to(pairs.device)
                _check_range("pair_labels", pair_labels, 1)
                losses.append(pair_loss(pairs, pair_labels, self.config.pair_positive_weight))
        output = ErnieRnaPreTrainingOutput(
            loss=sum(losses) if losses else None,
            **logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            attention_biases=outputs.attention_biases,
        )
        return self._as_tuple(output, return_dict)


# save_pretrained needs these to write the code beside the weights.
ErnieRnaModel.register_for_auto_class("AutoModel")
ErnieRnaForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
ErnieRnaForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
ErnieRnaForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
ErnieRnaForPreTraining.register_for_auto_class("AutoModelForPreTraining")
for _model in (ErnieRnaForSecondaryStructure, ErnieRnaForCloseness, ErnieRnaForRibosomeLoading):
    _model.register_for_auto_class("AutoModel")
