"""Outputs of `fold`: files and folders of structures, matrices and tables, and errors."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.run.outputs import OutputError
from ernie_rna.structures.fold import Fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.output import file_name, fold_outputs
from ernie_rna.structures.formats.structure import Structure


@contextlib.contextmanager
def opened(path):
    (output,) = fold_outputs([path])
    with output.open(output.path) as write:
        yield write


HAIRPIN = Fold(
    Structure("a/1é", "GGGAAACCC", [(0, 8), (1, 7)], "of 1 kind"),
    np.eye(9, dtype=np.float32),
    reliabilities=np.linspace(0, 1, 9, dtype=np.float32),
)
OTHER = Fold(Structure("b", "gAtN", [(1, 2)]), np.ones((4, 4), dtype=np.float32))


@pytest.mark.parametrize(
    "name", ["o.dbn", "o.db", "o.tsv", "o.csv", "o.ct", "o.ct/", "o.bpseq", "O.CT"]
)
def test_structures_are_read_back(tmp_path, name):
    output = f"{tmp_path}/{name}"
    with opened(output) as write:
        write(HAIRPIN)
        write(OTHER)
        assert not Path(output).exists()
    assert read_structures(output) == [HAIRPIN.structure, OTHER.structure]
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).name]


def test_names_of_files_are_valid_and_distinct():
    assert file_name("../x", ".ct") == "..%2Fx.ct"
    names = [file_name(id, ".ct") for id in ("a/b", "a%2Fb", "a\\b", "a:b", ".", "")]
    assert len(set(names)) == 6
    assert not set("".join(names)) & set('/\\:*?"<>|')
    with pytest.raises(ValueError, match="the id is too long"):
        file_name("x" * 300, ".ct")


@pytest.mark.parametrize("name", ["o.dbn", "o.ct/", "o.npz"])
def test_a_failed_run_leaves_no_output(tmp_path, name):
    with pytest.raises(KeyError), opened(f"{tmp_path}/{name}") as write:  # noqa: PT012
        write(HAIRPIN)
        raise KeyError
    assert not any(tmp_path.iterdir())


def test_no_file_of_a_replaced_folder_stays(tmp_path):
    output = f"{tmp_path}/o.ct/"
    for result in (HAIRPIN, OTHER):
        with opened(output) as write:
            write(result)
    assert [path.name for path in Path(output).iterdir()] == ["b.ct"]


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([["o.pdb"]], ValueError, r"o\.pdb: the extension must be one of \.dbn, "),
        ([["o.dbn/"]], ValueError, r"a folder takes \.ct or \.bpseq files"),
        ([["o.ct", "o.ct"]], ValueError, r"o\.ct is named for two outputs"),
        ([["o.tsv"], None, "o.tsv"], ValueError, r"o\.tsv is named for two outputs"),
        ([["-"], "folder.tsv"], OutputError, r"folder\.tsv: it is not a file"),
        ([["-"], "folder.ct"], ValueError, r"folder\.ct: the extension must be \.tsv"),
        ([["file.bpseq"]], OutputError, "must be a folder"),
        ([["folder.ct"]], OutputError, r"is a folder; name folder\.ct/"),
        ([["folder.ct/"]], OutputError, r"holds thesis\.doc"),
    ],
)
def test_invalid_outputs(tmp_path, monkeypatch, outputs, error, message):
    """An existing output is replaced only if it is of the same kind."""
    monkeypatch.chdir(tmp_path)
    Path("file.bpseq").touch()
    Path("folder.tsv").mkdir()
    Path("folder.ct").mkdir()
    Path("folder.ct/thesis.doc").touch()
    with pytest.raises(error, match=message):
        fold_outputs(*outputs)


def test_matrices_and_tables_whose_positions_count_from_one(tmp_path):
    paths = [str(tmp_path / "pairs.tsv"), str(tmp_path / "bases.tsv")]
    for output in fold_outputs([str(tmp_path / "o.npz")], *paths):
        with output.open(output.path) as write:
            write(HAIRPIN)
    with np.load(tmp_path / "o.npz") as matrices:
        np.testing.assert_array_equal(matrices["a/1é"], HAIRPIN.matrix)
    pairs, bases = (Path(path).read_text().splitlines() for path in paths)
    for lines in (pairs, bases):
        assert len({line.count("\t") for line in lines}) == 1
    assert pairs[1:] == ["a/1é\t1\t9\tG\tC\t0.0000", "a/1é\t2\t8\tG\tC\t0.1250"]
    assert bases[1] == "a/1é\t1\tG\t9\t0.0000"
    assert bases[5] == "a/1é\t5\tA\t0\t0.5000"


def test_a_file_that_another_program_adds_meanwhile_is_kept(tmp_path):
    notes = tmp_path / "o.ct" / "notes.txt"
    notes.parent.mkdir()
    with pytest.raises(OutputError, match=r"holds notes\.txt"), opened(f"{tmp_path}/o.ct/"):
        notes.write_text("mine")
    assert notes.read_text() == "mine"
