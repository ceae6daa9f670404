"""Reads a checkpoint of ERNIE-RNA: the weights, by their names in the file, and the settings.

Formats: the zip archive that `torch.save` writes, either by fairseq (`args`, or `cfg` with
Namespaces in it) or with a bare state dict; and safetensors, alone or in a folder with its
config.json. `weights` finds out which naming scheme the weights follow.

A pickle is a program. `torch.load(weights_only=True)` restricts it, but not in every torch version
that this package accepts: a crafted file could run code up to 2.5 (CVE-2025-32434) and corrupt
memory up to 2.9 (CVE-2026-24747). This module therefore reads the pickle itself and runs nothing
that it names: only the names in `_GLOBALS` are allowed, each of them creates inert data, and no
opcode sets an attribute. Tensors are then built from the resulting records with all bounds checked.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import pickle
import zipfile
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from safetensors.torch import load_file


class CheckpointError(ValueError):
    """A checkpoint cannot be read or converted; the message says why and what to do."""


_SAFETENSORS = "model.safetensors"
_WEB_PAGE = (
    "a web page, not weights: the download returned an error or login page. Download it again from "
    "the address that serves the file itself"
)
_PACKED = "compressed: unpack it and pass the file inside"
# First bytes, in lower case, of files that are often mistaken for a checkpoint -> what they are.
_MISTAKEN = {
    **dict.fromkeys((b"<!doctype", b"<html", b"<?xml", b"<head"), _WEB_PAGE),
    b"version https://git-lfs": "a git-lfs pointer, not the file: run `git lfs pull`",
    **dict.fromkeys((b"\x1f\x8b", b"bzh", b"\xfd7zxz"), _PACKED),
    b"\x80": "a pickle outside a zip archive, the format of torch before 1.6 and of its legacy "
    "serialization: if you trust it, load it with torch and save it again with torch.save",
}


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
        path: the file with the weights.
        name: the name of the file, or where it was fetched from.
        kind: "fairseq args", "fairseq cfg", "state dict" or "safetensors".
        state_dict: the weights by their names in the file.
        args: fairseq's model settings, with None for each that is neither a number nor text; or the
            config.json beside a safetensors file. None if the file has no settings.
        vocabulary: the lines of the vocab.txt beside a safetensors file, else None.
        sha256: the digest of the file with the weights.
    """

    path: Path
    name: str
    kind: str
    state_dict: dict[str, torch.Tensor]
    args: dict[str, Any] | None
    vocabulary: list[str] | None
    sha256: str


def read_checkpoint(path: str | Path, name: str | None = None) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        path: a file of `torch.save`, a safetensors file, or a folder with model.safetensors.
        name: see `Checkpoint`; defaults to the name of the file.

    Raises:
        CheckpointError: the path holds something else (the message says what), is damaged,
            references a global that is not allowed, or has weights that are not finite.
    """
    file = Path(path)
    if file.is_dir():
        file = file / _SAFETENSORS
    try:
        if not file.is_file():  # A pipe is refused too: reading it could block.
            raise CheckpointError(f"no file: pass the checkpoint, or a folder with {_SAFETENSORS}")
        return _read(file, name or file.name)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error.__cause__


def _read(file: Path, name: str) -> Checkpoint:
    args, vocabulary = None, None
    with open(file, "rb") as stream:
        head = stream.read(512)
        if head[8:9] == b"{":  # the JSON header of safetensors, after its length
            kind, state_dict, args, vocabulary = "safetensors", *_read_safetensors(file)
        else:
            _refuse_mistaken(head)
            kind, state_dict, args = _read_torch(stream)
        digest = sha256(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)).hexdigest()
    # Names are copied into messages and the model card, where a line break could forge a line.
    unprintable = next((name for name in state_dict if not name.isprintable()), None)
    if unprintable is not None:
        raise CheckpointError(f"not the name of a weight: {unprintable[:100]!r}")
    bad = [name for name, tensor in state_dict.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"NaN or infinity in {', '.join(bad)}")
    return Checkpoint(file, name, kind, state_dict, args, vocabulary, digest)


def _refuse_mistaken(head: bytes) -> None:
    """Raise CheckpointError, naming what the file is, unless it starts like a zip archive."""
    for start, meaning in _MISTAKEN.items():
        if head.lstrip().lower().startswith(start):
            raise CheckpointError(meaning)
    if not head.startswith(b"PK"):
        raise CheckpointError(
            f"neither a file of torch.save nor safetensors (it starts with {head[:16]!r}): "
            "download it again, or unpack it if it is an archive"
        )


def _damaged(error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}"[:200]
    return CheckpointError(
        f"it is truncated or damaged: download it again and compare its checksum ({reason})"
    )


def _read_safetensors(
    file: Path,
) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None, list[str] | None]:
    """The weights, the values of config.json, and the lines of vocab.txt in the same folder."""
    try:
        state_dict = load_file(file)
    except Exception as error:
        raise _damaged(error) from error
    beside = [file.with_name(name) for name in ("config.json", "vocab.txt")]
    try:
        config, words = (path.read_text("utf-8") if path.is_file() else None for path in beside)
        args = None if config is None else {**json.loads(config)}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"its config.json or vocab.txt cannot be read: {error}") from error
    return state_dict, args, None if words is None else words.split()


# ---------------------------------------------------------------------------------------------
# Files of torch.save


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the pickle describes it; nothing in it has been checked.

    `storage` is torch's tuple of "storage", dtype, key, device and number of elements.
    """

    storage: Any
    offset: Any
    size: Any
    stride: Any


