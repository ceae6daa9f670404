"""Reading checkpoints: every format; errors for wrong, damaged and malicious files."""

import argparse
import contextlib
import math
import os
import pickle
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ernie_rna.conversion.checkpoint import (
    _GLOBALS,
    CheckpointError,
    NamespaceRecord,
    read_checkpoint,
)
from tests.golden_folder import GOLDEN

pytestmark = pytest.mark.core

ARGS, CFG = GOLDEN / "tiny_fairseq_args.pt", GOLDEN / "tiny_fairseq_cfg.pt"
HEADS = sorted(GOLDEN.glob("tiny_*_head.pt"))


def save(content, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def golden_weights(path: Path) -> dict:
    content = torch.load(path, weights_only=False)  # The golden files are trusted.
    return content.get("model", content)


def assert_same(weights: dict, expected: dict) -> None:
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        assert weights[name].dtype == tensor.dtype, name
        assert torch.equal(weights[name], tensor), name


# Files that are read


@pytest.mark.parametrize("path", [ARGS, CFG, *HEADS], ids=lambda path: path.stem)
def test_reads_what_torch_load_reads(path):
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.state_dict, golden_weights(path))
    kinds = {ARGS: "fairseq args", CFG: "fairseq cfg"}
    assert checkpoint.kind == kinds.get(path, "state dict")
    if path not in kinds:
        assert checkpoint.args is None
        return
    settings = {"encoder_layers": 4, "lr": None, "pretrained_file": None}  # lr is a list
    assert {name: checkpoint.args[name] for name in settings} == settings
    sha256 = "38150058d160ef1eadfd08ee209deb616f7cf54bcd3a6aa4ba47c5cc22abc027"
    assert (checkpoint.sha256 == sha256) == (path == CFG)


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_any_layout(tmp_path, protocol):
    base = torch.arange(24.0).view(4, 6)
    state = {
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "shared": base,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "counter": torch.tensor(7),
        "mask": base > 3,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
        "parameter": torch.nn.Parameter(base.clone()),
    }
    content = {"model": state, "extra_state": {"best": np.float64(1.5)}}  # as fairseq may write
    path = save(content, tmp_path / "x.pt", pickle_protocol=protocol)
    weights = read_checkpoint(path).state_dict
    assert_same(weights, {name: tensor.detach() for name, tensor in state.items()})
    assert weights["view"].data_ptr() == weights["shared"][1].data_ptr()


@pytest.mark.parametrize("by_folder", [True, False], ids=["folder", "file"])
def test_safetensors_and_the_files_beside_them(tmp_path, by_folder):
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.arange(3.0)}, file)
    (tmp_path / "config.json").write_text('{"model_type": "ernierna"}')
    (tmp_path / "vocab.txt").write_text("<pad>\n<cls>\nA\n")
    checkpoint = read_checkpoint(tmp_path if by_folder else file)
    assert (checkpoint.kind, checkpoint.path) == ("safetensors", file)
    assert checkpoint.args == {"model_type": "ernierna"}
    assert checkpoint.vocabulary == ["<pad>", "<cls>", "A"]
    assert_same(checkpoint.state_dict, {"w": torch.arange(3.0)})


def test_settings_that_are_not_plain_values_become_none(tmp_path):
    loop: list = []  # contains itself
    loop.append(loop)
    odd = {"size": torch.Size([2]), "weight": torch.ones(1), "inner": {1: 2}, "loop": loop}
    content = {"args": argparse.Namespace(layers=3, act="gelu", **odd), "model": {}}
    args = read_checkpoint(save(content, tmp_path / "x.pt")).args
    assert args == {"layers": 3, "act": "gelu", **dict.fromkeys(odd)}


# Wrong files


def write_zip(path: Path, members: dict[str, bytes], compression=ZIP_STORED) -> Path:
    with ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def members_of(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_old(path: Path) -> None:
    save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)


def with_big_endian(path: Path) -> None:
    members = members_of(save({"w": torch.ones(1)}, path))
    write_zip(path, {name: data.replace(b"little", b"big") for name, data in members.items()})


