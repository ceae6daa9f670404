"""Reads a checkpoint of ERNIE-RNA: weights by their names in the file, and the settings beside.

Formats: what `torch.save` wrote for fairseq (`args`, or `cfg` with Namespaces in it) or for a
bare state dict, and safetensors, alone or in a folder with its config.json. Nothing that a file
holds is run (see `torch_file`). Whose names the weights have is for `conversion` to find out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ernie_rna.convert.torch_file import DAMAGED, CheckpointError, TensorRecord, TorchFile

_SAFETENSORS = "model.safetensors"
_SAFETENSORS_HEADER_MAX = 100_000_000  # bytes; the format's own limit

_WEB_PAGE = (
    "a web page, not weights: the download got an error or a login page. Fetch it again from the "
    "address that serves the file itself"
)
# First bytes, in lower case, of what people have in place of a checkpoint -> what it is.
_MISTAKEN = {
    **dict.fromkeys((b"<!doctype", b"<html", b"<?xml", b"<head"), _WEB_PAGE),
    b"version https://git-lfs": "a git-lfs pointer, not the file: run `git lfs pull`",
    b"\x93numpy": "a numpy array: give the checkpoint (.pt) or safetensors file",
    b"\x89hdf": "an HDF5 file: give the checkpoint (.pt) or safetensors file",
    b"\x1f\x8b": "gzip-compressed: unpack it and give the file inside",
    b"bzh": "bzip2-compressed: unpack it and give the file inside",
    b"\xfd7zxz": "xz-compressed: unpack it and give the file inside",
    b"{": "JSON, not weights: give the checkpoint (.pt) or safetensors file",
    b"traceback": "a Python error message, not weights: fetch the file again",
}
_TAR_MAGIC = slice(257, 262)
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # in a zip, or bare
_DEPTH = 8  # of settings within settings; a crafted file may hold a list that holds itself


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file with the weights.
        kind: "fairseq args", "fairseq cfg", "state dict" or "safetensors".
        state_dict: the weights under the file's own names.
        args: fairseq's model settings, or the config.json beside a safetensors file, as plain
            data; None where the file says nothing of its model.
        vocabulary: the lines of the vocab.txt beside a safetensors file, else None.
        sha256: of the file with the weights.
    """

    path: Path
    kind: str
    state_dict: dict[str, torch.Tensor]
    args: dict[str, Any] | None
    vocabulary: tuple[str, ...] | None
    sha256: str


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        path: a file of `torch.save`, a safetensors file, or a folder with model.safetensors.

    Raises:
        CheckpointError: the path holds something else (the message says what), is damaged, asks
            for a global that is not allowed, or has weights that are not finite.
    """
    file = _weights_file(Path(path))
    try:
        return _read(file)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error.__cause__


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.is_file())
        if _SAFETENSORS not in names:
            held = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "no file"
            raise CheckpointError(
                f"{path}: a folder without {_SAFETENSORS} (it holds {held}): give the checkpoint "
                "file"
            )
        path = path / _SAFETENSORS
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    return path


def _read(file: Path) -> Checkpoint:
    with open(file, "rb") as stream:
        head = stream.read(512)
    args, vocabulary = None, None
    if _is_safetensors(head):
        kind, state_dict = "safetensors", _read_safetensors(file)
        args = _read_config(file.with_name("config.json"))
        vocabulary = _read_vocabulary(file.with_name("vocab.txt"))
    else:
        _refuse_mistaken(head)
        kind, state_dict, args = _read_torch(file)
    # Names go into messages and the model card, where a line break would forge a line.
    odd = next((name for name in state_dict if not name.isprintable()), None)
    if odd is not None:
        raise CheckpointError(f"no name of a weight: {odd[:100]!r}")
    bad = [name for name, tensor in state_dict.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"NaN or infinity in {', '.join(bad)}")
    return Checkpoint(file, kind, state_dict, args, vocabulary, _sha256(file))


def _is_safetensors(head: bytes) -> bool:
    """Whether the file begins with the length of a JSON header, and that header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER_MAX


def _refuse_mistaken(head: bytes) -> None:
    """Raise unless the file begins as a zip or a pickle does, saying what it is instead."""
    if not head:
        raise CheckpointError("an empty file: fetch it again")
    if head[_TAR_MAGIC] == b"ustar":
        raise CheckpointError(
            "a tar archive: unpack it and give the file inside (torch's own tar format, before "
            "0.2, is not read: save it anew with a newer torch)"
        )
    for start, meaning in _MISTAKEN.items():
        if head.lstrip().lower().startswith(start):
            raise CheckpointError(meaning)
    if not head.startswith(_PICKLES):
        raise CheckpointError(
            f"neither a file of torch.save nor safetensors (it begins {head[:16]!r})"
        )


def _read_torch(path: Path) -> tuple[str, dict[str, torch.Tensor], dict[str, Any] | None]:
    with open(path, "rb") as stream:
        file = TorchFile(stream)
        content = file.content
        if not isinstance(content, dict):
            raise CheckpointError(f"holds a {_type_name(content)}, no checkpoint or state dict")
        kind, args = _find_args(content)
        weights = content["model"] if isinstance(content.get("model"), dict) else content
        return kind, dict(_tensor(file, *item) for item in weights.items()), args


def _tensor(file: TorchFile, name: Any, record: Any) -> tuple[str, torch.Tensor]:
    if not isinstance(name, str) or not isinstance(record, TensorRecord):
        entry = repr(name[:100]) if isinstance(name, str) else f"a {_type_name(name)}"
        raise CheckpointError(
            f"has neither `model` nor tensors by name: the entry of {entry} is a "
            f"{_type_name(record)}"
        )
    try:
        return name, file.tensor(record)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error.__cause__


def _find_args(content: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The kind of a `torch.save` file and fairseq's settings of the model."""
    args, cfg = _plain(content.get("args")), _plain(content.get("cfg"))
    if isinstance(args, dict):
        return "fairseq args", args
    if isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        return "fairseq cfg", cfg["model"]
    return "state dict", None


def _plain(value: Any, depth: int = 0) -> Any:
    """Plain data, Namespaces as dicts among them; None for whatever is none or lies too deep."""
    if depth < _DEPTH and isinstance(value, dict):
        items = value.items()
        return {key: _plain(item, depth + 1) for key, item in items if isinstance(key, str)}
    if depth < _DEPTH and isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"a safetensors file, but {DAMAGED} ({error})") from error


def _read_config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"its config.json: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"its config.json: a {_type_name(config)}, not a configuration")
    return config


def _read_vocabulary(path: Path) -> tuple[str, ...] | None:
    try:
        return tuple(path.read_text(encoding="utf-8").split()) if path.is_file() else None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"its vocab.txt: not text in UTF-8 ({error})") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _type_name(value: Any) -> str:
    names = {"TensorRecord": "tensor", "NamespaceRecord": "Namespace", "NoneType": "None"}
    return names.get(type(value).__name__, type(value).__name__)
