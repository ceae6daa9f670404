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

    The input is a sequence, a list or tuple of sequences, or a data set or generator of them. T is
    read as U, and case does not matter. The result for each sequence is a dictionary::

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
                f"the model has no secondary-structure head: it is {names[0]}, not "
                f"{' or '.join(WITH_PAIR_HEAD)}"
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # transformers reads the first item of a list, and takes a tuple for one input.
        inputs = list(inputs) if isinstance(inputs, tuple) else inputs
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(self, **arguments: Any) -> tuple[Any, Any, Any]:
        for name, value in arguments.items():
            if name not in _ARGUMENTS:
                raise TypeError(f"there is no argument {name!r}; there are {', '.join(_ARGUMENTS)}")
            is_valid, expected = _ARGUMENTS[name]
            if value is not None and not is_valid(value):
                raise ValueError(f"{name} must be {expected}; got {value!r}")
        arguments = {name: value for name, value in arguments.items() if value is not None}
        return {name: arguments.pop(name) for name in ("long",) if name in arguments}, {}, arguments

    def preprocess(self, inputs: str, long: str = "error") -> dict[str, Any]:
        if not isinstance(inputs, str):
            raise TypeError(f"a sequence must be a text; got {inputs!r}")
        foreign = next((i for i, letter in enumerate(inputs) if letter not in _LETTERS), None)
        if foreign is not None:
            what = f"{inputs[foreign]!r} at position {foreign + 1}"
            raise ValueError(f"{what} is not a nucleotide code")
        sequence = inputs.upper().replace("T", "U")
        limit = self.model.config.max_position_embeddings - 2
        if not sequence:
            raise ValueError("a sequence is empty")
        if len(sequence) > limit and long != "full":
            raise ValueError(
                f"a sequence has {len(sequence)} nt; the model's limit is {limit} nt. long='full' "
                "computes it as a whole, `ernie-rna fold --long window` divides it into windows"
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
        length, threshold = len(sequence), config.pair_threshold
        logits = model_outputs["map"][:, :length, :length]  # without the padding
        (contacts,) = solve_each(logits, [sequence], threshold=threshold, min_loop=min_loop)
        if isinstance(contacts, str):
            raise ValueError(f"{sequence[:20]}… has no structure: {contacts}")
        pairs = predict_pairs(contacts, min_stem=min_stem, pseudoknots=pseudoknots)
        calibration = config.pair_calibration
        (probabilities,) = pair_probabilities(
            logits, [sequence], min_loop=min_loop, calibration=calibration
        ).tolist()
        return {
            "sequence": sequence,
            "dot_bracket": to_dot_bracket(pairs, length),
            "pairs": [{"i": i, "j": j, "probability": probabilities[i][j]} for i, j in pairs],
        }
