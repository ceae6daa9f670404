"""Base-pair probabilities of an energy model that shift a head's logits: formula and sources."""

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


def matrices(model, kind="scores", rnas=RNAS, **options):
    return {one.id: one.matrix for one in fold(rnas, model, matrix=kind, **options)}


def constant(probability):
    """A prior with the same probability for all pairs."""
    return lambda sequence: np.full((len(sequence), len(sequence)), probability)


def half(sequence):
    return constant(0.5)(sequence)


def ensemble(sequence):
    """The probabilities of ViennaRNA with its default settings."""
    import RNA

    compound = RNA.fold_compound(sequence)
    compound.pf()
    upper = np.array(compound.bpp())[1:, 1:]
    return upper + upper.T


@needs_vienna
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_logits_are_shifted_by_the_formula(head, batch_tokens):
    plain = matrices(head)
    for id, shifted in matrices(head, prior="vienna", batch_tokens=batch_tokens).items():
        letters = RNAS[id].upper().replace("T", "U").replace("R", "N").replace("Y", "N")
        p = ensemble(letters).clip(0.001, 0.999)
        expected = plain[id] + WEIGHT * np.log(p / (1 - p)) + OFFSET
        np.testing.assert_allclose(shifted, expected, atol=2e-4)


def check_probabilities(probabilities, log_odds):
    for id, matrix in probabilities.items():
        possible = matrix > 0  # Bases that cannot pair have a probability of 0.
        expected = 1 / (1 + np.exp(-log_odds[id]))
        np.testing.assert_allclose(matrix[possible], expected[possible], atol=1e-6)


def test_probabilities_are_calibrated_with_and_without_a_line_for_the_prior(head):
    prior_log_odds = np.log(0.3 / 0.7)
    log_odds = {
        id: LINE[0] * (SLOPE * logits + 1.0) + LINE[1] * prior_log_odds + LINE[2]
        for id, logits in matrices(head).items()
    }
    check_probabilities(matrices(head, "probabilities", prior=constant(0.3)), log_odds)
    head.config.pair_prior_calibration = None
    log_odds = {id: SLOPE * logits + 1.0 for id, logits in matrices(head, prior=half).items()}
    check_probabilities(matrices(head, "probabilities", prior=half), log_odds)


@needs_vienna
def test_vienna_uses_reactivities_and_constraints():
    def log_odds(text=None, reactivities=None):
        constraints = Constraints({"hairpin": text}, 3) if text else None
        probing = Probing({"hairpin": reactivities}) if reactivities else None
        return Prior("vienna", probing, constraints).log_odds(RECORD)

    plain, nan = log_odds(), float("nan")
    assert log_odds(reactivities=[3.0] * 4 + [nan] * 8)[1, 10] < plain[1, 10] - 1
    np.testing.assert_array_equal(log_odds(reactivities=[nan] * 12), plain)
    constrained = log_odds("xx..........")
    assert constrained[0].max() == constrained[1].max() == constrained.min()
    assert plain[0].max() > 0
    # A base that must pair but cannot does not make the ensemble empty.
    assert np.isfinite(log_odds("....|.......")).all()


@needs_vienna
def test_reactivities_prior_and_constraints_add_up(head):
    options = {"reactivities": {"hairpin": [0.5] * 12}}
    probed = matrices(head, rnas=HAIRPIN, **options)["hairpin"]
    log_odds = Prior("vienna", Probing(options["reactivities"])).log_odds(RECORD)
    options["prior"] = "vienna"
    shifted = matrices(head, rnas=HAIRPIN, **options)["hairpin"]
    np.testing.assert_allclose(shifted, probed + WEIGHT * log_odds + OFFSET, atol=2e-4)
    options["constraints"] = {"hairpin": "x" + "." * 11}
    (one,) = fold(HAIRPIN, head, matrix="scores", **options)
    assert (one.matrix[0] == NOT_SEEN).all()
    assert 0 not in {base for pair in one.structure.pairs for base in pair}


