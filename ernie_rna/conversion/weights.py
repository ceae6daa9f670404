"""Turns a checkpoint into weights and a configuration of this package.

The names come from the table in `names`, strict both ways: a model on the meta device, with the
sizes of the weights, says which are unknown, missing or misshaped, all at once and by the names
that they have in the checkpoint. What has no place in the model is dropped with a reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch

from ernie_rna.conversion import names
from ernie_rna.conversion.checkpoint import Checkpoint, CheckpointError
from ernie_rna.conversion.names import EMBEDDING, LM_BIAS, MULTIMOLECULE, ORIGIN, Kind, Naming
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig

# For what a checkpoint lacks and transformers would draw anew at each loading.
_SEED = 0
_NEW_WEIGHTS = (
    f"not in the checkpoint: as for a new model, from seed {_SEED} (weights N(0, 0.02), biases 0, "
    "LayerNorm 1 and 0)"
)
# Parts of the pretrained model that a fine-tuned one does not use.
_PRETRAINING = ("lm_head.", "ernie_rna.pooler.")
_TIED = "lm_head.decoder.weight"  # to the embedding

_LAYER = re.compile(r"\.layers?\.([0-9]{1,6})\.")
_BLOCK = re.compile(r"(?:resnet|blocks|predictor)\.([0-9]{1,4})\.conv2\.weight$")

# Whether weights were ever trained, in `weights_origin` of the configuration.
RANDOM = "random"
CHECKPOINT = "checkpoint"
# Embeddings of the tokens before the fillers, float32, by their SHA-256: that of this project's
# golden checkpoints, drawn at random for tests, and with LayerNorms other than 1 and 0.
_RANDOM_EMBEDDINGS = ("eefb026cafb61bca6d9a7fb393ce9b83105bbd766608dddede705b7914db9e31",)


def convert_weights(checkpoint: Checkpoint, pairing_scores: str = "sequence") -> Conversion:
    """Rename, check and complete the weights of a checkpoint; they are copies.

    Args:
        pairing_scores: for the configuration, see `convert`.

    Raises:
        CheckpointError: keys are unknown, missing or misshaped, or the settings disagree with
            the weights or ask for another model.
    """
    try:
        return Conversion(checkpoint, pairing_scores)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__


class Conversion:
    """Weights and configuration of this package, and how they came about.

    Attributes:
        source: the checkpoint that was converted.
        naming: whose names its weights had.
        kind: of the fine-tuned model; None for the pretrained one.
        config: sizes from the weights, rates from the settings, `norm_first=False`, and in
            `weights_origin` whether the weights were ever trained.
        model: the fine-tuned one, or `ErnieRnaForMaskedLM` with the pooler in its encoder.
        state_dict: its weights, floats in float32, without the tied one of the decoder.
        dropped: key, or key[token], of the checkpoint -> why it has no place here.
        initialised: our name, or name[token] -> by which rule, for what the checkpoint lacks.
        notes: what else was done to the values.
    """

    def __init__(self, checkpoint: Checkpoint, pairing_scores: str):
        self.source, state = checkpoint, checkpoint.state_dict
        self.dropped: dict[str, str] = {}
        self.initialised: dict[str, str] = {}
        self.naming, self._prefix = _find_naming(state)
        # With an absurd number in one name, it is that key which is unknown.
        self._layers = min(1 + _largest(_LAYER, state), len(state))
        self.kind, blocks = self._find_head()
        self._blocks = min(blocks, len(state))
        rows = self.naming.rows(self._layers, self._blocks)
        self._table = {self._whole(theirs): ours for theirs, ours in rows}
        self._keys = self._sort_keys()
        self.state_dict = {ours: state[key] for ours, key in self._keys.items()}
        sizes = self._find_sizes()
        if self.naming is MULTIMOLECULE:
            self._reorder_tokens(sizes["vocab_size"])
        self.config, self.model = self._configure(sizes, pairing_scores)
        self._add_optional()
        dtypes = {weight.dtype for weight in self.state_dict.values()}
        self.notes = [
            f"weights in {dtype} were turned into float32 "
            f"({'rounded' if dtype == torch.float64 else 'exactly'})"
            for dtype in sorted(dtypes - {torch.float32, torch.long}, key=str)
        ]
        self._load()
        self.config.weights_origin = weights_origin(self.state_dict)

    def _whole(self, name: str) -> str:
        return self.naming.whole(name, self._prefix)

    def _find_head(self) -> tuple[Kind | None, int]:
        """The kind that the first module of a head tells, and the number of its blocks."""
        state = self.source.state_dict
        heads = {row[0]: self._whole(row[self.naming.column]) for row in names.TABLE}
        pair = state.get(heads["pair_head.conv_in"] + ".weight")
        if pair is not None and pair.dim() == 4:  # (8, maps, 7, 7)
            kind = names.STRUCTURE if pair.shape[1] == 1 else names.CLOSENESS
            return kind, _largest(_BLOCK, state) + 1  # They are numbered from 0.
        loading = heads["loading_head.reduce"] + ".weight" in state
        return (names.LOADING, max(_largest(_BLOCK, state), 1)) if loading else (None, 0)

    def _sort_keys(self) -> dict[str, str]:
        """The key of each of our names; the others are dropped."""
        state, keys, unknown = self.source.state_dict, dict[str, str](), list[str]()
        aliases = {self._whole(name): ours for name, ours in self.naming.aliases.items()}
        reasons = {self._whole(start): why for start, why in self.naming.dropped.items()}
        # Aliases last: where both spellings are there, the alias is the copy.
        for key in sorted(state, key=lambda key: rename(key, self._table) is None):
            ours = rename(key, self._table) or rename(key, aliases)
            why = next((why for start, why in reasons.items() if key.startswith(start)), "")
            if not (ours or why):
                unknown.append(key)
            elif not ours:
                self.dropped[key] = why
            elif self.kind and ours.startswith(_PRETRAINING):
                self.dropped[key] = "of the pretrained model; the fine-tuned one does not use it"
            elif ours not in keys:
                keys[ours] = key
            elif torch.equal(state[keys[ours]], state[key]):
                self.dropped[key] = f"a copy of {keys[ours]}"
            else:
                raise CheckpointError(f"differ but must be equal: {key} and {keys[ours]}")
        if unknown:
            raise CheckpointError(f"unknown: {', '.join(sorted(unknown))}")
        return keys

    def _find_sizes(self) -> dict[str, int]:
        """Sizes of the configuration, by the weights; raise where the settings say otherwise."""
        naming, args = self.naming, self.source.args or {}
        sizes = {"num_hidden_layers": self._layers, "vocab_size": 0}
        for size, (ours, axis) in names.SIZES.items():
            shape = self.state_dict[ours].shape if ours in self.state_dict else ()
            sizes |= {size: shape[axis]} if len(shape) > axis else {}
        read = {theirs: sizes[ours] for theirs, ours in naming.sizes.items() if ours in sizes}
        problems = [
            f"{theirs}={args[theirs]!r}{which} {value!r}"
            for which, values in ((", by the weights", read), (" instead of", naming.fixed))
            for theirs, value in sorted(values.items())
            if theirs in args and args[theirs] != value
        ]
        if problems:
            raise CheckpointError(f"settings of another model: {', '.join(problems)}")
        return sizes

    def _reorder_tokens(self, rows: int) -> None:
        """Bring what has a row a token from MultiMolecule's order of tokens to ours."""
        # Some releases left the vocab.txt of an older tokenizer, of another size, beside it.
        written = self.source.vocabulary
        theirs = written if written and len(written) == rows else names.VOCABULARIES.get(rows)
        if theirs is None:
            raise CheckpointError(
                f"its vocabulary has {rows} tokens, and those of MultiMolecule have "
                f"{' or '.join(map(str, names.VOCABULARIES))}: put the vocab.txt of its tokenizer "
                "beside it"
            )
        absent = [token for token in ORIGIN.values() if token not in theirs]
        if absent:
            raise CheckpointError(f"its vocab.txt lacks {', '.join(absent)}")
        order = torch.tensor([theirs.index(ORIGIN[token]) for token in VOCABULARY])
        unknown = [token for token in theirs if token not in ORIGIN.values()]
        for ours in (ours for ours in (EMBEDDING, LM_BIAS) if ours in self.state_dict):
            key, weight = self._keys[ours], self.state_dict[ours]
            if weight.shape[:1] != (rows,):
                raise CheckpointError(f"misshaped: {key} {tuple(weight.shape)} for {rows} tokens")
            self.state_dict[ours] = weight[order]
            self.dropped |= {f"{key}[{token}]": "no token of ERNIE-RNA" for token in unknown}
            self.initialised |= {f"{ours}[{token}]": why for token, why in names.LOST.items()}

    def _configure(self, sizes: dict[str, int], pairing_scores: str) -> tuple[ErnieRnaConfig, Any]:
        """Configuration, and the model without numbers."""
        naming, args = self.naming, self.source.args or {}
        settings = {**naming.values, **naming.sizes}
        values = {ours: args[theirs] for theirs, ours in settings.items() if theirs in args}
        values |= {**sizes, "norm_first": False, "pairing_scores": pairing_scores}
        del values["vocab_size"]  # That of ERNIE-RNA, whatever its source has.
        if self.kind:
            values |= {**self.kind.config, self.kind.blocks: self._blocks}
        try:
            if naming is MULTIMOLECULE and "max_position_embeddings" in args:
                values["max_position_embeddings"] -= names.THEIR_EXTRA_POSITIONS
            config = ErnieRnaConfig(**values)
            return config, self._build(config, "meta")
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"sizes or settings that fit no model: {error}") from error

    def _build(self, config: ErnieRnaConfig, device: str) -> Any:
        """A model with all that there should be weights for."""
        with torch.device(device):
            if self.kind:
                return getattr(modeling_ernie_rna, self.kind.model_class)(config)
            model: Any = modeling_ernie_rna.ErnieRnaForMaskedLM(config)
            model.ernie_rna = modeling_ernie_rna.ErnieRnaModel(config)
        return model

    def _add_optional(self) -> None:
        """Draw the optional parts of which the checkpoint has no weight at all."""
        there = "\n".join(self.state_dict)
        lacking = tuple(start for start in self.naming.optional if start not in there)
        if self.kind or not lacking:
            return
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(_SEED)
            new = self._build(self.config, "cpu").state_dict()
        for ours in new:
            if ours.startswith(lacking) and ours != _TIED:
                self.state_dict[ours], self.initialised[ours] = new[ours], _NEW_WEIGHTS

    def _load(self) -> None:
        """Give the model its weights, as copies in float32."""
        expected = self.model.state_dict()
        theirs = {**{ours: name for name, ours in self._table.items()}, **self._keys}
        for ours, weight in self.state_dict.items():
            number = expected.get(ours, weight)
            if weight.is_floating_point() != number.is_floating_point():
                raise CheckpointError(f"numbers of another kind: {theirs[ours]} ({weight.dtype})")
            dtype = torch.float32 if weight.is_floating_point() else torch.long
            self.state_dict[ours] = torch.empty(weight.shape, dtype=dtype).copy_(weight)
        tied = {_TIED: self.state_dict[EMBEDDING]} if _TIED in expected else {}
        try:
            self.model.eval().load_state_dict({**self.state_dict, **tied}, assign=True)
        except RuntimeError as error:  # torch's list of all that is unknown, missing or misshaped
            text = re.sub(r"[\w.]+", lambda name: rename(name[0], theirs) or name[0], str(error))
            raise CheckpointError(" ".join(text.partition(":")[2].split())) from error
        self.state_dict = {ours: self.state_dict[ours] for ours in expected if ours != _TIED}


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """The other name of a weight, by a table of modules and weights."""
    module, _, part = name.rpartition(".")
    return table.get(name) or (f"{table[module]}.{part}" if module in table else None)


