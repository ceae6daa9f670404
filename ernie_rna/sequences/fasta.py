"""Reads and checks FASTA.

The only parser of FASTA in this package. `read_fasta` yields records that are valid for the model:

- The id is the first word of the header, or the one after an energy, see `split_header`; the rest
  is the description. Every record needs an id, which no other record of the file may have.
- The sequence consists of letters, in either case: T, or a nucleotide letter of the model's
  vocabulary (the IUPAC codes, X and I). Any other character is an error; if they are a tenth of the
  sequence, the message says that it looks like a protein. `unknown="unk"` allows other letters,
  digits and signs (the tokenizer reads them as `<unk>`), but not brackets, `|` or blanks.
- Structures below a sequence, as RNAfold writes them, are ignored with a warning; lines of letters
  below a structure are an error.
- The text is UTF-8, or UTF-16 with a byte order mark, in any locale, without control characters.
  Line ends may be those of Unix, Windows or old Macs, lines may have any length, and lines that
  begin with `#` are comments.
- gzip, bzip2 and xz are read to their last stream; anything after that is an error. For a file of
  another kind the message says what it is and how to make FASTA from it.
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from os import PathLike, fspath
from pathlib import Path
from string import ascii_lowercase
from typing import IO, Any

FilePath = str | PathLike[str]

STANDARD_INPUT = "-"
# T and the nucleotide letters of the tokenizer, repeated here because the tokenizer imports torch.
LETTERS = "GAUCNYRSKWMDHVBXIT"
GAPS = "-._~"
# Begins the end of a message that names an option. The web page, which has none, cuts it off.
OPTION = "; --"
# By extension: the first bytes of a compressed file, and what decompresses one of its streams.
_COMPRESSED: dict[str, tuple[bytes, Callable[[], Any]]] = {
    ".gz": (b"\x1f\x8b", partial(zlib.decompressobj, 31)),  # of gzip, with its checksum
    ".bz2": (b"BZh", bz2.BZ2Decompressor),
    ".xz": (b"\xfd7zXZ\0", lzma.LZMADecompressor),
}

# From this fraction of foreign characters on, the message mentions a protein: 29 of 100 letters in
# known proteins (E, F, L, P, Q) are not nucleotide codes.
_PROTEIN_SHARE = 0.1
_ALLOWED = {
    "error": (LETTERS + LETTERS.lower()).encode(),
    "unk": bytes(code for code in range(33, 127) if chr(code) not in "()[]{}<>|"),
}
_NO_GAPS = str.maketrans("", "", GAPS)
_TO_RNA = str.maketrans(ascii_lowercase + "Tt", ascii_lowercase.upper() + "UU")
_BLOCK = 1 << 12  # bytes that are decompressed at once; bzip2 can expand them 20,000 times
_SHOWN = 8  # names in a message
_BEGIN = 1000  # first bytes or letters that decide what kind of file it is
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Dot-bracket, WUSS, and RNAfold's constraints: with a bracket, or with a dot and no letter but x.
_STRUCTURE = re.compile(r"[.,:_~|x()\[\]{}<>A-Za-z+-]*[()\[\]{}<>|]|[.,:_~x-]*\.[.,:_~x-]*(\s|$)")
_NO_BRACKETS = frozenset(".,:_~x-")
# More of a sequence, in a line below a structure or beside it.
_SEQUENCE = re.compile(
    rf"\s*[{LETTERS}][{LETTERS}._~-]*(\s+[{LETTERS}0-9._~-]+)*\s*", re.IGNORECASE
)
# A word that is more of a sequence or of a structure.
_PIECE = re.compile(rf"[{LETTERS}]+|[.,:_~|()\[\]{{}}<>-]+", re.IGNORECASE)
# The energy that RNAfold, mfold, RNAstructure and Sfold write before the name in a header.
ENERGY = re.compile(
    r"^(ENERGY|dG)\s*[=:]\s+[-+]?[0-9.]\S*(\s+kcal/mol)?(\s+\[initially[^]]*\])?(\s+\.\.$)?\s*",
    re.IGNORECASE,
)
_ALIGNMENT = re.compile(r"# STOCKHOLM|CLUSTAL|.*(multiple sequence |\) )alignment")

# Files given by mistake, by their first bytes or line: what they are, how to make FASTA from FILE.
_WRITE = "with a line >name above each sequence"
_BIOPYTHON = (
    "Biopython makes FASTA from it: python -c \"from Bio import SeqIO; SeqIO.convert('FILE', "
    "'FORMAT', 'rna.fasta', 'fasta')\""
)
_FOREIGN_BYTES = {
    rb"PK\x03\x04.*(xl/|opendocument\.spreadsheet)|\xd0\xcf\x11\xe0": "a spreadsheet (or an old "
    f"Word document): save it as CSV, which predict and finetune read, or as text {_WRITE}",
    rb"PK\x03\x04.*(word/|opendocument\.text)|\{\\rtf": "a document of a word processor: save it "
    f"as plain text, {_WRITE}",
    rb"PK\x03\x04": "a zip archive: unpack it: unzip FILE",
    rb".{257}ustar": "a tar archive: unpack it: tar -xf FILE",
    rb"\x28\xb5\x2f\xfd": "a file compressed with zstd: unpack it: zstd -d FILE",
    rb"7z\xbc\xaf|Rar!|\x1f\x9d|\x5d\0\0": "a file of 7-Zip, RAR, compress (.Z) or lzma: unpack it",
    rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ\0": "a file that was compressed twice: unpack it",
    rb"%PDF": f"a PDF: copy the sequences into a text file, {_WRITE}",
    rb"BAM\x01": "a file of aligned reads (BAM): samtools fasta FILE > rna.fasta",
    rb"PAR1": "a Parquet file: give it a name that ends in .parquet",
}
_FOREIGN_LINES = {
    _ALIGNMENT.pattern: f"an alignment: write its rows as FASTA, without their gaps{OPTION}degap "
    "reads it as it is",
    r"@(HD|SQ|RG|PG)\t": "a file of aligned reads (SAM): samtools fasta FILE > rna.fasta",
    r"@": "a file of reads (FASTQ): awk 'NR % 4 == 1 {print \">\" substr($0, 2)} NR % 4 == 2' FILE "
    "> rna.fasta",
    r"LOCUS ": f"a GenBank record: {_BIOPYTHON.replace('FORMAT', 'genbank')}",
    r"ID   ": f"an EMBL record: {_BIOPYTHON.replace('FORMAT', 'embl')}",
    r"HEADER  |ATOM  |data_": "a 3D structure (PDB, mmCIF): the Protein Data Bank has its sequence "
    "in FASTA",
    r"\s*<(!DOCTYPE|html|\?xml)": "a web page, or XML: download the file itself",
    r"\s*[{\[]": f"a JSON file: write a text file {_WRITE}",
    r"(?i).*\bseq(uence)?\b.*[\t,;]|.*[\t,;].*\bseq(uence)?\b": "a table: predict and finetune read"
    " tables; if its first columns are names and sequences, awk -F '[\\t;,]' 'NR > 1 {print \">\" "
    '$1 "\\n" $2}\' FILE > rna.fasta makes FASTA',
}


def some(names: Collection[str]) -> str:
    """The first few names as text, with the number of those left out."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "''" for name in islice(names, _SHOWN)) + more


