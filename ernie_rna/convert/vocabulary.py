"""The order of tokens in MultiMolecule's checkpoints, and where it keeps ours.

MultiMolecule gives all its RNA models one vocabulary. Its conversion moved the rows of the
authors' dictionary there without changing them; only the dictionary's three fillers
(madeupword0000 to 0002, which no sequence holds) shared the one row of `<null>`, each written
over the one before. So every row can be brought back but those of the first two fillers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ernie_rna.convert.torch_file import CheckpointError
from ernie_rna.model.configuration_ernie_rna import VOCABULARY

_SPECIALS = ("<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>")
# By size: of MultiMolecule's earlier releases, and of today.
VOCABULARIES: Mapping[int, tuple[str, ...]] = {
    26: (*_SPECIALS, *"ACGUNRYSWKMBDHV.X*-I"),
    28: (*_SPECIALS, *"ACGUNRYSWKMBDHVIX|.*-?"),
}

_FILLERS = tuple(token for token in VOCABULARY if token.startswith("madeupword"))
# Our token -> theirs, whose row it takes; by rule where its own is lost.
ORIGIN: Mapping[str, str] = {
    token: "<null>" if token in _FILLERS else token for token in VOCABULARY
}
LOST: Mapping[str, str] = dict.fromkeys(
    _FILLERS[:-1],
    f"lost in MultiMolecule: a copy of {_FILLERS[-1]}, as absent from every sequence as this one",
)


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