def test_pairs_that_no_window_contains_stay_impossible(head):
    long = {"long": "GGCAU" * 24}
    shifted = matrices(head, rnas=long, prior=half, long="window", overlap=30)["long"]
    plain = matrices(head, rnas=long, long="window", overlap=30)["long"]
    unseen = plain == NOT_SEEN
    assert unseen.any()
    assert (shifted[unseen] < NOT_SEEN / 2).all()
    np.testing.assert_allclose(shifted[~unseen], plain[~unseen] + OFFSET, atol=1e-4)


def test_the_error_without_vienna_names_the_extra(head, monkeypatch):
    monkeypatch.setitem(sys.modules, "RNA", None)
    with pytest.raises(ImportError, match=r'--prior vienna.*pip install "ernie-rna\[vienna\]"'):
        fold(RNAS, head, prior="vienna")


def test_refuses_invalid_priors_and_models_that_cannot_use_one(head):
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


def test_a_run_stores_prior_constraints_and_pseudoknots(head, tmp_path, killed_after):
    with killed_after(0):
        fold(RNAS, head, tmp_path / "o.dbn", progress=False)
    changes = {"prior": half, "constraints": {"g": "x"}, "pseudoknots": False}
    for name, value in changes.items():
        with pytest.raises(OutputError, match=f"differs: settings.{name}"):
            fold(RNAS, head, tmp_path / "o.dbn", progress=False, **{name: value})


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
        log_odds = Prior(path).log_odds(RECORD)
        np.testing.assert_allclose(log_odds, np.log(p / (1 - p)), atol=1e-5)


def test_matrices_written_by_fold(head, tmp_path):
    fold(RNAS, head, tmp_path / "p.npz", matrix="probabilities", progress=False)
    shifted = matrices(head, prior=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as written:
        for id, sequence in RNAS.items():
            expected = matrices(head, rnas={id: sequence}, prior=lambda _, id=id: written[id])
            np.testing.assert_allclose(shifted[id], expected[id], atol=1e-4)


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
        ("x.bpp", "", "x.bpp: the file is empty; write a line '>x' if no bases of it pair"),
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
def test_files_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_probabilities(tmp_path / name)


def test_a_mismatch_is_an_error_before_the_model_is_loaded(head, tmp_path, monkeypatch):
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
    """The input is read twice, but the time of a check grows with the square of the length."""
    (tmp_path / "hairpin.bpp").write_text(LINEAR)
    calls, log_odds = [], Prior.log_odds
    monkeypatch.setattr(Prior, "log_odds", lambda *args: calls.append(args) or log_odds(*args))
    folds = fold(HAIRPIN, head, prior=tmp_path)
    assert len(calls) == 1
    assert (len(list(folds)), len(calls)) == (1, 2)


def test_the_name_of_a_prior_depends_on_its_values(tmp_path):
    names = set()
    for text in ("1 12 0.9\n", "1 12 0.8\n", "1 11 0.9\n"):
        (tmp_path / "a.bpp").write_text(text)
        names.add(Prior(tmp_path / "a.bpp").name)
    assert len(names) == 3
    assert Prior(half).name == f"{__name__}.half"
    for probability in (0.5, 0.25, 0.25):  # The name of a lambda depends on what it returns.
        prior = Prior(constant(probability))
        assert next(prior.check(iter([RECORD]))) is RECORD
        names.add(prior.name)
    assert len(names) == 5


def test_three_pairs_of_a_list_are_not_read_as_a_matrix(tmp_path):
    (tmp_path / "three.bpp").write_text("1 2 0.5\n1 3 0.5\n2 3 0.5\n")
    (tmp_path / "none.bpp").write_text("1 G\n2 A\n>header\n>rounded\n1 2 0.97\n2 1 0.970001\n")
    found = read_probabilities(tmp_path)
    assert [len(found[id]) for id in ("none", "header", "rounded")] == [0, 0, 2]
    odds = Prior(tmp_path).log_odds(FastaRecord("three", "GGC"))
    np.testing.assert_array_equal(odds[~np.eye(3, dtype=bool)], 0.0)
    np.savez(tmp_path / "x.npz", a=np.array(["text"]))
    with pytest.raises(InputError, match=r"x\.npz: a is not a matrix of numbers"):
        read_probabilities(tmp_path / "x.npz")
