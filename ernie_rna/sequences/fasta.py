"""Reads FASTA, checked as it comes.

The only parser of FASTA in this package. What `read_fasta` lets through is fit for the model:

- The id is the first word of the header, present and unlike every other id in the file; the rest
  is the description.
- The sequence has letters, each of them T or a nucleotide letter of the model's vocabulary
  (the IUPAC codes, X and I), in either case. Any other character is an error, said to look like
  a protein where a tenth of them are foreign. `unknown="unk"` lets other letters, digits and
  signs pass (the tokenizer reads them as `<unk>`), but never blanks, `<` and `>`. `degap=True`
  takes the gaps of an alignment out, and reads Stockholm and Clustal as well.
- Structures below a sequence, as RNAfold writes them, are passed over, with a warning.
- The text is UTF-8, or UTF-16 with a byte order mark, whatever the locale, without control
  characters. Line ends may be those of Unix, Windows or old Macs, lines may have any length, and
  lines that begin with `#` are comments.
  gzip, bzip2 and xz are read to their last stream; anything behind that is an error. Files of other
  kinds are named, with what makes FASTA of them.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import io
import lzma
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from string import ascii_lowercase
from typing import IO, Any

FilePath = str | PathLike[str]

STANDARD_INPUT = "-"
# The nucleotide letters of the tokenizer's vocabulary, and T; here, since that imports torch.
LETTERS = "GAUCNYRSKWMDHVBXIT"
GAPS = "-._~"
# What a message ends in that names an option; nobody has it who pastes text into the web page.
OPTION = "; --"
# By extension, how a compressed file begins, by which it is known, and what decompresses a stream.
_COMPRESSED: dict[str, tuple[bytes, Callable[[], Any]]] = {
    ".gz": (b"\x1f\x8b", partial(zlib.decompressobj, 31)),  # of gzip, with its checksum
    ".bz2": (b"BZh", bz2.BZ2Decompressor),
    ".xz": (b"\xfd7zXZ\0", lzma.LZMADecompressor),
}

# From this share of foreign characters on, the message speaks of a protein: of the letters of
# known proteins, 29 in 100 (E, F, L, P, Q) are no nucleotide codes.
_PROTEIN_SHARE = 0.1
_ALLOWED = {
    "error": (LETTERS + LETTERS.lower()).encode(),
    "unk": bytes(code for code in range(33, 127) if chr(code) not in "()[]{}<>|"),
}
_NO_GAPS = str.maketrans("", "", GAPS)
_TO_RNA = str.maketrans(ascii_lowercase + "Tt", ascii_lowercase.upper() + "UU")
_BLOCK = 1 << 12  # bytes that are decompressed at once; bzip2 can make 20,000 times as much of them
_BEGIN = 1000  # of a file or line, by which it is known
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Dot-bracket, WUSS, and the constraints of RNAfold: with a bracket, or without letters.
_STRUCTURE = re.compile(r"[.,:_~|x()\[\]{}<>A-Za-z+-]*[()\[\]{}<>|]|[.,:_~x-]*\.[.,:_~x-]*(\s|$)")
_NO_BRACKETS = frozenset(".,:_~x-")
_ALIGNMENT = re.compile(r"# STOCKHOLM|CLUSTAL|.*(multiple sequence |\) )alignment")

# What people hand over by mistake, by how it begins: what it is, and what makes FASTA of FILE.
_WRITE = "with a line >name above each sequence"
_BIOPYTHON = (
    "Biopython makes FASTA of it: python -c \"from Bio import SeqIO; SeqIO.convert('FILE', "
    "'FORMAT', 'rna.fasta', 'fasta')\""
)
_FOREIGN_BYTES = {
    rb"PK\x03\x04.*(xl/|opendocument\.spreadsheet)|\xd0\xcf\x11\xe0": "a spreadsheet (or an old "
    f"Word document): save it as CSV, which predict and finetune read, or as text {_WRITE}",
    rb"PK\x03\x04.*(word/|opendocument\.text)|\{\\rtf": "a document of a word processor: save it "
    f"as plain text, {_WRITE}",
    rb"PK\x03\x04": "a zip archive: unpack it: unzip FILE",
    rb".{257}ustar": "a tar archive: unpack it: tar -xf FILE",
    rb"\x28\xb5\x2f\xfd": "a file compressed by zstd: unpack it: zstd -d FILE",
    rb"7z\xbc\xaf|Rar!|\x1f\x9d|\x5d\0\0": "a file of 7-Zip, RAR, compress (.Z) or lzma: unpack it",
    rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\0": "a file that was compressed twice: unpack it",
    rb"%PDF": f"a PDF: copy the sequences into a text file, {_WRITE}",
    rb"BAM\x01": "a file of aligned reads (BAM): samtools fasta FILE > rna.fasta",
    rb"PAR1": "a Parquet file: let its name end in .parquet",
}
_FOREIGN_LINES = {
    _ALIGNMENT.pattern: f"an alignment: write its rows as FASTA, without their gaps{OPTION}degap "
    "reads it as it is",
    r"@(HD|SQ|RG|PG)\t": "a file of aligned reads (SAM): samtools fasta FILE > rna.fasta",
    r"@": "a file of reads (FASTQ): awk 'NR % 4 == 1 {print \">\" substr($0, 2)} NR % 4 == 2' FILE "
    "> rna.fasta",
    r"LOCUS ": f"a GenBank record: {_BIOPYTHON.replace('FORMAT', 'genbank')}",
    r"ID   ": f"an EMBL record: {_BIOPYTHON.replace('FORMAT', 'embl')}",
    r"HEADER  |ATOM  |data_": "a structure in space (PDB, mmCIF): the PDB has its sequence in "
    "FASTA",
    r"\s*<(!DOCTYPE|html|\?xml)": "a page of the web, or XML: download the file itself",
    r"\s*[{\[]": f"a file of JSON: write a text file {_WRITE}",
    r"(?i).*\bseq(uence)?\b.*[\t,;]|.*[\t,;].*\bseq(uence)?\b": "a table: predict and finetune read"
    " tables; if its first columns are names and sequences, awk -F '[\\t;,]' 'NR > 1 {print \">\" "
    '$1 "\\n" $2}\' FILE > rna.fasta makes FASTA',
}


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


def read_fasta(
    path: FilePath | IO[bytes],
    unknown: str = "error",
    degap: bool = False,
    keep_letters: bool = True,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[FastaRecord]:
    """The records of a FASTA file, in order, each checked as the module says.

    Args:
        path: a file, compressed or not, "-" for standard input, or an open file.
        unknown: "error" or "unk", what to do with characters that are no nucleotide codes.
        degap: whether gaps (``-._~``) are taken out, and the file may be Stockholm or Clustal.
        keep_letters: whether letters stay as they are; else they are upper case, and U for T.
        warn: takes, at the end, what is to be said of the whole file.

    Yields:
        Records with the lines of a sequence joined.

    Raises:
        InputError: the file is not FASTA, has no record, or a record is unfit.
        OSError: the file cannot be opened.
    """
    records = parse_fasta(path, degap, warn)
    return check_records(records, input_name(path), unknown, degap, keep_letters, warn)


def input_name(path: FilePath | IO[bytes]) -> str:
    """What an input is called in messages."""
    if not isinstance(path, (str, PathLike)):
        return "the input"
    return "standard input" if path == STANDARD_INPUT else fspath(path)


def to_rna(sequence: str) -> str:
    """A sequence in upper case and with U for T, letter by letter."""
    return sequence.translate(_TO_RNA)


def write_fasta(file: IO[str], records: Iterable[FastaRecord]) -> None:
    """Write records, one line a sequence; the inverse of `read_fasta`."""
    for record in records:
        header = f"{record.id} {record.description}".rstrip()
        file.write(f">{header}\n{record.sequence}\n")


# ---------------------------------------------------------------------------------------------
# What a record must be


def check_records(
    records: Iterable[FastaRecord],
    name: str,
    unknown: str = "error",
    degap: bool = False,
    keep_letters: bool = True,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[FastaRecord]:
    """Pass records on, from wherever they come, once each is checked as by `read_fasta`.

    Args:
        records: any records.
        name: what to call their source in messages.
        unknown, degap, keep_letters, warn: as for `read_fasta`.
    """
    allowed = _ALLOWED[unknown]
    # Of ids their hashes, 64 bits: two of 40 million ids share one with a chance of 1 in 20,000.
    seen: set[int] = set()
    number = with_gaps = 0
    for number, record in enumerate(records, 1):
        sequence = record.sequence.translate(_NO_GAPS) if degap else record.sequence
        problem = _problem(record.id, sequence, allowed)
        if problem:
            raise InputError(f"{name}: record {number} ({record.id or 'no id'}): {problem}")
        seen.add(hash(record.id))
        if len(seen) < number:
            blanks = ", for example with _ in place of blanks" * bool(record.description)
            raise InputError(
                f"{name}: record {number}: there is a record with the id {record.id!r} (the first "
                f"word of the header) already; results are filed by id: make the ids unique{blanks}"
            )
        if unknown == "unk":
            with_gaps += "-" in sequence or "." in sequence
        if not keep_letters:
            sequence = to_rna(sequence)
        if sequence != record.sequence:
            record = FastaRecord(record.id, sequence, record.description)
        yield record
    if not number:
        raise InputError(f"{name}: no sequences in it")
    if with_gaps:
        warn(
            f"{name}: gaps in {with_gaps} of {number} sequences are read as <unk>: positions count "
            "them, as in the input"
        )


def _problem(id: str, sequence: str, allowed: bytes) -> str | None:
    """What makes a record unfit, or None."""
    if not id:
        return "its header has no id"
    if not sequence:
        return "it is empty; every record needs a sequence"
    if sequence.startswith("#"):
        return "its sequence begins with #, as comments do"
    # Every character beyond ASCII becomes "?"; where that is allowed, <unk> is what it gets.
    letters = sequence.encode("ascii", "replace")
    foreign = letters.translate(None, allowed)
    blank = None if sequence.isascii() else re.search(r"\s", sequence)
    if not foreign and blank is None:
        return None
    at = blank.start() if blank else next(i for i, one in enumerate(letters) if one not in allowed)
    character = sequence[at]
    what = f"{character!r} at position {at + 1} is no nucleotide code"
    if character in "-.":
        return f"{what}, but a gap of an alignment: take the gaps out{OPTION}degap does it"
    if character.isspace() or character.isdigit() or character in "()[]{}<>|":
        return f"{what}: a sequence is letters only"
    share = sum(map(str.isalpha, foreign.decode())) / len(letters)
    if share >= _PROTEIN_SHARE:
        return f"it looks like a protein: {100 * share:.0f} % are not nucleotide codes; {what}"
    return f"{what}{OPTION}unknown unk has it read as <unk>"


# ---------------------------------------------------------------------------------------------
# The parser


def parse_fasta(
    path: FilePath | IO[bytes],
    degap: bool = False,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[FastaRecord]:
    """The records of a file as they are, for `check_records`; arguments as for `read_fasta`."""
    below = []
    for header, lines in read_bodies(path, degap):
        id, description = split_header(header)
        sequence = "".join(lines)
        if not sequence.isalpha():
            above = _above_structure(lines, GAPS * degap)
            below += [id] * bool(above)
            sequence = above or sequence
        yield FastaRecord(id, sequence, description)
    if below:
        what = f"structures below {len(below)} of the sequences are ignored, first below {below[0]}"
        warn(f"{input_name(path)}: {what}")


def read_bodies(path: FilePath | IO[bytes], degap: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The header of each record of a file, without its >, and its lines that have something."""
    header: str | None = None
    lines: list[str] = []
    name, numbered = input_name(path), read_lines(path)
    for number, line in numbered:
        if line.startswith(">"):
            if header is not None:
                yield header, lines
            header, lines = line[1:], []
        elif header is not None:
            if not line.startswith("#") and (line := line.strip()):
                lines.append(line)
        elif _ALIGNMENT.match(line) and degap:
            yield from _alignment_rows(numbered, name)
        elif line.strip() and (not line.startswith("#") or _ALIGNMENT.match(line)):
            _refuse_foreign(_FOREIGN_LINES, line, name)
            raise InputError(
                f"{name}: not a FASTA file: line {number} must begin with '>', not {line[:20]!r}: "
                "write a line >name above each sequence"
            )
    if header is not None:
        yield header, lines