class InputError(ValueError):
    """The input cannot be computed; the message names the file and the record or line."""

    @classmethod
    def at(cls, name: FilePath, line: int, problem: str) -> InputError:
        """The error for a line of a file."""
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
    """Yield the records of a FASTA file, in order, each checked by the rules of this module.

    Args:
        path: a file, compressed or not, "-" for standard input, or an open file.
        unknown: "error" or "unk", what to do with characters that are not nucleotide codes.
        degap: whether to remove gaps (``-._~``), and to read Stockholm and Clustal as well.
        keep_letters: whether letters stay as they are; otherwise they become upper case, T to U.
        warn: called at the end with each warning about the whole file.

    Yields:
        Records with the lines of a sequence joined.

    Raises:
        InputError: the file is not FASTA, has no record, or has an invalid one.
        OSError: the file cannot be opened.
    """
    records = parse_fasta(path, degap, warn)
    return check_records(records, input_name(path), unknown, degap, keep_letters, warn)


def input_name(path: FilePath | IO[bytes]) -> str:
    """The name of an input in messages."""
    if not isinstance(path, (str, PathLike)):
        return "the input"
    return "standard input" if path == STANDARD_INPUT else fspath(path)


def to_rna(sequence: str) -> str:
    """Return a sequence in upper case and with U for T, of the same length."""
    return sequence.translate(_TO_RNA)


