"""The pipeline "rna-secondary-structure": predicts dot-brackets and base pairs of sequences.

    pipe = pipeline("rna-secondary-structure", model="USER/NAME", trust_remote_code=True)
    pipe("GGGGAAAACCCC")["dot_bracket"]  # ((((....))))

It runs the same code as `ernie-rna fold` and returns the same structures.
"""

from collections.abc import Callable
from typing import Any

from transformers import Pipeline

from .configuration_ernie_rna import WITH_PAIR_HEAD
from .structures_ernie_rna import (
    MIN_LOOP,
    MIN_STEM,
    pair_probabilities,
    predict_pairs,
    solve_each,
    to_dot_bracket,
)

# The nucleotide letters of the tokenizer's vocabulary and T, in both cases. Lower case is listed
# because `upper` turns some letters of other alphabets into one of these.
_LETTERS = frozenset("GAUTCNYRSKWMDHVBXI" + "GAUTCNYRSKWMDHVBXI".lower())

# For each argument, a test of its value and what the value must be as text.
_ARGUMENTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "long": (lambda value: value in ("error", "full"), "'error' or 'full'"),
    "min_loop": (lambda value: type(value) is int and value >= 0, "a whole number of at least 0"),
    "min_stem": (lambda value: type(value) is int and value >= 1, "a whole number of at least 1"),
    "pseudoknots": (lambda value: type(value) is bool, "True or False"),
}


class RnaSecondaryStructurePipeline(Pipeline):
    """Predicts which bases of an RNA pair, with a model that has a secondary-structure head.

    The input is a sequence, a list of sequences, or a data set or generator of them. T is read as
    U, and case does not matter. The result for each sequence is a dictionary::

        sequence     its letters, in upper case and with U
        dot_bracket  one character for each letter
        pairs        for each pair its positions i and j, counted from 0, and its probability; the
                     model's card says how well the probabilities are calibrated

    Args, of the constructor or of a call; None means the default:
        min_loop: fewest bases between partners; defaults to 3.
        min_stem: fewest pairs stacked on one another; defaults to 2.
        pseudoknots: whether pairs may cross; defaults to True.
        long: "error", the default, refuses a sequence beyond the model's limit; "full" computes it.

    Raises:
        ValueError: the model has no such head; a sequence is empty, too long or has a letter that
            is not a nucleotide code, or its structure cannot be computed; an argument is invalid.
        TypeError: a sequence is not a string, or an argument is unknown.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        names = self.model.config.architectures or [type(self.model).__name__]
        if not set(names) & set(WITH_PAIR_HEAD):
            raise ValueError(
                f"the model has no head for structures: it is {names[0]}, and this takes "
                f"{' or '.join(WITH_PAIR_HEAD)}"
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # transformers reads the first item of a list.
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[Any, Any, Any]:
        for name, value in given.items():
            if name not in _ARGUMENTS:
                raise TypeError(f"there is no argument {name!r}; there are {', '.join(_ARGUMENTS)}")
            fits, words = _ARGUMENTS[name]
            if value is not None and not fits(value):
                raise ValueError(f"{name} must be {words}; got {value!r}")
        how = {name: value for name, value in given.items() if value is not None}
        return {name: how.pop(name) for name in ("long",) if name in how}, {}, how

    def preprocess(self, inputs: str, long: str = "error") -> dict[str, Any]:
        if not isinstance(inputs, str):
            raise TypeError(f"a sequence must be a text; got {inputs!r}")
        odd = next((at for at, letter in enumerate(inputs) if letter not in _LETTERS), None)
        if odd is not None:
            raise ValueError(f"{inputs[odd]!r} at position {odd + 1} is no nucleotide code")
        sequence = inputs.upper().replace("T", "U")
        limit = self.model.config.max_position_embeddings - 2
        if not sequence:
            raise ValueError("a sequence is empty")
        if len(sequence) > limit and long != "full":
            raise ValueError(
                f"a sequence has {len(sequence)} nt, and the model is made for {limit}; long='full'"
                " computes it whole, and `ernie-rna fold --long window` by windows"
            )
        tokenizer: Any = self.tokenizer
        return {"sequence": sequence, **tokenizer(sequence, return_tensors="pt")}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        texts = model_inputs.pop("sequence")  # a list of them in a batch
        outputs = self.model(**model_inputs)
        logits = outputs["pair_logits" if "pair_logits" in outputs else "logits"]
        return {"sequence": texts, "map": logits}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        min_loop: int = MIN_LOOP,
        min_stem: int = MIN_STEM,
        pseudoknots: bool = True,
    ) -> dict[str, Any]:
        sequence, config = model_outputs["sequence"], self.model.config
        size = len(sequence)
        logits = model_outputs["map"][:, :size, :size]  # without the padding
        how: Any = {"threshold": config.pair_threshold, "min_loop": min_loop}
        (contacts,) = solve_each(logits, [sequence], **how)
        if isinstance(contacts, str):
            raise ValueError(f"{sequence[:20]}… has no structure: {contacts}")
        pairs = predict_pairs(contacts, min_stem=min_stem, pseudoknots=pseudoknots)
        calibration = config.pair_calibration
        (sure,) = pair_probabilities(
            logits, [sequence], min_loop=min_loop, calibration=calibration
        ).tolist()
        return {
            "sequence": sequence,
            "dot_bracket": to_dot_bracket(pairs, size),
            "pairs": [{"i": i, "j": j, "probability": sure[i][j]} for i, j in pairs],
        }
