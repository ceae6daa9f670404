"""The order of tokens in MultiMolecule's checkpoints, and where it keeps ours.

MultiMolecule gives all its RNA models one vocabulary. Its conversion moved the rows of the
authors' dictionary there without changing them; only the dictionary's three fillers
(madeupword0000 to 0002, which no sequence holds) shared the one row of `<null>`, each written
over the one before. So every row can be brought back but those of the first two fillers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ernie_rna.convert.foreign.names import EMBEDDING, LM_BIAS
from ernie_rna.convert.foreign.pickles import CheckpointError
from ernie_rna.convert.foreign.reading import Checkpoint
from ernie_rna.model.configuration_ernie_rna import VOCABULARY

_SPECIALS = ("<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>")
# By size: of MultiMolecule's earlier releases, and of today.
VOCABULARIES: Mapping[int, tuple[str, ...]] = {
    26: (*_SPECIALS, *"ACGUNRYSWKMBDHV.X*-I"),
    28: (*_SPECIALS, *"ACGUNRYSWKMBDHVIX|.*-?"),
}

_KEPT = "madeupword0002"
# Our token -> the row to take, by rule where the token's own is lost.
ORIGIN: Mapping[str, str] = {
    token: "<null>" if token.startswith("madeupword") else token for token in VOCABULARY
}
LOST: Mapping[str, str] = dict.fromkeys(
    (token for token in VOCABULARY if token.startswith("madeupword") and token != _KEPT),
    f"lost in MultiMolecule: a copy of {_KEPT}, as absent from every sequence as this one",
)


def reorder_tokens(
    weights: dict[str, torch.Tensor], keys: Mapping[str, str], checkpoint: Checkpoint
) -> tuple[dict[str, str], dict[str, str]]:
    """Bring the token embedding and the LM bias from MultiMolecule's order of tokens to ours.

    Args:
        weights: by our names; the two are replaced.
        keys: our name -> the checkpoint's key.
        checkpoint: where they come from.

    Returns:
        key[token] -> why it was dropped, and name[token] -> by which rule it was made.

    Raises:
        CheckpointError: see `find_vocabulary`; or the settings or the bias disagree in size.
    """
    weight = weights[EMBEDDING.ours]
    rows = weight.shape[0] if weight.dim() else 0
    stated = (checkpoint.args or {}).get("vocab_size", rows)
    if stated != rows:
        raise CheckpointError(
            f"{keys[EMBEDDING.ours]} has {rows} tokens, but its settings vocab_size={stated!r}"
        )
    theirs = find_vocabulary(rows, checkpoint.vocabulary)
    order = torch.tensor([theirs.index(ORIGIN[token]) for token in VOCABULARY])
    unknown = [token for token in theirs if token not in ORIGIN.values()]
    dropped: dict[str, str] = {}
    initialised: dict[str, str] = {}
    for ours in (EMBEDDING.ours, LM_BIAS.ours):
        if ours not in weights:
            continue
        key, weight = keys[ours], weights[ours]
        if weight.dim() == 0 or len(weight) != rows:
            raise CheckpointError(f"misshaped: {key} {tuple(weight.shape)} for {rows} tokens")
        weights[ours] = weight[order]
        dropped |= {f"{key}[{token}]": "no token of ERNIE-RNA" for token in unknown}
        initialised |= {f"{ours}[{token}]": why for token, why in LOST.items()}
    return dropped, initialised


def find_vocabulary(rows: int, written: tuple[str, ...] | None) -> tuple[str, ...]:
    """The tokens of an embedding with this many rows.

    Args:
        rows: of the token embedding.
        written: the lines of the vocab.txt beside the weights, which tells the order unless it
            is one of another size: some releases left that of an older tokenizer there.

    Raises:
        CheckpointError: neither tells the order, or a token of ERNIE-RNA is not there.
    """
    tokens = written if written and len(written) == rows else VOCABULARIES.get(rows)
    if tokens is None:
        raise CheckpointError(
            f"its vocabulary has {rows} tokens, and those of MultiMolecule have "
            f"{' or '.join(map(str, VOCABULARIES))}: put the vocab.txt of its tokenizer beside it"
        )
    absent = [token for token in ORIGIN.values() if token not in tokens]
    if absent:
        raise CheckpointError(f"its vocab.txt lacks {', '.join(absent)}")
    return tokens
