"""How sure a model is of each base pair of a structure, and of each base.

A model with a head for structures gives every two bases a logit, and by the calibration in its
configuration (see `calibration`) a probability; without one the logit is taken as it is, and the
probabilities are as true as that. A model without such a head has only the contacts of the
optimisation, in the same range but no probabilities: they rank the pairs. Positions count from 0.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ernie_rna.structures.calibration import UNCALIBRATED, CalibrationLine
from ernie_rna.structures.contacts import allowed_pairs
from ernie_rna.structures.formats.structure import Structure


def pair_probabilities(
    logits: Tensor,
    sequences: Sequence[Sequence[str]],
    *,
    min_loop: int = 0,
    calibration: CalibrationLine = UNCALIBRATED,
) -> Tensor:
    """The probability of each pair of bases, by the logits of a head.

    Args:
        logits: (batch, length, length), symmetric.
        sequences: the bases of each, see :func:`~ernie_rna.structures.contacts.allowed_pairs`.
        min_loop: fewest bases between partners.
        calibration: from logits to log-odds.

    Returns:
        (batch, length, length) in float32, 0 where bases may not pair.
    """
    length = logits.shape[-1]
    allowed = allowed_pairs(sequences, length, min_loop=min_loop, device=logits.device)
    log_odds = calibration.slope * logits.float() + calibration.offset
    return torch.sigmoid(log_odds).masked_fill(~allowed, 0.0)


def base_reliabilities(probabilities: np.ndarray, structure: Structure) -> np.ndarray:
    """How likely what a structure says of each base is.

    Of a paired base that is the probability of its pair; of an unpaired one that none of its pairs
    exists, taken as independent: the product of 1 - p over its possible partners.

    Args:
        probabilities: (length, length), symmetric.
        structure: base pairs of the sequence.

    Returns:
        (length,), from 0 to 1.

    Raises:
        ValueError: the matrix is not of this sequence.

    >>> p = np.array([[0, 0, 0.9], [0, 0, 0.2], [0.9, 0.2, 0]])
    >>> base_reliabilities(p, Structure("tiny", "GAC", [(0, 2)])).round(2).tolist()
    [0.9, 0.8, 0.9]
    """
    length = len(structure.sequence)
    if probabilities.shape != (length, length):
        raise ValueError(
            f"{structure.id} has {length} bases, and the probabilities are {probabilities.shape}"
        )
    reliabilities: np.ndarray = np.prod(1.0 - probabilities, axis=1)
    for i, j in structure.pairs:
        reliabilities[[i, j]] = probabilities[i, j]
    return reliabilities
