"""Converts a checkpoint into weights and a configuration of this package.

The table in `names` maps the names in both directions, strictly: a model on the meta device, with
the sizes of the weights, lists all unknown, missing and misshaped ones at once, by their names in
the checkpoint. Weights that the model does not have are dropped, each with a reason.
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

# For weights that a checkpoint lacks, which transformers would draw again at each loading.
_SEED = 0
_NEW_WEIGHTS = (
    f"not in the checkpoint: drawn as for a new model from seed {_SEED} (weights N(0, 0.02), "
    "biases 0, LayerNorm 1 and 0)"
)
# Parts of the pretrained model that a fine-tuned one does not use.
_PRETRAINING = ("lm_head.", "ernie_rna.pooler.")
_TIED = "lm_head.decoder.weight"  # the same tensor as the embedding

_LAYER = re.compile(r"\.layers?\.([0-9]{1,6})\.")
_BLOCK = re.compile(r"(?:resnet|blocks|predictor)\.([0-9]{1,4})\.conv2\.weight$")

# Values of `weights_origin` in the configuration: whether weights were ever trained.
RANDOM = "random"
CHECKPOINT = "checkpoint"
# The SHA-256 of the float32 embeddings of the tokens before the fillers, for this project's golden
# checkpoints: their weights are random, for tests, but their LayerNorms are not 1 and 0.
_RANDOM_EMBEDDINGS = ("eefb026cafb61bca6d9a7fb393ce9b83105bbd766608dddede705b7914db9e31",)


def convert_weights(checkpoint: Checkpoint, pairing_scores: str = "sequence") -> Conversion:
    """Rename, check and complete copies of the weights of a checkpoint.

    Args:
        pairing_scores: the value in the configuration, see `ConvertOptions`.

    Raises:
        CheckpointError: keys are unknown, missing or misshaped, or the settings disagree with
            the weights or describe another model.
    """
    try:
        return Conversion(checkpoint, pairing_scores)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__


class Conversion:
    """A converted checkpoint: weights, configuration, and a record of all changes.

    Attributes:
        source: the checkpoint that was converted.
        naming: the naming scheme of its weights.
        kind: the kind of a fine-tuned model; None for the pretrained one.
        config: sizes from the weights, rates from the settings, `norm_first=False`, and in
            `weights_origin` whether the weights were ever trained.
        model: the fine-tuned model, or `ErnieRnaForMaskedLM` with the pooler in its encoder.
        state_dict: its weights, floats in float32, without the tied weight of the decoder.
        dropped: key, or key[token], of the checkpoint -> why it is dropped.
        initialised: our name, or name[token], of what the checkpoint lacks -> how it is filled.
        notes: other changes to the values.
    """

    def __init__(self, checkpoint: Checkpoint, pairing_scores: str):
        self.source, state = checkpoint, checkpoint.state_dict
        self.dropped: dict[str, str] = {}
        self.initialised: dict[str, str] = {}
        self.naming, self._prefix = _find_naming(state)
        # The limit makes a key with an absurd number unknown; it does not build as many layers.
        self._layers = min(1 + _largest(_LAYER, state), len(state))
        self.kind, blocks = self._find_head()
        self._blocks = min(blocks, len(state))
        rows = self.naming.rows(self._layers, self._blocks)
        self._table = {self._full_name(theirs): ours for theirs, ours in rows}
        self._keys = self._match_keys()
        self.state_dict = {ours: state[key] for ours, key in self._keys.items()}
        sizes = self._find_sizes()
        if self.naming is MULTIMOLECULE:
            self._reorder_tokens(sizes["vocab_size"])
        self.config, self.model = self._configure(sizes, pairing_scores)
        self._add_optional()
        dtypes = {weight.dtype for weight in self.state_dict.values()}
        self.notes = [
            f"weights in {dtype} were converted to float32 "
            f"({'rounded' if dtype == torch.float64 else 'exactly'})"
            for dtype in sorted(dtypes - {torch.float32, torch.long}, key=str)
        ]
        self._load()
        self.config.weights_origin = weights_origin(self.state_dict)

    def _full_name(self, name: str) -> str:
        return self.naming.full_name(name, self._prefix)

    def _find_head(self) -> tuple[Kind | None, int]:
        """The kind of head, recognised by its first module, and the number of its blocks."""
        state = self.source.state_dict
        keys = {row[0]: self._full_name(row[self.naming.column]) for row in names.TABLE}
        conv_in = state.get(keys["pair_head.conv_in"] + ".weight")
        if conv_in is not None and conv_in.dim() == 4:  # (8, maps, 7, 7)
            kind = names.STRUCTURE if conv_in.shape[1] == 1 else names.CLOSENESS
            return kind, _largest(_BLOCK, state) + 1  # They are numbered from 0.
        if keys["loading_head.reduce"] + ".weight" in state:
            return names.LOADING, max(_largest(_BLOCK, state), 1)
        return None, 0

    def _match_keys(self) -> dict[str, str]:
        """Our name -> the key in the checkpoint; other keys are recorded in `dropped`."""
        state, keys, unknown = self.source.state_dict, dict[str, str](), list[str]()
        aliases = {self._full_name(name): ours for name, ours in self.naming.aliases.items()}
        reasons = {self._full_name(start): why for start, why in self.naming.dropped.items()}
        # Aliases come last, so that of two spellings the alias counts as the copy.
        for key in sorted(state, key=lambda key: rename(key, self._table) is None):
            ours = rename(key, self._table) or rename(key, aliases)
            reason = next((why for start, why in reasons.items() if key.startswith(start)), "")
            if not (ours or reason):
                unknown.append(key)
            elif not ours:
                self.dropped[key] = reason
            elif self.kind and ours.startswith(_PRETRAINING):
                self.dropped[key] = "of the pretrained model; the fine-tuned one does not use it"
            elif ours not in keys:
                keys[ours] = key
            elif torch.equal(state[keys[ours]], state[key]):
                self.dropped[key] = f"a copy of {keys[ours]}"
            else:
                raise CheckpointError(f"must be equal but differ: {key} and {keys[ours]}")
        if unknown:
            raise CheckpointError(f"unknown: {', '.join(sorted(unknown))}")
        return keys

    def _find_sizes(self) -> dict[str, int]:
        """Sizes of the configuration, from the weights; CheckpointError if settings disagree."""
        naming, args = self.naming, self.source.args or {}
        sizes = {"num_hidden_layers": self._layers, "vocab_size": 0}
        for size, (ours, axis) in names.SIZES.items():
            shape = self.state_dict[ours].shape if ours in self.state_dict else ()
            if len(shape) > axis:
                sizes[size] = shape[axis]
        expected = {theirs: sizes[ours] for theirs, ours in naming.sizes.items() if ours in sizes}
        problems = [
            f"{theirs}={args[theirs]!r}{relation} {value!r}"
            for relation, values in ((", by the weights", expected), (" instead of", naming.fixed))
            for theirs, value in sorted(values.items())
            if theirs in args and args[theirs] != value
        ]
        if problems:
            raise CheckpointError(f"settings of another model: {', '.join(problems)}")
        return sizes

    def _reorder_tokens(self, rows: int) -> None:
        """Reorder the weights with a row for each token from MultiMolecule's tokens to ours."""
        # Some releases include the vocab.txt of an older tokenizer of another size.
        from_file = self.source.vocabulary
        theirs = from_file if from_file and len(from_file) == rows else names.VOCABULARIES.get(rows)
        if theirs is None:
            raise CheckpointError(
                f"its vocabulary has {rows} tokens, but those of MultiMolecule have "
                f"{' or '.join(map(str, names.VOCABULARIES))}: put the vocab.txt of its tokenizer "
                "into the same folder"
            )
        missing = [token for token in ORIGIN.values() if token not in theirs]
        if missing:
            raise CheckpointError(f"its vocab.txt lacks {', '.join(missing)}")
        order = torch.tensor([theirs.index(ORIGIN[token]) for token in VOCABULARY])
        unknown = [token for token in theirs if token not in ORIGIN.values()]
        for ours in [name for name in (EMBEDDING, LM_BIAS) if name in self.state_dict]:
            key, weight = self._keys[ours], self.state_dict[ours]
            if weight.shape[:1] != (rows,):
                raise CheckpointError(f"misshaped: {key} {tuple(weight.shape)} for {rows} tokens")
            self.state_dict[ours] = weight[order]
            self.dropped |= {f"{key}[{token}]": "not a token of ERNIE-RNA" for token in unknown}
            self.initialised |= {f"{ours}[{token}]": rule for token, rule in names.LOST.items()}

    def _configure(self, sizes: dict[str, int], pairing_scores: str) -> tuple[ErnieRnaConfig, Any]:
        """The configuration, and the model on the meta device."""
        naming, args = self.naming, self.source.args or {}
        settings = {**naming.values, **naming.sizes}
        values = {ours: args[theirs] for theirs, ours in settings.items() if theirs in args}
        values |= {**sizes, "norm_first": False, "pairing_scores": pairing_scores}
        del values["vocab_size"]  # It is ERNIE-RNA's, whatever the source has.
        if self.kind:
            values |= {**self.kind.config, self.kind.blocks: self._blocks}
        try:
            if naming is MULTIMOLECULE and "max_position_embeddings" in args:
                values["max_position_embeddings"] -= names.THEIR_EXTRA_POSITIONS
            config = ErnieRnaConfig(**values)
            return config, self._build(config, "meta")
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"invalid sizes or settings: {error}") from error

    def _build(self, config: ErnieRnaConfig, device: str) -> Any:
        """A model with all modules that a checkpoint may have weights for."""
        with torch.device(device):
            if self.kind:
                return getattr(modeling_ernie_rna, self.kind.model_class)(config)
            model: Any = modeling_ernie_rna.ErnieRnaForMaskedLM(config)
            model.ernie_rna = modeling_ernie_rna.ErnieRnaModel(config)
        return model

    def _add_optional(self) -> None:
        """Draw weights for the optional parts that are entirely missing in the checkpoint."""
        present = "\n".join(self.state_dict)
        missing = tuple(start for start in self.naming.optional if start not in present)
        if self.kind or not missing:
            return
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(_SEED)
            new = self._build(self.config, "cpu").state_dict()
        for ours in new:
            if ours.startswith(missing) and ours != _TIED:
                self.state_dict[ours], self.initialised[ours] = new[ours], _NEW_WEIGHTS

    def _load(self) -> None:
        """Load copies of the weights into the model, floats in float32."""
        expected = self.model.state_dict()
        theirs = {**{ours: name for name, ours in self._table.items()}, **self._keys}
        for ours, weight in self.state_dict.items():
            if weight.is_floating_point() != expected.get(ours, weight).is_floating_point():
                raise CheckpointError(f"wrong data type: {theirs[ours]} ({weight.dtype})")
            dtype = torch.float32 if weight.is_floating_point() else torch.long
            self.state_dict[ours] = torch.empty(weight.shape, dtype=dtype).copy_(weight)
        tied = {_TIED: self.state_dict[EMBEDDING]} if _TIED in expected else {}
        try:
            self.model.eval().load_state_dict({**self.state_dict, **tied}, assign=True)
        except RuntimeError as error:  # It lists all unknown, missing and misshaped weights.
            text = re.sub(r"[\w.]+", lambda name: rename(name[0], theirs) or name[0], str(error))
            raise CheckpointError(" ".join(text.partition(":")[2].split())) from error
        self.state_dict = {ours: self.state_dict[ours] for ours in expected if ours != _TIED}


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """The new name of a weight by a table of modules and weights; None if it is not in it."""
    module, _, part = name.rpartition(".")
    return table.get(name) or (f"{table[module]}.{part}" if module in table else None)