class NamespaceRecord(dict):
    """The attributes of an `argparse.Namespace`, as plain data."""


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
    ("collections", "OrderedDict"): dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): lambda *arguments: TensorRecord(*arguments[:4]),
    ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: TensorRecord(*arguments[:4]),
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    # numpy scalars, which some fairseq versions leave in the progress counters
    ("_codecs", "encode"): lambda *_: None,
    ("numpy", "dtype"): lambda *_: None,
    ("numpy.core.multiarray", "scalar"): lambda *_: None,
    ("numpy._core.multiarray", "scalar"): lambda *_: None,
}


class Unpickler(pickle._Unpickler):
    """Builds records; raises CheckpointError for a global that `_GLOBALS` does not list.

    It extends Python's unpickler written in Python: the memo of that one is a dict, so that a large
    index in a file cannot exhaust memory, and its opcodes can be overridden.
    """

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        # repr: the names come from the file and could hold terminal control characters.
        shown = repr(f"{module}.{name}"[:200])
        raise CheckpointError(
            f"refused: its pickle references {shown}, which weights and settings do not need; none "
            "of it was run. If you trust its origin, save only the state dict again where the file "
            "was made"
        )

    def persistent_load(self, pid: Any) -> Any:
        return pid

    def load_build(self) -> None:
        """Keep the attributes of a Namespace; those of other objects hold no weights."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], NamespaceRecord):
            self.stack[-1].update(state)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}
    del dispatch[pickle.BYTEARRAY8[0]]  # It would allocate as much memory as the file says.


def _read_torch(stream: IO[bytes]) -> tuple[str, dict[str, torch.Tensor], dict[str, Any] | None]:
    """The kind, weights and settings of a file of `torch.save`, see `Checkpoint`."""
    try:
        archive = zipfile.ZipFile(stream)
        content, root = _unpickle(archive)
    except CheckpointError:
        raise
    except Exception as error:  # A damaged pickle can raise almost any exception.
        raise _damaged(error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a checkpoint or state dict")
    kind, settings, cfg = "fairseq args", content.get("args"), content.get("cfg")
    if not isinstance(settings, dict) and isinstance(cfg, dict):
        kind, settings = "fairseq cfg", cfg.get("model")
    if isinstance(settings, dict):
        plain = (bool, int, float, str)
        settings = {key: v if isinstance(v, plain) else None for key, v in settings.items()}
    else:
        kind, settings = "state dict", None
    weights = content["model"] if isinstance(content.get("model"), dict) else content
    return kind, _make_tensors(weights, archive, root), settings


def _unpickle(archive: zipfile.ZipFile) -> tuple[Any, str]:
    """The content of data.pkl, and the folder in the archive that holds it, with its slash."""
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    # A compressed entry could unpack to more than fits into memory.
    compressed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    if len(pickles) != 1 or compressed:
        raise CheckpointError(
            f"a zip archive that torch.save did not write, with {names[:3]}: unpack it and pass "
            "the checkpoint inside"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError("written big-endian: save it again on a little-endian machine")
    return Unpickler(io.BytesIO(archive.read(pickles[0])), encoding="utf-8").load(), root


def _make_tensors(
    weights: dict[Any, Any], archive: zipfile.ZipFile, root: str
) -> dict[str, torch.Tensor]:
    """Tensors by name; those with the same storage share memory."""
    read, tensors = cache(partial(_read_storage, archive, root)), {}
    for name, record in weights.items():
        if not isinstance(name, str) or not isinstance(record, TensorRecord):
            shown = name[:100] if isinstance(name, str) else type(name)
            raise CheckpointError(
                f"has neither `model` nor tensors by name: the entry {shown!r} is a "
                f"{type(record).__name__}"
            )
        try:
            storage = read(record.storage)
            # With a stride of 0, a few bytes on disk could become terabytes in memory.
            if math.prod(record.size) > len(storage):
                raise ValueError("a tensor with more elements than its storage")
            # torch refuses a view that exceeds the storage.
            tensors[name] = storage.as_strided(record.size, record.stride, record.offset)
        except Exception as error:  # A damaged or crafted archive can raise almost any exception.
            raise CheckpointError(f"{name}: {_damaged(error)}") from error
    return tensors


def _read_storage(archive: zipfile.ZipFile, root: str, storage: Any) -> torch.Tensor:
    _kind, dtype, key, _device, numel = storage
    content = bytearray(archive.read(root + "data/" + key))
    if numel * dtype.itemsize != len(content):  # The message omits both: they may be anything.
        raise ValueError("a storage whose size differs from what the pickle says")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
