"""Damage files as copying, editing and malice would; the same seed leads to the same damage.

`mutate` draws its choices from a `random.Random`, or from the replacement that Hypothesis provides,
so the short tests and the long run share this code.
"""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

# The largest input, so that time and memory depend on the reader, not on the size of the input.
MAX_BYTES = 1 << 20

# (source of choices, bytes, other files to copy pieces from) -> damaged bytes.
Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]
# Applies a change to the content of a container (an archive, a compressed file, a header).
Through = Callable[[Random, bytes, Callable[[bytes], bytes]], bytes]

_NUMBER = re.compile(rb"\d+")
_TEXT_NUMBERS = [
    *(b"0", b"-1", b"00", b"1e400", b"nan", b"-inf", b"1_0", b"0x10", b"\xd9\xa3", b"\xc2\xb2"),
    *(str(2**bits + more).encode() for bits in (8, 16, 31, 32, 63, 64) for more in (-1, 0)),
    b"9" * 30,
    b"9" * 5000,  # Python's int() refuses more than 4300 digits.
]
_BINARY_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, *(2**bits - 1 for bits in (15, 16, 31, 32, 63, 64))]
_ODD_TEXT = [
    *(bytes([code]) for code in (*range(32), 127, 128, 255)),
    *(text.encode() for text in ("\x85", "\u2028", "\ufeff", "\u0301", "Ü", "\U0001f9ec")),
    *(b"\r\n", b"\xed\xa0\x80", b'"', b"#", b">", b" ", b"\t", b";", b"@", b"()", b"{}", b"<a>"),
]


def mutate(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The data after one to four mutations, cut off at `MAX_BYTES`."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        data = random.choice(_WEIGHTED)(random, data, others)[:MAX_BYTES]
    return data


def _span(random: Random, data: bytes, longest: int = 1 << 12) -> slice:
    """A random piece of the data; short pieces are as likely as long ones."""
    start = random.randrange(len(data) + 1)
    length = min(longest, 1 << random.randrange(13))
    return slice(start, min(len(data), start + random.randrange(length + 1)))


def flip_bits(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        damaged[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def replace(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Replace a piece by nothing, bytes of a failing disk, copies of it, or a piece of any file."""
    span = _span(random, data)
    size, donor = span.stop - span.start, random.choice([data, *others])
    noise = bytes(random.randrange(256) for _ in range(min(size, 64)))
    copies = data[span] * random.choice((2, 3, 10, 100, 1000))
    piece = donor[_span(random, donor)]
    new = random.choice((b"", bytes(size), b"\xff" * size, noise, copies[:MAX_BYTES], piece))
    return data[: span.start] + new + data[span.stop :]


def cut_off(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Remove the end or the beginning, or replace the end by that of another file."""
    at, donor = random.randrange(len(data) + 1), random.choice([data, *others])
    return random.choice((data[:at], data[at:], data[:at] + donor[min(at, len(donor)) :]))


def text_number(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Replace a number in the text by that plus or minus 1, another number of it, or an odd one."""
    start = random.randrange(len(data) + 1)
    number = _NUMBER.search(data, start) or _NUMBER.search(data)
    if number is None:
        return data
    elsewhere = _NUMBER.search(data, random.randrange(len(data)))
    near = str(int(number[0][:18]) + random.choice((-1, 1))).encode()
    odd = random.choice(_TEXT_NUMBERS)
    new = random.choice((near, elsewhere[0] if elsewhere else b"7", odd))
    return data[: number.start()] + new + data[number.end() :]


def insert(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Insert an odd letter or text, or overwrite bytes with a binary number."""
    size, at = random.choice((1, 2, 4, 8)), random.randrange(len(data) + 1)
    number = random.choice(_BINARY_NUMBERS) & (256**size - 1)
    binary = number.to_bytes(size, random.choice(("little", "big")))
    text = data[:at] + random.choice(_ODD_TEXT) + data[at:]
    return random.choice((text, data[:at] + binary + data[at + size :]))


def lines(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Swap two lines, copy or delete a line, or join it to the next."""
    all_lines = data.splitlines(keepends=True)
    if len(all_lines) < 2:
        return data
    i, j = (random.randrange(len(all_lines)) for _ in range(2))
    kind = random.randrange(4)
    if kind == 0:
        all_lines[i], all_lines[j] = all_lines[j], all_lines[i]
    elif kind == 1:
        all_lines.insert(j, all_lines[i])
    elif kind == 2:
        del all_lines[i]
    else:
        all_lines[i] = all_lines[i].rstrip(b"\r\n")
    return b"".join(all_lines)


MUTATIONS: tuple[Mutation, ...] = (flip_bits, replace, cut_off, text_number, insert, lines)
_WEIGHTED = (*MUTATIONS, replace, replace, insert)  # those with several forms more often


# ---------------------------------------------------------------------------------------------
# Damage inside a container, so that checksums do not detect it before the parser reads it


def within_zip(random: Random, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change one member, and sometimes its name; checksums and offsets are computed anew."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        names = old.namelist()
        # Small members describe the large ones, so half of the time one of them is chosen.
        small = [name for name in names if old.getinfo(name).file_size < 4096] or names
        chosen = random.choice(random.choice((small, names)))
        for name in names:
            content = change(old.read(name)) if name == chosen else old.read(name)
            renamed = name == chosen and random.random() < 0.05
            new.writestr(f"{name}{random.choice('/.x0')}" if renamed else name, content)
    return result.getvalue()


def within_header(random: Random, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the JSON header of a safetensors file; its length field is computed anew."""
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length])
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _compressed(
    compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> Through:
    return lambda random, data, change: compress(change(decompress(data)))


# By file extension.
THROUGH: dict[str, Through] = {
    ".gz": _compressed(partial(gzip.compress, compresslevel=1, mtime=0), gzip.decompress),
    ".bz2": _compressed(partial(bz2.compress, compresslevel=1), bz2.decompress),
    ".xz": _compressed(partial(lzma.compress, preset=0), lzma.decompress),
    ".pt": within_zip,
    ".npz": within_zip,
    ".safetensors": within_header,
}
