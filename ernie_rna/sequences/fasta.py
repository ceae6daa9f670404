"""Reads FASTA, checked as it comes, in memory that does not grow with the file.

The only parser of FASTA in this package; the format itself is dnaio's work (extra `io`), and so
is gzip, bzip2 and xz. What `read_fasta` lets through is fit for the model:

- The id is the first word of the header, present and unlike every other id in the file. Ids are
  remembered as hashes of 10 bytes, 20 while they are sorted: two of 10^9 ids share one with a
  chance below 10^-6.
- The sequence has letters, each of them T or a nucleotide letter of the model's vocabulary
  (the IUPAC codes, X and I), in either case. Any other character is an error, said to look like
  a protein where a tenth of them are foreign. `unknown="unk"` lets other letters, digits and
  signs pass (the tokenizer reads them as `<unk>`), but never blanks, `<` and `>`.
- The text is UTF-8, whatever the locale, without control characters. Line ends may be those of
  Unix, Windows or old Macs, lines may have any length, and lines that begin with `#` are comments.
"""

import contextlib
import io
import sys
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from os import PathLike, fspath
from typing import IO, Any

from ernie_rna.extras import import_extra
from ernie_rna.sequences.seen_ids import SeenIds
from ernie_rna.sequences.streams import compressed_streams

FilePath = str | PathLike[str]

STANDARD_INPUT = "-"
UNKNOWN = ("error", "unk")
# The end of the message about a letter, for those who have the option.
UNKNOWN_HINT = "; --unknown unk has it read as <unk>"

# From this share of foreign characters on, the message speaks of a protein: of the letters of
# known proteins, 29 in 100 (E, F, L, P, Q) are no nucleotide codes.
_PROTEIN_SHARE = 0.1
_PRINTABLE = bytes(code for code in range(33, 127) if chr(code) not in "<>")
_CONTROL = bytes(code for code in range(32) if chr(code) not in "\t\n\r") + b"\x7f"
_CHUNK = 1 << 16


class InputError(ValueError):
    """The input cannot be embedded; the message names the file and the record or line."""


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
        Records with the sequence as it stands in the file, lines joined.

    Raises:
        InputError: the file is not FASTA, has no record, or a record is unfit. A repeated id is
            found at the latest 65,536 records on, or at the end.
        OSError: the file cannot be opened.
        ImportError: dnaio is not installed.
    """
    if not isinstance(path, (str, PathLike)):
        name = "the input"
    else:
        name = "standard input" if fspath(path) == STANDARD_INPUT else fspath(path)
    return check_records(_parse(path, name), name, unknown)


def check_records(
    records: Iterable[FastaRecord], name: str, unknown: str = "error", unique: bool = True
) -> Iterator[FastaRecord]:
    """Pass records on, from wherever they come, once each is checked as by `read_fasta`.

    Args:
        records: any records.
        name: what to call their source in messages.
        unknown: as for `read_fasta`.
        unique: whether ids that occur twice are an error.
    """
    allowed = _allowed_letters(unknown)
    ids = SeenIds()
    number = 0
    for number, record in enumerate(records, 1):
        problem = _problem(record, allowed)
        if problem:
            raise InputError(f"{name}: record {number} ({record.id or 'no id'}): {problem}")
        if unique:
            _refuse_repeated(ids.add(record.id), name)
        yield record
    _refuse_repeated(ids.flush(), name)
    if not number:
        raise InputError(f"{name}: no sequences in it")


def _refuse_repeated(repeated: str | None, name: str) -> None:
    if repeated is not None:
        raise InputError(
            f"{name}: two records have the id {repeated!r} (the first word of the header); "
            "results are filed by id: make the ids unique"
        )


# ---------------------------------------------------------------------------------------------
# What a record must be


@cache
def _allowed_letters(unknown: str) -> bytes:
    """The characters that a sequence may have, by the vocabulary of the tokenizer."""
    if unknown not in UNKNOWN:
        raise ValueError(f"unknown must be one of {', '.join(UNKNOWN)}; got {unknown!r}")
    if unknown == "unk":
        return _PRINTABLE
    # Here, since it loads transformers, which `--help` should not wait for.
    from ernie_rna.model.configuration_ernie_rna import VOCABULARY

    letters = "".join(token for token in VOCABULARY if len(token) == 1) + "T"
    return (letters + letters.lower()).encode()


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
    """The records as dnaio reads them; what it raises becomes an InputError."""
    dnaio = import_extra("dnaio", "io", "reading FASTA")
    with _open(path) as file, io.BufferedReader(_CheckedText(file, name), _CHUNK) as text:
        reader = dnaio.FastaReader(text, sequence_class=_to_record)
        reader._file.reconfigure(encoding="utf-8")  # It decodes by the locale.
        try:
            yield from reader
        except dnaio.FileFormatError as error:
            raise InputError(f"{name}: not a FASTA file: {error.message}{_line(error)}") from error


def _line(error: Any) -> str:
    return "" if error.line is None else f" (line {error.line + 1})"


def _to_record(header: str, sequence: str, qualities: None) -> FastaRecord:
    id, description = [*header.split(None, 1), "", ""][:2]
    return FastaRecord(id, sequence, description)


@contextlib.contextmanager
def _open(path: FilePath | IO[bytes]) -> Iterator[Any]:
    """The decompressed bytes of a file or of standard input."""
    xopen = import_extra("xopen", "io", "reading FASTA").xopen
    with contextlib.ExitStack() as stack:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise InputError("standard input is closed")
            source: Any = sys.stdin.buffer
        elif isinstance(path, (str, PathLike)):
            source = stack.enter_context(open(path, "rb"))
        else:
            source = path
        streams = compressed_streams(source)
        if streams is not None:
            yield streams
            return
        # Threads and helper processes would take the cores from the model.
        with xopen(source, "rb", threads=0) as file:
            yield file


class _CheckedText(io.RawIOBase):
    """Bytes as they come from a file, after a look for what no parser would report.

    Raises (when read):
        InputError: a control character, text that is not UTF-8, or a file that breaks off or
            cannot be decompressed. The message has the line.
    """

    def __init__(self, file: IO[bytes], name: str):
        self._file = file
        self._name = name
        self._line = 1
        self._first = True
        self._decoder = getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._read(len(buffer))
        if self._first and chunk.startswith(BOM_UTF8):
            chunk = chunk[len(BOM_UTF8) :] or self._read(len(buffer))
        self._first = False
        self._check(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # Every decompressor raises a type of its own.
            raise InputError(f"{self._name}: damaged or cut off: {error}") from error

    def _check(self, chunk: bytes) -> None:
        harmless = chunk.translate(None, _CONTROL)
        if len(harmless) < len(chunk):
            at = next(i for i, code in enumerate(chunk) if code in _CONTROL)
            hint = "; is it UTF-16 or binary?" if not chunk[at] else ""
            self._refuse(chunk, at, f"control character {chunk[at]:#04x}{hint}")
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            self._refuse(chunk, max(error.start, 0), "text that is not UTF-8")
        self._line += chunk.count(b"\n")

    def _refuse(self, chunk: bytes, at: int, what: str) -> None:
        line = self._line + chunk.count(b"\n", 0, at)
        raise InputError(f"{self._name}: line {line}: {what}")


def write_fasta(file: IO[str], records: Iterable[FastaRecord]) -> None:
    """Write records, one line a sequence; the inverse of `read_fasta`."""
    for record in records:
        header = f"{record.id} {record.description}".rstrip()
        file.write(f">{header}\n{record.sequence}\n")
