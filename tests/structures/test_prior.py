"""The ensemble of an energy model beside a head's logits: formula, sources and neighbours."""

import sys

import numpy as np
import pytest

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure
from ernie_rna.options import OptionError
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.structures.constraints import Constraints
from ernie_rna.structures.fold import FoldTask, fold
from ernie_rna.structures.formats.probabilities import read_probabilities
from ernie_rna.structures.pairing_maps import NOT_SEEN
from ernie_rna.structures.prior import Prior
from ernie_rna.structures.reactivities import Probing
from tests.conftest import lively
from tests.structures.conftest import needs_vienna

RNAS = {"hairpin": "GGGGAAAACCCC", "lower": "ggcatgaaaatgcc", "n": "GGNRAAAAYCCC", "g": "G"}
HAIRPIN = {"hairpin": RNAS["hairpin"]}
RECORD = FastaRecord("hairpin", RNAS["hairpin"])
WEIGHT, OFFSET, SLOPE, LINE = 0.4, 0.75, 0.5, (0.6, 0.3, -0.2)


@pytest.fixture
def config(config):
    fitted = {"pair_prior": [WEIGHT, OFFSET], "pair_prior_calibration": list(LINE)}
    sizes = {"pair_blocks": 1, "pair_calibration": [SLOPE, 1.0], "max_position_embeddings": 62}
    return ErnieRnaConfig(**{**config.to_dict(), **sizes, **fitted})


@pytest.fixture
def head(config):
    return lively(ErnieRnaForSecondaryStructure(config)).eval()


def matrices(model, what="scores", rnas=RNAS, **options):
    return {one.id: one.matrix for one in fold(rnas, model, matrix=what, **options)}


def half(sequence):
    """Each pair with a probability of a half, others with none."""
    return np.full((len(sequence), len(sequence)), 0.5)


# ---------------------------------------------------------------------------------------------
# The formula


def ensemble(sequence):
    """The probabilities of ViennaRNA, by its simplest call."""
    import RNA

    compound = RNA.fold_compound(sequence)
    compound.pf()
    upper = np.array(compound.bpp())[1:, 1:]
    return upper + upper.T


@needs_vienna
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_logits_are_shifted_by_the_formula(head, batch_tokens):
    plain = matrices(head)
    for id, found in matrices(head, prior="vienna", batch_tokens=batch_tokens).items():
        read = RNAS[id].upper().replace("T", "U").replace("R", "N").replace("Y", "N")
        p = ensemble(read).clip(0.001, 0.999)
        expected = plain[id] + WEIGHT * np.log(p / (1 - p)) + OFFSET
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_probabilities_are_by_the_line_over_both(head):
    logits = matrices(head)
    for id, found in matrices(head, "probabilities", prior=lambda s: 0.3 * half(s) / 0.5).items():
        own = SLOPE * logits[id] + 1.0
        expected = 1 / (1 + np.exp(-(LINE[0] * own + LINE[1] * np.log(0.3 / 0.7) + LINE[2])))
        mine = found > 0
        np.testing.assert_allclose(found[mine], expected[mine], atol=1e-6)
    head.config.pair_prior_calibration = None
    shifted = matrices(head, prior=half)
    for id, found in matrices(head, "probabilities", prior=half).items():
        mine = found > 0
        expected = 1 / (1 + np.exp(-(SLOPE * shifted[id] + 1.0)))
        np.testing.assert_allclose(found[mine], expected[mine], atol=1e-6)


# ---------------------------------------------------------------------------------------------
# What stands beside it


@needs_vienna
def test_vienna_is_given_reactivities_and_constraints():
    def log_odds(text=None, reactivities=None):
        constraints = Constraints({"hairpin": text}, 3) if text else None
        probing = Probing({"hairpin": reactivities}) if reactivities else None
        return Prior("vienna", probing, constraints).log_odds(RECORD)

    plain, nan = log_odds(), float("nan")
    assert log_odds(reactivities=[3.0] * 4 + [nan] * 8)[1, 10] < plain[1, 10] - 1
    np.testing.assert_array_equal(log_odds(reactivities=[nan] * 12), plain)
    found = log_odds("xx..........")
    assert found[0].max() == found[1].max() == found.min()
    assert plain[0].max() > 0
    # That a base must pair, where it cannot, leaves the ensemble whole.
    assert np.isfinite(log_odds("....|.......")).all()


