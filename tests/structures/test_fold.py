"""Structures from sequences: the authors' values, batches, problems, options and output files."""

import os

import numpy as np
import pytest
import torch

import ernie_rna.structures.pairing_maps as maps_module
from ernie_rna.options import OptionError
from ernie_rna.run.attention_scores import attention_scores
from ernie_rna.run.loading import load_model
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.tables import read_rows
from ernie_rna.structures.confidence import base_reliabilities
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure
from tests.structures.conftest import NAMES, random_rnas

MODES = {"sequence": "zero_shot", "zero": "zero_shot_zero_prior"}
# In a batch and alone, sums are rounded differently; 3e-7 is the largest difference measured.
TOLERANCE = 2e-6
# The authors' contacts were computed on a CPU with AVX-512. AVX2 adds in another order, and the
# optimisation enlarges the difference to up to 7.4e-6.
AUTHORS_TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder(golden_folder):
    return load_model(golden_folder, device="cpu")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_golden_structures_in_any_batch(encoder, check_golden, rnas, mode, batch_tokens):
    options = {"min_loop": 0, "min_stem": 1, "matrix": "contacts", "batch_tokens": batch_tokens}
    folds = fold(rnas, encoder, pairing_scores=mode, **options)
    check_golden(folds, MODES[mode], AUTHORS_TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_equals_each_sequence_alone(encoder, mode):
    rnas = random_rnas(1, 2, 30, 61, 62, 64, 120, 63)
    options = {"pairing_scores": mode, "min_stem": 1, "matrix": "contacts"}
    together = list(fold(rnas, encoder, **options))
    assert any(one.structure.pairs for one in together)
    for one in together:
        id = one.structure.id
        (alone,) = fold({id: rnas[id]}, encoder, **options)
        assert alone.structure == one.structure
        np.testing.assert_allclose(one.matrix, alone.matrix, rtol=0, atol=TOLERANCE)


def test_short_hairpins_and_single_pairs_are_left_out_by_default(encoder):
    """The golden model's weights are random, so without these rules it also pairs neighbours."""

    def shortest_span_and_single_pairs(**options):
        spans, single = [99], []
        for one in fold(random_rnas(60, 90), encoder, **options):
            pairs = {*one.structure.pairs}
            spans += [j - i for i, j in pairs]
            single += [(i, j) for i, j in pairs if not pairs & {(i + 1, j - 1), (i - 1, j + 1)}]
        return min(spans), single

    shortest, single = shortest_span_and_single_pairs(min_loop=0, min_stem=1)
    assert shortest < 4
    assert single
    assert not shortest_span_and_single_pairs(min_loop=0)[1]
    assert shortest_span_and_single_pairs(min_stem=1)[0] > 3
    assert shortest_span_and_single_pairs(min_loop=12, min_stem=1)[0] > 12


def test_a_folder_and_bfloat16(golden_folder, rnas):
    exact, rough = (
        next(fold([rnas["trna_arg"]], str(golden_folder), dtype=dtype, matrix="scores"))
        for dtype in (None, "bfloat16")
    )
    assert rough.matrix.dtype == np.float32
    assert 0 < np.abs(exact.matrix - rough.matrix).max() < 1


def test_letters_become_those_of_rna_unless_kept_and_n_does_not_pair(encoder, rnas):
    upper = rnas["trna_arg"]
    lower = upper.replace("U", "T").lower()
    with_n = upper[:11] + "N" + upper[12:]
    from_upper, from_lower, from_n = fold([upper, lower, with_n], encoder)
    pairs = from_upper.structure.pairs
    assert from_upper.matrix is from_upper.problem is None
    assert (from_lower.structure.sequence, from_lower.structure.pairs) == (upper, pairs)
    (kept,) = fold([lower], encoder, keep_letters=True)
    assert (kept.structure.sequence, kept.structure.pairs) == (lower, pairs)
    assert 11 not in {base for pair in from_n.structure.pairs for base in pair}


@pytest.fixture
def scale_r60(monkeypatch):
    """A function that multiplies the scores of the sequence of 60 nt, so that folding it fails."""

    def scale(factor):
        def scaled(model, input_ids, mask, **options):
            scores = attention_scores(model, input_ids, mask, **options)
            is_r60 = (mask.sum(1) == 62)[:, None, None, None]
            return torch.where(is_r60, scores.abs() * factor, scores)

        monkeypatch.setattr(maps_module, "attention_scores", scaled)

    return scale


@pytest.mark.parametrize(
    ("factor", "problem"), [(1e6, "the optimisation diverged"), (float("nan"), "not finite")]
)
def test_a_sequence_that_fails_leaves_the_others_alone(encoder, scale_r60, factor, problem):
    rnas = random_rnas(59, 60, 61)
    expected = list(fold(rnas, encoder, matrix="contacts"))
    scale_r60(factor)
    first, second, third = fold(rnas, encoder, matrix="contacts")
    assert problem in second.problem
    assert second.structure == Structure("r60", rnas["r60"], [])
    assert second.matrix is None
    for one, before in ((first, expected[0]), (third, expected[2])):
        assert one.problem is None
        assert one.structure == before.structure
        np.testing.assert_allclose(one.matrix, before.matrix, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 5}, "layers 0 .* to 4.* no layer 5"),
        ({"head": 12}, "heads 0 to 11; there is no head 12"),
        ({"min_stem": 0}, "min_stem must be a whole number of at least 1; got 0"),
        ({"matrix": "map"}, "matrix must be contacts, scores or probabilities; got 'map'"),
        ({"long": "window", "overlap": 999}, "overlap must be below 254, .*; got 999"),
        ({"as_authors": True, "min_stem": 2}, "sets min_stem to 1; got min_stem 2: leave one"),
        ({"output": "o.dbn", "matrix": "scores"}, "matrix scores needs an .npz output"),
    ],
)
def test_invalid_options_are_refused_at_once(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        fold(["GGGAAACCC"], encoder, **options)


def test_as_authors_sets_the_options_of_the_authors(encoder, rnas):
    sequences = {name: rnas[name] for name in NAMES}
    expected = list(fold(sequences, encoder, pairing_scores="zero", min_loop=0, min_stem=1))
    assert list(fold(sequences, encoder, as_authors=True)) == expected
    assert list(fold(sequences, encoder, as_authors=True, min_loop=0)) == expected
    with pytest.raises(OptionError, match="as_authors sets pairing_scores to zero"):
        fold(sequences, encoder, as_authors=True, pairing_scores="sequence")


PROBING = {f"r{n}": [0.5] * n for n in (59, 60, 61, 30)}
RECORDS = [FastaRecord(id, text, "of a kind") for id, text in random_rnas(59, 60, 61, 30).items()]


def test_files_hold_the_results_without_problems(encoder, scale_r60, tmp_path):
    scale_r60(1e6)
    files = [tmp_path / name for name in ("o.dbn", "o.npz", "pairs.tsv", "bases.tsv")]
    options = {"matrix": "probabilities", "min_stem": 1}
    tables = {"pairs": files[2], "bases": files[3]}
    summary = fold(RECORDS, encoder, files[:2], **tables, **options, progress=False)
    (problem,) = summary.problems
    assert problem.startswith("r60 has no structure: the optimisation diverged")
    assert summary.files == files
    folds = [one for one in fold(RECORDS, encoder, **options) if one.problem is None]
    assert any(one.structure.pairs for one in folds)
    assert read_structures(files[0]) == [one.structure for one in folds]
    with np.load(files[1]) as matrices:
        assert list(matrices) == [one.id for one in folds] == ["r59", "r61", "r30"]
        for one in folds:
            np.testing.assert_array_equal(matrices[one.id], one.matrix)
            assert matrices[one.id].dtype == one.matrix.dtype == np.float32
    assert [row["probability"] for _, row in read_rows(tables["pairs"])] == [
        f"{one.matrix[pair]:.4f}" for one in folds for pair in one.structure.pairs
    ]
    reliabilities = [base_reliabilities(one.matrix, one.structure) for one in folds]
    assert [row["reliability"] for _, row in read_rows(tables["bases"])] == [
        f"{reliability:.4f}" for reliability in np.concatenate(reliabilities)
    ]


def test_a_killed_run_is_resumed(encoder, monkeypatch, killed_after, tmp_path):
    monkeypatch.setattr("ernie_rna.sequences.chunks.CHUNK_RECORDS", 1)
    options = {"progress": False, "min_stem": 1}
    outputs = [tmp_path / name for name in ("o.tsv", "o.npz")]
    fold(RECORDS, encoder, outputs, **options)
    expected = [output.read_bytes() for output in outputs]
    for output in outputs:
        output.unlink()
    with killed_after(2):
        fold(RECORDS, encoder, outputs, **options)
    assert os.listdir(tmp_path) == ["o.tsv.partial"]
    changes = {"min_stem": 2, "min_loop": 0, "reactivities": PROBING, "matrix": "scores"}
    for name, value in changes.items():
        with pytest.raises(OutputError, match=f"differs: settings.{name}"):
            fold(RECORDS, encoder, outputs, **{**options, name: value})
    (tmp_path / ".o.npz.0123abcd.tmp").mkdir()  # as a run that is killed while writing leaves it
    assert fold(RECORDS, encoder, outputs, **options).resumed
    assert sorted(os.listdir(tmp_path)) == ["o.npz", "o.tsv"]
    assert [output.read_bytes() for output in outputs] == expected