# The content of each file (bytes, a function that writes it, or what is saved), and the message.
WRONG_FILES = {
    "empty": (b"", "neither a file of torch.save nor safetensors"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "login page": (b"<HTML>Sign in</HTML>", "a web page"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed: unpack it"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}", "neither .* starts with .*x93NUMPY"),
    "text": (b"Entry not found", "neither a file of torch.save nor safetensors"),
    "npz": (lambda path: np.savez(path, a=np.ones(3)), "torch.save did not write, with ..a.npy"),
    "zip": (
        lambda path: write_zip(path, {"in.pt": b"x"}),
        "torch.save did not write, with ..in.pt",
    ),
    "zipped": (lambda path: write_zip(path, members_of(ARGS), ZIP_DEFLATED), "torch.save did not"),
    "big endian": (with_big_endian, "written big-endian"),
    "old": (write_old, "before 1.6 .* save it again with torch.save"),
    "safetensors": (b"\x10\0\0\0\0\0\0\0{not json at all", "truncated or damaged"),
    "missing": (lambda path: None, "no file: pass the checkpoint, or a folder"),
    "folder": (Path.mkdir, "model.safetensors: no file: pass the checkpoint"),
    "tensor": (torch.ones(3), "holds a TensorRecord"),
    "list": ([torch.ones(3)], "holds a list"),
    "counter": ({"epoch": 3}, "nor tensors by name: the entry 'epoch' is a int"),
    "number": ({"model": {"w": [1.0]}}, "the entry 'w' is a list"),
    "key": ({3: torch.ones(1)}, "the entry <class 'int'> is a TensorRecord"),
    "line break": ({"a\nb": torch.ones(1)}, r"not the name of a weight: 'a\\nb'"),
    "nan": ({"w": torch.ones(2), "b.w": torch.tensor([1.0, math.nan])}, r"infinity in b\.w$"),
    "inf": ({"w": torch.ones(2), "b.w": torch.tensor([1.0, -math.inf])}, r"infinity in b\.w$"),
}
if hasattr(os, "mkfifo"):
    WRONG_FILES["pipe"] = os.mkfifo, "no file"  # The reader must not wait for data.


@pytest.mark.parametrize(("content", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_refused(tmp_path, content, message):
    path = tmp_path / "wrong.npz"
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("config.json", b"[]"),
        ("config.json", b"1"),
        ("config.json", b"[" * 100_000),
        ("vocab.txt", b"A\nC\xff\n"),
    ],
)
def test_a_wrong_config_or_vocabulary_beside_the_weights_is_refused(tmp_path, name, content):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"its config\.json or vocab\.txt cannot be read: "):
        read_checkpoint(tmp_path)


# Damaged files


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
@pytest.mark.parametrize("kept", [1, 7, 9, 20, 100, 0.01, 0.1, 0.5, 0.9, -1000, -30, -1])
def test_a_truncated_file_is_refused(tmp_path, kind, kept):
    path = tmp_path / "cut.pt"
    (save if kind == "zip" else save_file)(golden_weights(ARGS), path)
    data = path.read_bytes()
    truncated = data[: int(len(data) * kept) if isinstance(kept, float) else kept]
    path.write_bytes(truncated)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    # So few bytes do not show which kind of file it was.
    assert "truncated or damaged" in str(error.value) or len(truncated) <= 20


@pytest.mark.parametrize("appended", [b"", b"\0" * 100])
def test_a_changed_byte_in_a_weight_is_found(tmp_path, appended):
    content = bytearray(ARGS.read_bytes() + appended)
    name = "encoder.sentence_encoder.layers.2.fc1.weight"
    weight = golden_weights(ARGS)[name].numpy().tobytes()
    content[content.index(weight) + 100] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: it is truncated or damaged.*CRC"):
        read_checkpoint(tmp_path / "x.pt")


def crafted(path: Path, pickled: bytes) -> Path:
    """A file as torch.save writes it, around a pickle written by hand."""
    return write_zip(path, {"x/data.pkl": pickled, "x/data/0": b"\0" * 16})


