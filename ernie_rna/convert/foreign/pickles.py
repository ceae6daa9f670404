"""Reads the pickle of a checkpoint as data: nothing that it names is run.

A pickle is a program. `torch.load(weights_only=True)` restrains it, but not in every torch that
this package accepts: a crafted file ran code up to 2.5 (CVE-2025-32434) and corrupted memory up to
2.9 (CVE-2026-24747). So the pickle is read here: it may name only what `_GLOBALS` lists, and each
entry makes an inert record. `torch_file` makes tensors of the records, each bound checked.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch


class CheckpointError(ValueError):
    """A checkpoint cannot be read or converted; the message says what it is and the way out."""


class _Record:
    """What is checked once must stay: a pickle's BUILD, which sets attributes, is refused."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("an attempt to alter a record")


@dataclass(frozen=True)
class StorageRecord(_Record):
    """Where a tensor's numbers lie: `numel` numbers under the name `key`."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecord(_Record):
    """A tensor as the pickle describes it; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class NamespaceRecord:
    """Stands for an `argparse.Namespace`: its attributes, as data in `values`."""

    __slots__ = ("values",)
    values: dict[str, Any]

    def __new__(cls) -> NamespaceRecord:  # a pickle calls __new__ and never __init__
        self = super().__new__(cls)
        self.values = {}
        return self

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a Namespace whose state is no dict")
        self.values.update(state)


class _Mapping(dict):
    """Stands for an OrderedDict; without attributes, so that a file cannot shadow its methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Leave out the attributes (`_metadata` of a state dict); no weight is in them."""


class _Opaque:
    """Stands for a value that nothing here reads, such as a counter kept as a numpy scalar."""

    __slots__ = ()

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Maker:
    """A callable for the pickle's REDUCE that no opcode can alter, unlike a function or class."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("an attempt to alter the reader")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    return TensorRecord(storage, offset, size, stride)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_GLOBALS: dict[tuple[str, str], Any] = {
    ("argparse", "Namespace"): NamespaceRecord,
    ("collections", "OrderedDict"): _Maker(_Mapping),
    ("torch", "Size"): _Maker(tuple),
    ("torch._utils", "_rebuild_tensor"): _Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Maker(_parameter),
    # numpy scalars, which some fairseq versions leave in the progress counters
    ("_codecs", "encode"): _Maker(_Opaque),
    ("numpy", "dtype"): _Maker(_Opaque),
    ("numpy.core.multiarray", "scalar"): _Maker(_Opaque),
    ("numpy._core.multiarray", "scalar"): _Maker(_Opaque),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class Unpickler(pickle.Unpickler):
    """Builds records; a global that `_GLOBALS` does not list ends the reading."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        _check_memo(file)
        self.storages: dict[str, StorageRecord] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            # repr: the names are the file's, and could hold a terminal's control characters.
            asked = repr(f"{module}.{name}"[:200])
            raise CheckpointError(
                f"refused: its pickle asks for {asked}, which weights and their settings do not "
                "need; nothing of it was run. If you trust its origin, save it anew where it was "
                "made, with only the state dict in it"
            ) from None

    def persistent_load(self, pid: Any) -> StorageRecord:
        kind, dtype, key, _location, numel, *view = pid
        sound = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, str)
        if not sound or not isinstance(numel, int) or numel < 0 or any(view):
            raise pickle.UnpicklingError("a storage that is not described as torch does")
        return self.storages.setdefault(key, StorageRecord(dtype, key, numel))


def _check_memo(file: IO[bytes]) -> None:
    """Refuse the memo index that would make the unpickler fill the memory; keep the position."""
    start = file.tell()
    for opcode, index, _ in pickletools.genops(file):
        # A pickle numbers its memo from 0 up, and takes more than a byte for each entry.
        if "PUT" in opcode.name and int(index or 0) > file.tell() - start:
            raise pickle.UnpicklingError(f"a memo index of {index}")
    file.seek(start)


def fits(record: TensorRecord) -> bool:
    """Whether a view lies within its storage and holds no more numbers than that."""
    storage, size, stride = record.storage, record.size, record.stride
    if not isinstance(storage, StorageRecord) or type(size) is not tuple:
        return False
    if type(stride) is not tuple or len(stride) != len(size):
        return False
    if not all(type(n) is int and n >= 0 for n in (record.offset, *size, *stride)):
        return False
    if 0 in size:
        return True
    last = record.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return last < storage.numel and math.prod(size) <= storage.numel
