"""Constraints on structures: the pairs they force or forbid, their files, and errors."""

import numpy as np
import pytest

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.structures.constraints import Constraints, read_constrained
from ernie_rna.structures.fold import FoldTask, fold
from ernie_rna.structures.pairing_maps import NOT_SEEN

RNA = {"one": "GGGAAAACCCAGCGCAAAAGCGC", "two": "GGGGAAAACCCC"}
LENGTH = len(RNA["one"])


def folded(folding_model, text, **options):
    """Fold sequence one with a constraint, and check that sequence two is not affected."""
    text = text.ljust(LENGTH, ".")
    one, two = fold(RNA, folding_model, constraints={"one": text}, min_stem=1, **options)
    (plain,) = fold({"two": RNA["two"]}, folding_model, min_stem=1, **options)
    assert two.structure == plain.structure
    return one


def test_pairs_in_brackets_are_predicted_and_certain(folding_model):
    one = folded(folding_model, "((......))", matrix="probabilities")
    assert {(0, 9), (1, 8)} <= set(one.structure.pairs)
    assert one.matrix[0, 9] == one.matrix[8, 1] == 1
    assert one.matrix[0].sum() == one.matrix[:, 9].sum() == 1
    single_pair = {"one": "(........)".ljust(LENGTH, ".")}
    one = next(fold(RNA, folding_model, constraints=single_pair, min_stem=2))
    assert (0, 9) in one.structure.pairs


def test_bases_that_must_not_pair(folding_model):
    one = folded(folding_model, "xxx.......xxx", matrix="scores")
    forbidden = [0, 1, 2, 10, 11, 12]
    assert (one.matrix[forbidden] == NOT_SEEN).all()
    assert (one.matrix[:, forbidden] == NOT_SEEN).all()
    assert not {base for pair in one.structure.pairs for base in pair} & set(forbidden)


@pytest.mark.parametrize("symbol", ["|", "<", ">"])
def test_a_base_that_must_pair_on_either_or_one_side(folding_model, symbol):
    base = 11
    one = folded(folding_model, "." * base + symbol, matrix="scores")
    (partner,) = [i + j - base for i, j in one.structure.pairs if base in (i, j)]
    np.testing.assert_array_equal(one.matrix, one.matrix.T)
    if symbol == "<":
        assert partner > base
        assert (one.matrix[base, :base] == NOT_SEEN).all()
    if symbol == ">":
        assert partner < base
        assert (one.matrix[base, base:] == NOT_SEEN).all()


def test_a_base_without_a_possible_partner_stays_unpaired(folding_model):
    (one,) = fold({"a": "AAAAAAAA"}, folding_model, constraints={"a": "|......."})
    assert one.structure.pairs == []
    assert one.problem is None


def test_dots_change_nothing(folding_model):
    plain, dotted = (
        next(fold(RNA, folding_model, matrix="probabilities", constraints=constraints))
        for constraints in (None, {"one": "." * LENGTH})
    )
    assert plain.structure == dotted.structure
    np.testing.assert_allclose(plain.matrix, dotted.matrix, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(..)", "it has 4 characters, but the sequence has 12 nt"),
        ("...........*", r"'\*' is not one of"),
        ("((........).", "'\\(' at index 0 .* is never closed"),
        ("(...).......", "bases 1 and 5 are GA; only A-U, G-C and G-U pair"),
        (".(.)........", "bases 2 and 4 are GG"),
    ],
)
def test_invalid_constraints_are_refused_before_the_model_is_loaded(monkeypatch, text, message):
    monkeypatch.setattr(FoldTask, "load", None)
    with pytest.raises(InputError, match=f"the constraint of two: {message}"):
        fold({"two": RNA["two"]}, "no-such-model", constraints={"two": text})
    for constraints in ("....", {"two": None}):
        with pytest.raises(InputError, match="constraints must map ids to texts; got"):
            fold(RNA, "mini", constraints=constraints)
    with pytest.raises(InputError, match="there is a constraint for tow, but no such sequence"):
        fold(RNA, "no-such-model", constraints={"tow": text})


def test_a_hairpin_that_is_too_short():
    record = FastaRecord("a", "GAAC")
    with pytest.raises(InputError, match="have 2 bases between them; --min-loop is 3"):
        list(Constraints({"a": "(..)"}, 3).check([record]))
    assert list(Constraints({"a": "(..)"}, 2).check([record])) == [record]


def test_a_file_with_constraints_below_some_sequences(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(
        "# remark\n>a an RNA\nGGGG\nAAAA\n((..\n..))\n>b\nxxxx\nxx\n\n>c\nACGU\n.... (0.0)\n"
        ">x\nGG\nCC\nxx\n.x\n>e\nACGU\n.[e]\n>f\nACGU\n(..\n"
    )
    records, texts = read_constrained(path, "error")
    sequences = {"b": "xxxxxx", "c": "ACGU", "x": "GGCC", "e": "ACGU", "f": "ACGU"}
    others = [FastaRecord(*item) for item in sequences.items()]
    assert records == [FastaRecord("a", "GGGGAAAA", "an RNA"), *others]
    valid = {"a": "((....))", "c": "....", "x": "xx.x"}
    assert texts == {**valid, "e": ".[e]", "f": "(.."}  # `Constraints` refuses the last two.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GGGG\n((..\n", "not a FASTA file: line 1 must begin with '>', not 'GGGG'"),
        (">a\nGG7G\n....\n", "'7' at position 3 is not a nucleotide code"),
        (">a\nACGU\nAC4\n", "'4' at position 7 is not a nucleotide code"),
        (">a\nGG CC\n..\n", "' ' at position 3 is not a nucleotide code"),
        (">b\nGGCC\n(..) 1 .\n", r"b: a blank after position 4 of '\(..\) 1 .'"),
        (">b\nxxxx\nxxxx\n", "b: its x may be bases or a constraint"),
        (">a\nGG\nCC\n<<\n>>.\n", "'>.' after > is not a header"),
    ],
)
def test_invalid_files_with_constraints(tmp_path, text, message):
    path = tmp_path / "in.fasta"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_constrained(path, "error")


@pytest.mark.parametrize("line", ["xx,,", ",,,,", "----", "xx-x"])
def test_constraints_are_not_read_as_unknown_letters(tmp_path, line):
    path = tmp_path / "in.fasta"
    path.write_text(f">a\nACGU\n{line}\n>b\nAC-U\nAC*\n")
    records, texts = read_constrained(path, "unk")
    assert [record.sequence for record in records] == ["ACGU", "AC-UAC*"]
    with pytest.raises(InputError, match=r"constraint of a: '[,-]' is not one of"):
        list(Constraints(texts, 3).check(records))


def test_the_digest_depends_on_ids_and_constraints():
    digests = {Constraints(texts, 3).digest for texts in ({"a": "."}, {"a": "x"}, {"b": "."})}
    assert len(digests) == 3


def test_without_pseudoknots_no_pair_crosses_one_in_brackets(folding_model, monkeypatch):
    name = "ernie_rna.model.structures_ernie_rna.predict_pairs"
    crossing, beside, forced = [(0, 12), (1, 11)], (16, 22), (2, 14)
    monkeypatch.setattr(name, lambda *_, **__: [*crossing, beside])
    constraints = {"one": "..(...........)".ljust(LENGTH, ".")}
    rna = {"one": RNA["one"]}
    (plain,) = fold(rna, folding_model, constraints=constraints, pseudoknots=False)
    assert plain.structure.pairs == [forced, beside]
    (knotted,) = fold(rna, folding_model, constraints=constraints)
    assert knotted.structure.pairs == [*crossing, forced, beside]