@needs_vienna
def test_reactivities_prior_and_constraints_add_up(head):
    how = {"reactivities": {"hairpin": [0.5] * 12}}
    probed = matrices(head, rnas=HAIRPIN, **how)["hairpin"]
    v = Prior("vienna", Probing(how["reactivities"])).log_odds(RECORD)
    how["prior"] = "vienna"
    both = matrices(head, rnas=HAIRPIN, **how)["hairpin"]
    np.testing.assert_allclose(both, probed + WEIGHT * v + OFFSET, atol=2e-4)
    how["constraints"] = {"hairpin": "x" + "." * 11}
    (found,) = fold(HAIRPIN, head, matrix="scores", **how)
    assert (found.matrix[0] == NOT_SEEN).all()
    assert 0 not in {base for pair in found.structure.pairs for base in pair}


def test_what_no_window_sees_stays_apart(head):
    long = {"long": "GGCAU" * 24}
    found = matrices(head, rnas=long, prior=half, long="window", overlap=30)["long"]
    plain = matrices(head, rnas=long, long="window", overlap=30)["long"]
    apart = plain == NOT_SEEN
    assert apart.any()
    assert (found[apart] < NOT_SEEN / 2).all()
    np.testing.assert_allclose(found[~apart], plain[~apart] + OFFSET, atol=1e-4)


def test_without_vienna_the_extra_is_named(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "RNA", None)
    with pytest.raises(ImportError, match=r'--prior vienna.*pip install "ernie-rna\[vienna\]"'):
        fold(RNAS, head, prior="vienna")


def test_a_head_without_weights_and_scores_without_a_head(head):
    with pytest.raises(OptionError, match="prior must be vienna, a file, a folder or a function"):
        fold(RNAS, head, prior=3)
    with pytest.raises(ValueError, match="--prior needs the logits of a structure head"):
        list(fold(RNAS, head.ernie_rna, prior=half))
    head.config.pair_prior = None
    with pytest.raises(ValueError, match=r"pair_prior in config.json: scripts/calibrate_pairs.py"):
        list(fold(RNAS, head, prior=half))


def with_value(value):
    """Returns `half`, but with a value for bases 2 and 5, in this order."""
    matrix = half(RNAS["hairpin"])
    matrix[1, 4] = value
    return matrix


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (half("ACGU"), r"hairpin has 12 nt, but its prior has the shape \(4, 4\)"),
        (with_value(2), "bases 2 and 5 of hairpin is 2, .* from 0 to 1"),
        (with_value(-1), "bases 2 and 5 of hairpin is -1, "),
        (with_value(np.nan), "bases 2 and 5 of hairpin is nan, "),
        (with_value(0.3), "is 0.3, in the other order 0.5; .* the same in both orders"),
        ("x", "hairpin: the values of its prior are not numbers: .* 'x'"),
        (1j * with_value(0), "hairpin: the values of its prior are not numbers: they are complex"),
    ],
)
def test_a_function_that_gives_no_probabilities(head, made, message):
    with pytest.raises(InputError, match=message):
        list(fold(HAIRPIN, head, prior=lambda sequence: made))


def test_the_prior_is_part_of_what_a_run_depends_on(head, tmp_path, killed_after):
    with killed_after(0):
        fold(RNAS, head, tmp_path / "o.dbn", progress=False)
    for changed in ({"prior": half}, {"constraints": {"g": "x"}}, {"pseudoknots": False}):
        with pytest.raises(OutputError, match=f"differs: settings.{next(iter(changed))}"):
            fold(RNAS, head, tmp_path / "o.dbn", progress=False, **changed)


# ---------------------------------------------------------------------------------------------
# Files


