"""The models of a converted folder, run by its own code, with all that they put out.

Shapes: batch sequences, seq tokens, heads, hidden, vocab.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ernie_rna.convert.conversion import convert_weights
from ernie_rna.convert.foreign.reading import read_checkpoint
from ernie_rna.parity.golden import Outputs, ParityError, Sample

_WEIGHTS = "model.safetensors"


def load_own(folder: Path, reference: str) -> Any:
    """What a class in a folder, MODULE.CLASS, loads from that folder.

    Raises:
        ParityError: the folder lacks the code.
    """
    try:
        own_class: Any = get_class_from_dynamic_module(reference, str(folder))
    except OSError as error:
        raise ParityError(f"{folder}: lacks the model's code ({error})") from error
    return own_class.from_pretrained(folder)


class Models:
    """The models in a folder, run by the folder's own code.

    Attributes:
        folder: where they are.
        tokenizer, encoder, masked_lm: of the classes in the folder, as `trust_remote_code` takes
            them; where `ernie_rna` is imported the Auto classes may take the installed ones.

    Raises:
        ParityError: there is no such folder, or it does not hold weights and code.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / _WEIGHTS).is_file():
            raise ParityError(f"{folder}: no folder with {_WEIGHTS}; convert a checkpoint into it")
        self.tokenizer = load_own(self.folder, "tokenization_ernie_rna.ErnieRnaTokenizer")
        self.encoder = load_own(self.folder, "modeling_ernie_rna.ErnieRnaModel").eval()
        self.masked_lm = load_own(self.folder, "modeling_ernie_rna.ErnieRnaForMaskedLM").eval()

    def double(self) -> Models:
        """A copy in float64, with eager attention."""
        exact = copy.copy(self)
        exact.encoder = copy.deepcopy(self.encoder).double()
        exact.masked_lm = copy.deepcopy(self.masked_lm).double()
        exact.use("eager")
        return exact

    def use(self, attention: str) -> None:
        """Switch the attention implementation."""
        self.encoder.set_attn_implementation(attention)
        self.masked_lm.set_attn_implementation(attention)

    def run_alone(self, samples: Sequence[Sample]) -> list[Outputs]:
        """All outputs of sequences, one after the other."""
        return [output for sample in samples for output in self.run_padded([sample])]

    def run_padded(self, samples: Sequence[Sample], side: str = "right") -> list[Outputs]:
        """All outputs of sequences that are padded together, without those of the padding."""
        if not samples:
            return []
        length = max(len(sample.input_ids) for sample in samples)
        starts = [length - len(s.input_ids) if side == "left" else 0 for s in samples]
        real = [
            slice(start, start + len(sample.input_ids))
            for start, sample in zip(starts, samples, strict=True)
        ]
        inputs = self._pad(samples, real, length)
        with torch.no_grad():
            flags = {"output_hidden_states": True, "output_attention_biases": True}
            encoded = self.encoder(**inputs, **flags)
            logits = self.masked_lm(**inputs).logits
        return [_outputs_of(row, where, encoded, logits) for row, where in enumerate(real)]

    def _pad(
        self, samples: Sequence[Sample], real: Sequence[slice], length: int
    ) -> dict[str, torch.Tensor]:
        padding = self.encoder.config.pad_token_id
        inputs = {
            "input_ids": torch.full((len(samples), length), padding),
            "attention_mask": torch.zeros(len(samples), length, dtype=torch.long),
        }
        if any(sample.pairing_scores is not None for sample in samples):
            inputs["pairing_scores"] = torch.zeros(len(samples), length, length)
        for row, (sample, where) in enumerate(zip(samples, real, strict=True)):
            inputs["input_ids"][row, where] = sample.input_ids
            inputs["attention_mask"][row, where] = 1
            if sample.pairing_scores is not None:
                inputs["pairing_scores"][row, where, where] = sample.pairing_scores
        return inputs


def _outputs_of(row: int, real: slice, encoded: Any, logits: torch.Tensor) -> Outputs:
    """The outputs of one sequence of a batch, its real tokens only."""
    hidden_states = encoded.hidden_states  # (batch, seq, hidden) each
    biases = encoded.attention_biases  # (batch, heads, seq, seq) each
    return {
        **{f"hidden state {i}": state[row, real] for i, state in enumerate(hidden_states)},
        **{f"bias {i}": bias[row, :, real, real] for i, bias in enumerate(biases)},
        "logits": logits[row, real],
        "pooler output": encoded.pooler_output[row],
    }


def belongs_to(folder: str | Path, checkpoint: str | Path) -> bool:
    """Whether a folder holds exactly the weights of a checkpoint, whatever the paths."""
    weights = load_file(Path(folder) / _WEIGHTS)
    theirs = convert_weights(read_checkpoint(checkpoint)).state_dict
    return weights.keys() == theirs.keys() and all(
        torch.equal(weight, theirs[name]) for name, weight in weights.items()
    )
