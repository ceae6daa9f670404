"""Reads FASTA, checked as it comes.

The only parser of FASTA in this package. What `read_fasta` lets through is fit for the model:

- The id is the first word of the header, present and unlike every other id in the file; the rest
  is the description.
- The sequence has letters, each of them T or a nucleotide letter of the model's vocabulary
  (the IUPAC codes, X and I), in either case. Any other character is an error, said to look like
  a protein where a tenth of them are foreign. `unknown="unk"` lets other letters, digits and
  signs pass (the tokenizer reads them as `<unk>`), but never blanks, `<` and `>`.
- The text is UTF-8, whatever the locale, without control characters. Line ends may be those of
  Unix, Windows or old Macs, lines may have any length, and lines that begin with `#` are comments.
  gzip, bzip2 and xz are read to their last stream; anything behind that is an error.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from os import PathLike, fspath
from typing import IO, Any

FilePath = str | PathLike[str]

STANDARD_INPUT = "-"
# The nucleotide letters of the tokenizer's vocabulary, and T; here, since that imports torch.
LETTERS = "GAUCNYRSKWMDHVBXIT"
# The end of the message about a letter, for those who have the option.
UNKNOWN_HINT = "; --unknown unk has it read as <unk>"

# From this share of foreign characters on, the message speaks of a protein: of the letters of
# known proteins, 29 in 100 (E, F, L, P, Q) are no nucleotide codes.
_PROTEIN_SHARE = 0.1
_PRINTABLE = bytes(code for code in range(33, 127) if chr(code) not in "<>")
_BLOCK = 1 << 16
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class InputError(ValueError):
    """The input cannot be computed; the message names the file and the record or line."""

    @classmethod
    def at(cls, name: FilePath, line: int, problem: str) -> InputError:
        """What to raise for a line of a file."""
        return cls(f"{fspath(name)}: line {line}: {problem}")


@dataclass(frozen=True, slots=True)
class FastaRecord:
    """One sequence: `id`, the first word of its header; `description`, the rest of it."""

    id: str
    sequence: str
    description: str = ""


def read_fasta(path: FilePath | IO[bytes], unknown: str = "error") -> Iterator[FastaRecord]:
    """The records of a FASTA file, in order, each checked as the module says.

    Args:
        path: a file, compressed or not, "-" for standard input, or an open file.
        unknown: "error" or "unk", what to do with characters that are no nucleotide codes.

    Yields:
        Records with the sequence as it is in the file, lines joined.

    Raises:
        InputError: the file is not FASTA, has no record, or a record is unfit.
        OSError: the file cannot be opened.
    """
    name = "the input" if not isinstance(path, (str, PathLike)) else fspath(path)
    name = "standard input" if name == STANDARD_INPUT else name
    return check_records(_parse(path, name), name, unknown)


def write_fasta(file: IO[str], records: Iterable[FastaRecord]) -> None:
    """Write records, one line a sequence; the inverse of `read_fasta`."""
    for record in records:
        header = f"{record.id} {record.description}".rstrip()
        file.write(f">{header}\n{record.sequence}\n")


# ---------------------------------------------------------------------------------------------
# What a record must be


def check_records(
    records: Iterable[FastaRecord], name: str, unknown: str = "error"
) -> Iterator[FastaRecord]:
    """Pass records on, from wherever they come, once each is checked as by `read_fasta`.

    Args:
        records: any records.
        name: what to call their source in messages.
        unknown: as for `read_fasta`.
    """
    allowed = _allowed_letters(unknown)
    # Of ids their hashes, 64 bits: two of 40 million ids share one with a chance of 1 in 20,000.
    seen: set[int] = set()
    number = 0
    for number, record in enumerate(records, 1):
        problem = _problem(record, allowed)
        if problem:
            raise InputError(f"{name}: record {number} ({record.id or 'no id'}): {problem}")
        seen.add(hash(record.id))
        if len(seen) < number:
            raise InputError(
                f"{name}: record {number}: there is a record with the id {record.id!r} (the first "
                "word of the header) already; results are filed by id: make the ids unique"
            )
        yield record
    if not number:
        raise InputError(f"{name}: no sequences in it")


@cache
def _allowed_letters(unknown: str) -> bytes:
    """The characters that a sequence may have."""
    return _PRINTABLE if unknown == "unk" else (LETTERS + LETTERS.lower()).encode()


def _problem(record: FastaRecord, allowed: bytes) -> str | None:
    """What makes a record unfit, or None."""
    if not record.id:
        return "its header has no id"
    if not record.sequence:
        return "it is empty; every record needs a sequence"
    if record.sequence.startswith("#"):
        return "its sequence begins with #, as comments do"
    # Every character beyond ASCII becomes "?"; where that is allowed, <unk> is what it gets.
    letters = record.sequence.encode("ascii", "replace")
    foreign = letters.translate(None, allowed)
    if not foreign:
        return None
    at = next(i for i, letter in enumerate(letters) if letter not in allowed)
    character = record.sequence[at]
    what = f"{character!r} at position {at + 1} is no nucleotide code"
    if character in "-.":
        return f"{what}, but a gap of an alignment: take the gaps out"
    if character.isspace() or character.isdigit() or character in "<>":
        return f"{what}: a sequence is letters only"
    if len(foreign) >= _PROTEIN_SHARE * len(letters):
        share = 100 * len(foreign) / len(letters)
        return f"it looks like a protein: {share:.0f} % is not nucleotide codes; {what}"
    return f"{what}{UNKNOWN_HINT}"


# ---------------------------------------------------------------------------------------------
# The parser


def _parse(path: FilePath | IO[bytes], name: str) -> Iterator[FastaRecord]:
    header: str | None = None
    lines: list[str] = []
    for number, line in read_lines(path, name):
        if line.startswith(">"):
            if header is not None:
                yield _record(header, lines)
            header, lines = line[1:], []
        elif header is not None:
            lines.append(line)
        elif line.strip() and not line.startswith("#"):
            raise InputError(
                f"{name}: not a FASTA file: line {number} must begin with '>', not {line[:20]!r}"
            )
    if header is not None:
        yield _record(header, lines)


def _record(header: str, lines: list[str]) -> FastaRecord:
    id, description = split_header(header)
    sequence = "".join(line.strip() for line in lines if not line.startswith("#"))
    return FastaRecord(id, sequence, description)


def split_header(text: str) -> tuple[str, str]:
    """Id and description, in FASTA and every other format: the first word, and the rest.

    >>> split_header(" rna7  Bacillus subtilis, partial ")
    ('rna7', 'Bacillus subtilis, partial')
    """
    id, description = [*text.split(None, 1), "", ""][:2]
    return id, description.rstrip()


# ---------------------------------------------------------------------------------------------
# Lines of text


def read_lines(path: FilePath | IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, without their ends, and their numbers from 1.

    Args:
        path: as for `read_fasta`.
        name: what to call it in messages.

    Raises:
        InputError: a line is not UTF-8 or has a control character, or a compressed file is damaged.
        OSError: the file cannot be opened.
    """
    with _open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig")
        number = 0
        try:
            for number, line in enumerate(text, 1):
                control = _CONTROL.search(line)
                if control is not None:
                    code = ord(control[0])
                    hint = "" if code else "; is it UTF-16 or binary?"
                    raise InputError.at(name, number, f"control character {code:#04x}{hint}")
                yield number, line.rstrip("\n")
        except UnicodeDecodeError as error:
            # All lines before those that are being decoded have been read.
            before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            line_number = number + 1 + before.count(b"\n")
            raise InputError.at(name, line_number, "text that is not UTF-8") from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{name}: damaged or cut off: {error}") from error
        finally:
            with contextlib.suppress(ValueError):  # A file of the caller's that is closed already.
                text.detach()  # It would close standard input.