LINEAR = "1 12 0.9\n2 11 8.0e-01\n\n"
POSTERIORS = "1 G 12:0.9\n2 G 11:0.8\n3 G\n12 C\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hairpin.bpp", LINEAR),
        ("hairpin.txt", f"# of a program\n{LINEAR}"),
        ("hairpin.posteriors", POSTERIORS),
        ("hairpin.posteriors", f"{POSTERIORS.rstrip()} 1:0.9\n"),
        ("all.bpp", f">other\n1 4 0.5\n>hairpin a description\n{LINEAR}"),
    ],
)
def test_files_of_other_programs(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    p = np.full((12, 12), 0.001)
    p[0, 11] = p[11, 0] = 0.9
    p[1, 10] = p[10, 1] = 0.8
    for path in (tmp_path / name, tmp_path):
        found = Prior(path).log_odds(RECORD)
        np.testing.assert_allclose(found, np.log(p / (1 - p)), atol=1e-5)


def test_matrices_that_fold_wrote(head, tmp_path):
    fold(RNAS, head, tmp_path / "p.npz", matrix="probabilities", progress=False)
    found = matrices(head, prior=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as written:
        for id, text in RNAS.items():
            expected = matrices(head, rnas={id: text}, prior=lambda _, m=written[id]: m)
            np.testing.assert_allclose(found[id], expected[id], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.bpp", "1 2\n", "x.bpp: line 1: expected 'i j probability' or"),
        ("x.bpp", "1 2 0.5\n1 two 0.5\n", "x.bpp: line 2: expected"),
        ("x.bpp", "0 2 0.5\n", "positions must be from 1 to 999999, probabilities from 0 to 1"),
        ("x.bpp", "1 2 1.5\n", "probabilities from 0 to 1"),
        ("x.bpp", "1 2 nan\n", "probabilities from 0 to 1"),
        ("x.bpp", f"1 {10**30} 0.5\n", "positions must be from 1 to 999999"),
        ("x.npz", "no zip", "x.npz: damaged, or not an .npz file of matrices"),
        ("x.bpp", ">a\n1 2 0.5\n>a\n", "line 3: a occurs twice"),
        ("x.bpp", "", "x.bpp: no probabilities of pairs for x; write a line '1 2 0'"),
        ("x.bpp", "1 G\n2 A\n", "x.bpp: no probabilities of pairs for x"),
        ("x.bpp", ">a\n1 2 0.5\n>b\n>c\n1 2 0\n", "no probabilities of pairs for b;"),
        ("x.bpp", ">\n1 2 0.5\n", "line 1: an id is empty"),
        ("x.bpp", "1 12 0.9\n1 12 0.001\n", "line 2: .* 1 12 of x has .* 0.9 and 0.001"),
        ("x.bpp", "1 G 12:0.9\n12 C 1:0.1\n", "line 2: .* 12 1 of x has .* 0.9 and 0.1"),
        ("x.bpp", "1 1 0.9\n", "line 1: the pair 1 1 of x is one base"),
        ("x.ps", "", "--prior must be vienna, or a file with the extension .bpp, .txt"),
        ("x.bpp", "1 12:0.9 11:0.1\n", "line 1: expected 'i j probability' or"),
        ("x.bpp", "1:2\n", "line 1: expected 'i j probability' or"),
        ("x.bpp", "x G\n", "line 1: expected 'i j probability' or"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_probabilities(tmp_path / name)


def test_what_does_not_fit_is_told_before_the_model_is_loaded(head, tmp_path, monkeypatch):
    monkeypatch.setattr(FoldTask, "load", None)
    for text, message in (
        ("1 13 0.5\n", "hairpin has 12 nt, but its prior names base 13"),
        ("1 G 12:0.9\n2 A 11:0.8\n", "base 2 of hairpin is G, but A in its prior"),
        ("1 12 0.5\n", "no probabilities for lower in --prior; there are some for hairpin"),
    ):
        (tmp_path / "hairpin.bpp").write_text(text)
        with pytest.raises(InputError, match=message):
            fold(RNAS, head, prior=tmp_path)
    (tmp_path / "copy.bpp").write_text(">hairpin\n1 2 0.5\n")
    with pytest.raises(InputError, match="two files have probabilities of the same id"):
        Prior(tmp_path)


def test_a_matrix_is_checked_once(head, tmp_path, monkeypatch):
    """The input is read twice, and what is computed of the matrix takes its square."""
    (tmp_path / "hairpin.bpp").write_text(LINEAR)
    asked, log_odds = [], Prior.log_odds
    monkeypatch.setattr(Prior, "log_odds", lambda *given: asked.append(1) or log_odds(*given))
    folds = fold(HAIRPIN, head, prior=tmp_path)
    assert len(asked) == 1
    assert (len(list(folds)), len(asked)) == (1, 2)


def test_the_name_is_of_all_that_counts(tmp_path):
    names = set()
    for text in ("1 12 0.9\n", "1 12 0.8\n", "1 11 0.9\n"):
        (tmp_path / "a.bpp").write_text(text)
        names.add(Prior(tmp_path / "a.bpp").name)
    assert len(names) == 3
    assert Prior(half).name == f"{__name__}.half"
    for share in (1.0, 0.5, 0.5):  # of lambdas by what they give
        prior = Prior(lambda sequence, share=share: share * half(sequence))
        assert next(prior.check(iter([RECORD]))) is RECORD
        names.add(prior.name)
    assert len(names) == 5


def test_lists_and_matrices_are_told_apart_by_their_kind(tmp_path):
    (tmp_path / "three.bpp").write_text("1 2 0.5\n1 3 0.5\n2 3 0.5\n")
    odds = Prior(tmp_path).log_odds(FastaRecord("three", "GGC"))
    np.testing.assert_array_equal(odds[~np.eye(3, dtype=bool)], 0.0)
    np.savez(tmp_path / "x.npz", a=np.array(["text"]))
    with pytest.raises(InputError, match=r"x\.npz: a is not a matrix of numbers"):
        read_probabilities(tmp_path / "x.npz")