def weights_origin(state_dict: Mapping[str, torch.Tensor]) -> str:
    """`RANDOM` for weights that were drawn and never trained, else `CHECKPOINT`.

    Random are the golden checkpoints, and a model whose every LayerNorm is exactly 1 and 0, as a
    new model's is and that of none that took a step.

    Args:
        state_dict: by our names, in float32.
    """
    embedding = state_dict[EMBEDDING][: VOCABULARY.index("madeupword0000")]
    digest = hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()
    norms = ((name, weight) for name, weight in state_dict.items() if "layer_norm." in name)
    untouched = all(bool((w == float(name.endswith("weight"))).all()) for name, w in norms)
    return RANDOM if untouched or digest in _RANDOM_EMBEDDINGS else CHECKPOINT


def _find_naming(state: Mapping[str, Any]) -> tuple[Naming, str]:
    """Whose names these are, and the prefix before them: where the token embedding is found."""
    embeddings = [names.TABLE[0][naming.column] + ".weight" for naming in names.NAMINGS]
    found = [
        (naming, prefix)
        for naming, embedding in zip(names.NAMINGS, embeddings, strict=True)
        for prefix in naming.prefixes
        if prefix + embedding in state
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(f"holds {len(found)} models, under {[prefix for _, prefix in found]}")
    if EMBEDDING in state:
        raise CheckpointError("converted already: load its folder with AutoModel.from_pretrained")
    some = ", ".join(list(state)[:3]) or "none"
    raise CheckpointError(
        f"not a model of ERNIE-RNA: no {' (fairseq) or '.join(embeddings)} (MultiMolecule) behind "
        f"a known prefix among its {len(state)} keys ({some}, …)"
    )


def _largest(number: re.Pattern[str], keys: Mapping[str, Any]) -> int:
    """The largest number in keys, 0 without any."""
    return max((int(found[1]) for found in map(number.search, keys) if found), default=0)