def weights_origin(state_dict: Mapping[str, torch.Tensor]) -> str:
    """`RANDOM` for weights that were drawn and never trained, else `CHECKPOINT`.

    Weights are random if they are those of the golden checkpoints, or if all LayerNorms are exactly
    1 and 0: a new model has such LayerNorms, and the first training step changes them.

    Args:
        state_dict: float32 weights by our names.
    """
    embedding = state_dict[EMBEDDING][: VOCABULARY.index("madeupword0000")]
    digest = hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()
    norms = ((name, weight) for name, weight in state_dict.items() if "layer_norm." in name)
    is_new = all(bool((w == float(name.endswith("weight"))).all()) for name, w in norms)
    return RANDOM if is_new or digest in _RANDOM_EMBEDDINGS else CHECKPOINT


def _find_naming(state: Mapping[str, Any]) -> tuple[Naming, str]:
    """The naming scheme and prefix under which the weights hold the token embedding."""
    embeddings = [names.TABLE[0][naming.column] + ".weight" for naming in names.NAMINGS]
    models = [
        (naming, prefix)
        for naming, embedding in zip(names.NAMINGS, embeddings, strict=True)
        for prefix in naming.prefixes
        if prefix + embedding in state
    ]
    if len(models) == 1:
        return models[0]
    if models:
        raise CheckpointError(f"holds {len(models)} models, at {[prefix for _, prefix in models]}")
    if EMBEDDING in state:
        raise CheckpointError("already converted: load its folder with AutoModel.from_pretrained")
    first_keys = ", ".join(list(state)[:3]) or "none"
    raise CheckpointError(
        f"not a model of ERNIE-RNA: no {' (fairseq) or '.join(embeddings)} (MultiMolecule) after "
        f"a known prefix among its {len(state)} keys ({first_keys}, …)"
    )


def _largest(number: re.Pattern[str], keys: Mapping[str, Any]) -> int:
    """The largest number that the first group matches in the keys; 0 without a match."""
    return max((int(match[1]) for match in map(number.search, keys) if match), default=0)