def tensor_pickle(dtype="FloatStorage", key="0", numel=4, offset=0, size=(4,), stride=(1,)):
    """The pickle of {"w": tensor}. The description of the tensor need not be a valid one."""

    def dump(*values):
        return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)

    return b"".join(
        (
            b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(",
            b"(X\x07\x00\x00\x00storagectorch\n" + dtype.encode() + b"\n",
            dump(key, "cpu", numel) + b"tQ" + dump(offset, size, stride) + b"\x89NtRs.",
        )
    )


@pytest.mark.parametrize(
    "description",
    [
        {"numel": 5},  # more than the bytes hold
        {"numel": 3},
        {"numel": 2**60},
        {"numel": -1},
        {"size": (5,)},
        {"offset": 1},
        {"offset": -1},
        {"size": (2,), "stride": (4,)},
        {"size": (2,), "stride": (-1,)},
        {"size": (2**40,), "stride": (0,)},  # 16 bytes on disk, 4 TiB in memory
        {"size": (4, 1)},
        {"size": 4},
        {"size": ("4",)},
        {"dtype": "LongStorage"},
        {"key": "1"},
        {"key": 0},
    ],
    ids=str,
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, description):
    valid = crafted(tmp_path / "valid.pt", tensor_pickle())
    assert_same(read_checkpoint(valid).state_dict, {"w": torch.zeros(4)})
    path = crafted(tmp_path / "x.pt", tensor_pickle(**description))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(path)


# Malicious files


class Calls:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


WRAPPINGS = {
    "alone": lambda payload: payload,
    "beside the model": lambda payload: {"model": {}, "extra_state": payload},
    "in the state dict": lambda payload: {"model": OrderedDict(w=payload)},
    "as a key": lambda payload: {"model": {(payload,): 1}},
    "in a Namespace": lambda payload: {"args": argparse.Namespace(lr=[payload]), "model": {}},
    "in a Namespace of cfg": lambda payload: {
        "args": None,
        "cfg": {"model": argparse.Namespace(a=argparse.Namespace(b=payload))},
        "model": {},
    },
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_a_call_is_refused_anywhere_in_a_pickle(tmp_path, wrap):
    payload, path = wrap(Calls(os.system, f"touch '{tmp_path}/marker'")), tmp_path / "evil.pt"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        save(payload, path, **options)
        message = r"refused: .*'(posix|nt).system'.*none of it was run" if not options else "1.6"
        with pytest.raises(CheckpointError, match=f"evil.pt: .*{message}"):
            read_checkpoint(path)
        assert os.listdir(tmp_path) == ["evil.pt"]


@pytest.mark.parametrize(
    "function",
    [
        *("builtins.eval", "builtins.exec", "builtins.open", "builtins.getattr", "torch.load"),
        *("subprocess.Popen", "torch.serialization.load", "functools.partial", "pickle.loads"),
        *("importlib.import_module", "torch.nn.modules.linear.Linear", "\x1b[2Jos.system"),
    ],
)
def test_any_other_function_is_refused_by_its_escaped_name(tmp_path, function):
    module, _, name = function.rpartition(".")
    path = crafted(tmp_path / "x.pt", f"\x80\x02c{module}\n{name}\n.".encode("latin-1"))
    with pytest.raises(CheckpointError, match="only the state dict") as error:
        read_checkpoint(path)
    assert repr(function) in str(error.value)


# Opcodes that do not call a function but try to change the objects that the reader returns.
STATE = b"}X\x05\x00\x00\x00_makecargparse\nNamespace\ns"  # {"_make": Namespace}
TRICKS = {
    "dotted name": b"\x80\x04\x8c\x08argparse\x8c\x12Namespace.__init__\x93.",
    "globals of a function": b"\x80\x04\x8c\x08argparse\x8c\x1eNamespace.__init__.__globals__\x93.",
    "build a function": b"\x80\x02ctorch\nSize\n" + STATE + b"b.",
    "build its slots": b"\x80\x02ctorch\nSize\nN" + STATE + b"\x86b.",
    "build a class": b"\x80\x02cargparse\nNamespace\n" + STATE + b"b.",
    "build the slots of a class": b"\x80\x02cargparse\nNamespace\nN" + STATE + b"\x86b.",
    "build a dtype": b"\x80\x02ctorch\nFloatStorage\nN" + STATE + b"\x86b.",
    "namespace of slots": b"\x80\x02cargparse\nNamespace\n)\x81N" + STATE + b"\x86b.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"\x80\x02(ios\nsystem\n.",
    "no persistent tuple": b"\x80\x02NQ.",
    "endless": b"\x80\x02" + b"(" * 1000,
}


@pytest.mark.parametrize("pickled", TRICKS.values(), ids=TRICKS)
def test_tricks_are_refused_and_change_nothing(tmp_path, pickled):
    before = attributes()
    with pytest.raises(CheckpointError):
        read_checkpoint(crafted(tmp_path / "x.pt", pickled))
    assert attributes() == before


def attributes() -> list:
    """The objects that a pickle can reach, with all that it could set on them."""
    reachable = {"Namespace": argparse.Namespace, "record": NamespaceRecord, **_GLOBALS}
    return [
        (name, value, dict(getattr(value, "__dict__", {})), getattr(value, "__defaults__", None))
        for name, value in reachable.items()
    ]


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a binary memo index
        b"\x80\x02}p4000000000\n.",  # the same as text
        b"\x80\x05\x96\0\0\0\0\x04\0\0\0.",  # an array of 16 GiB
    ],
)
def test_a_large_number_in_a_pickle_does_not_fill_the_memory(tmp_path, pickled):
    tracemalloc.start()
    with contextlib.suppress(CheckpointError):
        assert read_checkpoint(crafted(tmp_path / "x.pt", pickled)).state_dict == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24
