"""Tables as programs and spreadsheets write them, and those that are refused."""

import gzip
import os

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.tables import Form, find_form, parse_decimal, read_rows

ROWS = [(2, {"id": "a", "value": "4.5"}), (3, {"id": "b", "value": "x y"})]
PLAIN = b"id,value\na,4.5\nb,x y\n"


@pytest.fixture
def read(tmp_path):
    def read(content, *arguments, name="in.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_rows(tmp_path / name, *arguments))

    return read


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PLAIN, id="commas"),
        pytest.param(PLAIN.replace(b",", b"\t"), id="tabs"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n"), id="Windows"),
        pytest.param(b'"id","value"\n"a",4.5\nb,"x y"\n', id="quoted"),
        pytest.param(b" id , value\na,4.5 \nb, x y\n", id="blanks"),
        pytest.param(b'"id", "value"\na,4.5\nb, "x y"\n', id="blanks before quotation marks"),
        pytest.param(PLAIN + b"\n,\n ,\n", id="empty rows at the end"),
        pytest.param(b",id,value,\n0,a,4.5,\n1,b,x y,\n", id="columns without a name"),
        pytest.param(PLAIN.replace(b",", b"|"), id="bars"),
        pytest.param(b'id   value\na 4.5\n b  "x y" \n', id="blanks between the cells"),
        pytest.param(PLAIN.replace(b",", b"\t").decode().encode("utf-16"), id="UTF-16 of Excel"),
        pytest.param(gzip.compress(PLAIN), id="gzip"),
    ],
)
def test_variants_of_tables(read, content):
    assert read(content, ["id"]) == ROWS


@pytest.mark.parametrize(
    ("cell", "comma"),
    [("4,5", True), ('"0 -4,5e1"', True), ("4.5", False), ("1,2,3", False), ("a 4,5-b", False)],
)
def test_semicolons_are_read_with_a_warning(tmp_path, read, cell, comma):
    decimals = ", .* decimal point" if comma else ""
    with pytest.warns(UserWarning, match=f"in.csv: semicolons separate its columns{decimals}$"):
        assert [row["b"] for _, row in read(f"id;b\na;\nb;{cell}\n")] == ["", cell.strip('"')]
    assert find_form(tmp_path / "in.csv") == Form(";", comma)
    assert read("a,b;c\n1,2;3", (), Form(",")) == [(2, {"a": "1", "b;c": "2;3"})]


@pytest.mark.parametrize(
    "content",
    ['"id"\t"value"\n"1"\t"a"\t4.5\n"2"\t"b"\t"x y"\n', 'id value\n"1" "a" 4.5\n"2" "b" "x y"\n'],
)
def test_row_names_written_by_r_are_ignored(read, content):
    with pytest.warns(UserWarning, match=r"in.csv: its rows have one cell more .* R wrote"):
        assert read(content) == ROWS
    with pytest.raises(InputError, match="line 2: 3 cells, but the header has 2"):
        read("id,value\na,4.5,\n")


def test_cells_may_contain_separators_quotation_marks_and_line_ends(read):
    long = "." * 200_000
    assert read(f"id\tnote\na\t{long}\n") == [(2, {"id": "a", "note": long})]
    assert read("sep=:\nid:value;,\na:4.5\n") == [(3, {"id": "a", "value;,": "4.5"})]
    rows = read('id\tnote\na\t"1\t2"\nb\t"say ""so""\nagain"\n\nc\t5\' or 3"\n')
    assert rows == [
        (2, {"id": "a", "note": "1\t2"}),
        (3, {"id": "b", "note": 'say "so"\nagain'}),
        (6, {"id": "c", "note": "5' or 3\""}),
    ]


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("id,a;b,c", ","),
        ("id|a,b|c", "|"),
        ("a, b, c\td", "\t"),
        ('"a;b;c;d",e', ","),
        ("alone", ","),
        ("two words\nACGU", ","),
        ("two words\nACGU 5", " "),
        ("\n\nid|b", "|"),
        ("sep=:\nid;a:b", ":"),
        ("", ","),
    ],
)
def test_the_first_line_determines_the_separator(tmp_path, header, separator):
    (tmp_path / "in.csv").write_text(header)
    assert find_form(tmp_path / "in.csv") == (separator, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "in.csv: it is empty"),
        (b"\n \n", "in.csv: it is empty"),
        (b"\nid,id\n", "in.csv: line 2: two columns are called 'id'"),
        (b"ID,value\n", "in.csv: line 1: no column id; it has ID, value"),
        (b"id,value\na,1\n\nb\n", "in.csv: line 4: 1 cells, but the header has 2"),
        (b"id,value\na,1\nb,1,2\n", "in.csv: line 3: 3 cells"),
        (b'id,value\na,"1\nb,2\nc,3\n', "in.csv: line 2: a quotation mark without"),
        (b'id,value\na,"1"2\n', "in.csv: line 2: a quotation mark without"),
        (b"id,value\na,\xff\n", "in.csv: line 2: text that is not UTF-8"),
    ],
)
def test_invalid_tables_are_refused(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content, ["id"])


def test_a_row_is_read_before_an_invalid_one_is_reached(tmp_path):
    (tmp_path / "in.tsv").write_text("id\na\n\nb\tc\n")
    rows = read_rows(tmp_path / "in.tsv")
    assert next(rows) == (2, {"id": "a"})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of Unix")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "in.csv")
    with pytest.raises(InputError, match=r"in.csv: a table cannot be read from a pipe: write"):
        next(read_rows(tmp_path / "in.csv"))


def test_decimal_numbers():
    assert [parse_decimal(text, comma=False) for text in ("-2e3", " 7 ")] == [-2000, 7]
    assert [parse_decimal(text, comma=True) for text in ("4,5", "-0,5e1")] == [4.5, -5]


@pytest.mark.parametrize("text", ["1.234", "1.234,5", "1,2,3", "1_0"])
def test_invalid_numbers_with_a_decimal_comma(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a number"):
        parse_decimal(text, comma=True)


@pytest.mark.parametrize("text", ["4,5", ""])
def test_invalid_numbers_with_a_decimal_point(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a number"):
        parse_decimal(text, comma=False)