def _refuse_foreign(kinds: Mapping[Any, str], start: Any, name: str) -> None:
    plain = str(uncompressed(name))
    for begins, kind in kinds.items():
        if re.match(begins, start[:_BEGIN], re.DOTALL):
            what, _, way_out = kind.partition(": ")
            unpack = "unpack it, then " * (plain != name and "FILE" in way_out)
            raise InputError(f"{name}: this is {what}: {unpack}{way_out.replace('FILE', plain)}")


def _above_structure(lines: list[str], gaps: str) -> str:
    """The sequence in the lines of a record that has a structure of its length below; else "".

    A structure does not begin with a line of gaps alone.
    """
    found = (i for i, line in enumerate(lines) if _STRUCTURE.match(line) and line.strip(gaps))
    first = next(found, 0)
    above, rest, structure = "".join(lines[:first]), lines[first:], ""
    while rest and len(structure) < len(above):
        structure += rest.pop(0).split()[0]
    # Letters below dots would be more of the sequence.
    is_one = not _NO_BRACKETS.issuperset(structure) or not any(map(str.isalpha, rest))
    return above if len(structure) == len(above) and is_one else ""


def _alignment_rows(
    numbered: Iterable[tuple[int, str]], name: str
) -> Iterator[tuple[str, list[str]]]:
    """The rows of Stockholm and Clustal, whose blocks are one below the other, with their gaps."""
    rows: dict[str, list[str]] = {}
    descriptions: dict[str, str] = {}
    for number, line in chain(numbered, [(0, "//")]):
        words = line.split()
        if words[:1] == ["#=GS"] and words[2:3] == ["DE"]:
            descriptions[words[1]] = " ".join(words[3:])
        elif line.startswith("//"):
            columns = 0
            for id, row in zip(rows, map("".join, rows.values()), strict=True):
                columns = columns or len(row)
                if len(row) != columns:
                    what = f"the row of {id} has {len(row)} columns, the first {columns}"
                    raise InputError(f"{name}: {what}")
                yield f"{id} {descriptions.get(id, '')}", [row]
            rows, descriptions = {}, {}
        elif words and line[0] not in "# \t" and not _ALIGNMENT.match(line):
            # Clustal may count the letters behind each line.
            if len(words) - (len(words) == 3 and words[2].isdecimal()) != 2:
                raise InputError.at(name, number, f"expected a name and its row; got {line[:40]!r}")
            rows.setdefault(words[0], []).append(words[1])


