"""Repeated ids among any number, in memory that hardly grows with it."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class SeenIds:
    """Finds repeated ids, in 10 bytes an id and a constant.

    A dictionary holds the latest ids by their hashes; once it has `pending_ids` of them, they
    are sorted into an array that the next ones are compared with.
    """

    def __init__(self, pending_ids: int = 1 << 16):
        self._limit = pending_ids
        self._pending: dict[bytes, str] = {}
        self._runs: list[np.ndarray] = []  # sorted hashes, the longest run first

    def add(self, id: str) -> str | None:
        """Take an id in; return one that is repeated, if that has come to light."""
        key = hashlib.blake2b(id.encode(), digest_size=10).digest()
        if key in self._pending:
            return id
        self._pending[key] = id
        return self.flush() if len(self._pending) >= self._limit else None

    def flush(self) -> str | None:
        """Compare the latest ids with all before; return one that is repeated, or None."""
        import numpy as np

        # In NumPy's bytes, trailing zeros are padding: they compare as the hashes themselves do.
        run = np.array(list(self._pending), dtype="S10")
        run.sort()
        for older in self._runs:
            at = np.searchsorted(older, run).clip(max=len(older) - 1)
            repeated = run[older[at] == run]
            if len(repeated):
                return self._pending[bytes(repeated[0]).ljust(10, b"\0")]
        self._pending.clear()
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort()
        self._runs.append(run)
        return None