def write_fasta(file: IO[str], records: Iterable[FastaRecord]) -> None:
    """Write records, each sequence on one line; the inverse of `read_fasta`."""
    for record in records:
        file.write(f">{record.id} {record.description}".rstrip() + f"\n{record.sequence}\n")


# ---------------------------------------------------------------------------------------------
# Checks of records


def check_records(
    records: Iterable[FastaRecord],
    name: str,
    unknown: str = "error",
    degap: bool = False,
    keep_letters: bool = True,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[FastaRecord]:
    """Yield records of any origin, each checked as by `read_fasta`.

    Args:
        name: name of their source in messages.
        unknown, degap, keep_letters, warn: as for `read_fasta`.
    """
    allowed = _ALLOWED[unknown]
    # Hashes of ids, 64 bits: the chance that two of 40 million ids share one is 1 in 20,000.
    seen: set[int] = set()
    number = with_gaps = 0
    for number, record in enumerate(records, 1):
        sequence = record.sequence.translate(_NO_GAPS) if degap else record.sequence
        problem = _problem(record.id, sequence, allowed)
        if problem:
            raise InputError(f"{name}: record {number} ({record.id or 'no id'}): {problem}")
        seen.add(hash(record.id))
        if len(seen) < number:
            hint = ", for example with _ in place of blanks" if record.description else ""
            raise InputError(
                f"{name}: record {number}: an earlier record has the id {record.id!r} (the first "
                f"word of the header) too; results are filed by id: make the ids unique{hint}"
            )
        if unknown == "unk":
            with_gaps += "-" in sequence or "." in sequence
        if not keep_letters:
            sequence = to_rna(sequence)
        if sequence != record.sequence:
            record = FastaRecord(record.id, sequence, record.description)
        yield record
    if not number:
        raise InputError(f"{name}: it has no sequences")
    if with_gaps:
        warn(
            f"{name}: gaps in {with_gaps} of {number} sequences are read as <unk>, and positions "
            "count them, as in the input"
        )


def _problem(id: str, sequence: str, allowed: bytes) -> str | None:
    """Return what makes a record invalid, or None."""
    if not id:
        return "its header has no id"
    if not sequence:
        return "it is empty; every record needs a sequence"
    if sequence.startswith("#"):
        return "its sequence begins with #, as comments do"
    # Every character outside ASCII becomes "?". If "?" is allowed, the tokenizer reads it as <unk>.
    letters = sequence.encode("ascii", "replace")
    foreign = letters.translate(None, allowed)
    blank = None if sequence.isascii() else re.search(r"\s", sequence)
    if not foreign and blank is None:
        return None
    index = blank.start() if blank else next(i for i, x in enumerate(letters) if x not in allowed)
    character = sequence[index]
    what = f"{character!r} at position {index + 1} is not a nucleotide code"
    if character in "-.":
        return f"{what}, but a gap of an alignment: remove the gaps{OPTION}degap does it"
    if character.isspace() or character.isdigit() or character in "()[]{}<>|":
        return f"{what}: a sequence must have only letters"
    share = sum(map(str.isalpha, foreign.decode())) / len(letters)
    if share >= _PROTEIN_SHARE:
        return f"it looks like a protein: {100 * share:.0f} % are not nucleotide codes; {what}"
    return f"{what}{OPTION}unknown unk reads it as <unk>"


# ---------------------------------------------------------------------------------------------
# The parser


def parse_fasta(
    path: FilePath | IO[bytes],
    degap: bool = False,
    warn: Callable[[str], object] = warnings.warn,
) -> Iterator[FastaRecord]:
    """Yield the records of a file, for `check_records` to check; arguments as for `read_fasta`."""
    name, ids = input_name(path), []  # ids of sequences with a structure below
    for header, lines in read_bodies(path, degap):
        id, description = split_header(header)
        id = id or [*header.split(), ""][0]  # an energy without a name
        sequence = "".join(lines)
        if not sequence.isalpha():
            above, foreign = _above_structure(lines, GAPS if degap else "")
            if foreign:
                what = f"{foreign[:40]!r}, below a structure, has more of a sequence"
                way_out = "write the whole sequence above it, and each sequence below its own >name"
                raise InputError(f"{name}: {id}: {what}: {way_out}")
            if above:
                ids.append(id)
                sequence = above
        yield FastaRecord(id, sequence, description)
    if ids:
        what = f"the structures below {len(ids)} of the sequences are ignored"
        warn(f"{name}: {what}, the first below {ids[0]}")


def read_bodies(path: FilePath | IO[bytes], degap: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Yield the header of each record, without its >, and its lines that are not empty."""
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
            yield from _alignment_rows(chain([(number, line)], numbered), name)
        elif line.strip() and (not line.startswith("#") or _ALIGNMENT.match(line)):
            _refuse_foreign(_FOREIGN_LINES, line, name)
            raise InputError(
                f"{name}: not a FASTA file: line {number} must begin with '>', not {line[:20]!r}: "
                "write a line >name above each sequence"
            )
    if header is not None:
        yield header, lines


def _refuse_foreign(kinds: Mapping[Any, str], start: Any, name: str) -> None:
    """Raise InputError if a file begins like one of another kind."""
    plain = str(uncompressed(name))
    for pattern, kind in kinds.items():
        if re.match(pattern, start[:_BEGIN], re.DOTALL):
            what, _, way_out = kind.partition(": ")
            unpack = "unpack it, then " if plain != name and "FILE" in way_out else ""
            raise InputError(f"{name}: this is {what}: {unpack}{way_out.replace('FILE', plain)}")


def _above_structure(lines: list[str], gaps: str) -> tuple[str, str]:
    """The sequence of a record's lines if a structure of equal length is below it; otherwise "".

    A line of only gaps does not begin a structure.

    Returns:
        The sequence; and the first line from the structure on with more of a sequence, or "".
    """
    starts = (i for i, line in enumerate(lines) if _STRUCTURE.match(line) and line.strip(gaps))
    first = next(starts, 0)
    if not first:
        return "", ""
    above, structure, foreign = "".join(lines[:first]), "", ""
    for line in lines[first:]:
        word, *rest = line.split(None, 1)
        is_structure = len(structure) < len(above) or _STRUCTURE.match(word)
        if len(structure) < len(above):
            structure += word
        beside = "".join(rest) if is_structure else line
        if not foreign and _SEQUENCE.fullmatch(beside):
            foreign = line
    # If letters follow, a line without brackets is a piece of the sequence with gaps.
    is_piece = foreign and _NO_BRACKETS.issuperset(structure)
    return (above, foreign) if len(structure) == len(above) and not is_piece else ("", "")


def is_remark(text: str) -> bool:
    """Whether a text after a structure is empty or a remark with a number, such as an energy, and
    not more of the structure or of its sequence.

    >>> is_remark("( -5.40) p=0.9"), is_remark("CCGG 14"), is_remark(".... 14")
    (True, False, False)
    """
    words = re.sub(r"^\s*[(\[{]\s+", "", text).split()
    has_number = any(map(str.isdigit, text))
    return not words or (has_number and not any(map(_PIECE.fullmatch, words)))


def _alignment_rows(
    numbered: Iterable[tuple[int, str]], name: str
) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of Stockholm or Clustal with their gaps, joined over the file's blocks."""
    rows: dict[str, list[str]] = {}
    descriptions: dict[str, str] = {}
    is_open = False  # whether a Stockholm alignment has not ended
    for number, line in chain(numbered, [(0, "//")]):
        words = line.split()
        if line.startswith("# STOCKHOLM"):
            is_open = True
        elif words[:1] == ["#=GS"] and words[2:3] == ["DE"]:
            descriptions[words[1]] = " ".join(words[3:])
        elif line.startswith("//"):
            if is_open and not number:
                raise InputError(f"{name}: cut off: a Stockholm alignment must end with a line //")
            is_open, columns = False, 0
            for id, row in zip(rows, map("".join, rows.values()), strict=True):
                columns = columns or len(row)
                if len(row) != columns:
                    what = f"the row of {id} has {len(row)} columns, the first {columns}"
                    raise InputError(f"{name}: {what}")
                yield f"{id} {descriptions.get(id, '')}", [row]
            rows, descriptions = {}, {}
        elif words and line[0] not in "# \t" and not _ALIGNMENT.match(line):
            # Clustal may write a count of letters after each row.
            has_count = len(words) == 3 and words[2].isdecimal()
            if len(words) != 2 and not has_count:
                raise InputError.at(name, number, f"expected a name and its row; got {line[:40]!r}")
            rows.setdefault(words[0], []).append(words[1])


def split_header(text: str) -> tuple[str, str]:
    """Split a header into id, the first word, and description, the rest; in every format.

    An energy before the id, as RNAstructure and mfold write it, is left out.

    >>> split_header(" rna7  Bacillus subtilis, partial ")
    ('rna7', 'Bacillus subtilis, partial')
    >>> split_header("ENERGY = -5.4  rna1"), split_header("dG=-1.2 of a kind")
    (('rna1', ''), ('dG=-1.2', 'of a kind'))
    """
    id, description = [*ENERGY.sub("", text.strip()).split(None, 1), "", ""][:2]
    return id, description


# ---------------------------------------------------------------------------------------------
# Lines of text


def is_stream(path: FilePath) -> bool:
    """Whether a path can be read only once: standard input, or a pipe such as <(zcat a.fa.gz)."""
    return path == STANDARD_INPUT or Path(path).is_fifo() or Path(path).is_char_device()


def uncompressed(path: FilePath) -> Path:
    """The path without the extension of a compression."""
    path = Path(path)
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path


def read_lines(path: FilePath | IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text without its end; `path` as in `read_fasta`.

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
                yield number, line.replace("\ufeff", "")  # Joined files have such marks inside.
        except UnicodeDecodeError as error:
            # `number` lines were read; the bad byte is in the block that is being decoded.
            before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            line_number = number + 1 + before.count(b"\n")
            problem = "text that is not UTF-8: save the file as UTF-8 (Excel calls it CSV UTF-8)"
            raise InputError.at(name, line_number, problem) from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{name}: damaged or cut off: {error}") from error


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of an open file in blocks, decompressed if it is compressed.

    Python's own readers can ignore, without an error, what follows the first stream.
    """
    blocks: Iterator[bytes] = iter(partial(getattr(file, "read1", file.read), _BLOCK), b"")
    start = next(blocks, b"")
    blocks = chain([start], blocks)
    new = next((new for magic, new in _COMPRESSED.values() if start.startswith(magic)), None)
    if new is None:
        yield from blocks
        return
    stream, in_stream = new(), False
    for block in blocks:
        # Zeros between streams are padding.
        while block := block if in_stream else block.lstrip(b"\0"):
            yield stream.decompress(block)
            in_stream, block = not stream.eof, stream.unused_data
            if not in_stream:
                stream = new()
    if in_stream:
        raise EOFError("it ends within a compressed stream")


def _lines(start: bytes, blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a text given in blocks, with line ends of any kind."""
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decode = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")()
    text = io.IncrementalNewlineDecoder(decode, translate=True)
    line: list[str] = []
    for block in chain([start], blocks, [b""]):
        piece, *more_pieces = text.decode(block, final=not block).split("\n")
        line.append(piece)
        for piece in more_pieces:
            yield "".join(line)
            line = [piece]
    if any(line):
        yield "".join(line)