@contextlib.contextmanager
def _open_bytes(path: FilePath | IO[bytes]) -> Iterator[Any]:
    """The decompressed bytes of a file or of standard input."""
    with contextlib.ExitStack() as stack:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise InputError("standard input is closed")
            file: Any = sys.stdin.buffer
        elif isinstance(path, (str, PathLike)):
            file = stack.enter_context(open(path, "rb"))
        else:
            file = path
        yield decompressed(file if hasattr(file, "peek") else io.BufferedReader(file))


def decompressed(file: Any) -> Any:
    """What an open file holds, decompressed if it is gzip, bzip2 or xz, by how it begins.

    Args:
        file: with `peek`.
    """
    start = file.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))
    if start.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(_Streams(file, lzma.LZMADecompressor))
    return file


class _Streams(io.RawIOBase):
    """What is in the streams of a bzip2 or xz file, of which there may be several.

    Python's own readers take whatever follows the first, if it is no stream, for the end.
    """

    def __init__(self, file: IO[bytes], new: Callable[[], Any]):
        self._file, self._new = file, new
        self._stream = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            given = b""
            if self._stream.eof:
                given = self._next_stream()
                if not given:
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input:
                given = self._file.read(_BLOCK)
                if not given:
                    raise EOFError("it ends within a compressed stream")
            data = self._stream.decompress(given, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next_stream(self) -> bytes:
        """The beginning of what follows a stream; zeros before it are padding."""
        given = self._stream.unused_data
        while not (given := given.lstrip(b"\0")):
            given = self._file.read(_BLOCK)
            if not given:
                break
        return given