def split_header(text: str) -> tuple[str, str]:
    """Id and description, in FASTA and every other format: the first word, and the rest.

    >>> split_header(" rna7  Bacillus subtilis, partial ")
    ('rna7', 'Bacillus subtilis, partial')
    """
    id, description = [*text.split(None, 1), "", ""][:2]
    return id, description.rstrip()


# ---------------------------------------------------------------------------------------------
# Lines of text


def is_stream(path: FilePath) -> bool:
    """Whether a path can be read only once: standard input, or a pipe as <(zcat rna.fa.gz) is."""
    return path == STANDARD_INPUT or Path(path).is_fifo() or Path(path).is_char_device()


def uncompressed(path: FilePath) -> Path:
    """The name that a file has without its compression."""
    path = Path(path)
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path


def read_lines(path: FilePath | IO[bytes]) -> Iterator[tuple[int, str]]:
    """The lines of a text, without their ends, and their numbers from 1; `path` as `read_fasta`.

    Raises:
        InputError: a line is not text or has a control character, or a compressed file is damaged.
        OSError: the file cannot be opened.
    """
    name, number = input_name(path), 0
    with contextlib.ExitStack() as stack:
        if path == STANDARD_INPUT:
            if sys.stdin is None:
                raise InputError("standard input is closed")
            file: Any = sys.stdin.buffer
        elif isinstance(path, (str, PathLike)):
            file = stack.enter_context(open(path, "rb"))
        else:
            file = path
        try:
            blocks = filter(None, _decompressed(file))
            start = next(blocks, b"")
            _refuse_foreign(_FOREIGN_BYTES, start, name)
            for number, line in enumerate(_lines(start, blocks), 1):
                control = _CONTROL.search(line)
                if control is not None:
                    code = ord(control[0])
                    hint = "" if code else "; is it UTF-16 or binary?"
                    raise InputError.at(name, number, f"control character {code:#04x}{hint}")
                yield number, line.replace("\ufeff", "")  # of files that were joined
        except UnicodeDecodeError as error:
            # All lines before those that are being decoded have been read.
            before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            line_number = number + 1 + before.count(b"\n")
            problem = "text that is not UTF-8: save the file as UTF-8 (Excel calls it CSV UTF-8)"
            raise InputError.at(name, line_number, problem) from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{name}: damaged or cut off: {error}") from error


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    """What an open file holds, block by block; of a compressed one, what is in its streams.

    Python's own readers take whatever follows the first stream, if it is none, for the end.
    """
    blocks: Iterator[bytes] = iter(partial(getattr(file, "read1", file.read), _BLOCK), b"")
    start = next(blocks, b"")
    blocks = chain([start], blocks)
    new = next((new for begins, new in _COMPRESSED.values() if start.startswith(begins)), None)
    if new is None:
        yield from blocks
        return
    stream, within = new(), False
    for block in blocks:
        # Zeros between streams are padding.
        while block := block if within else block.lstrip(b"\0"):
            yield stream.decompress(block)
            within, block = not stream.eof, stream.unused_data
            if not within:
                stream = new()
    if within:
        raise EOFError("it ends within a compressed stream")


def _lines(start: bytes, blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text that comes in blocks, with ends of any kind."""
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decode = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")()
    text = io.IncrementalNewlineDecoder(decode, translate=True)
    line: list[str] = []
    for block in chain([start], blocks, [b""]):
        more, *others = text.decode(block, final=not block).split("\n")
        line.append(more)
        for other in others:
            yield "".join(line)
            line = [other]
    if any(line):
        yield "".join(line)
