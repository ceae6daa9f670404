"""Any function over many files, by Ray."""

from pathlib import Path

import numpy as np
import pytest

import ernie_rna
from ernie_rna.run.outputs import OutputError
from tests.golden_folder import write_golden_folder

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

RNAS = {"a": "GGGGAAAACCCC", "b": "AUGCAUGC", "c": "GGGAAACCC"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_golden_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "one.fasta", tmp_path / "two.fasta"]
    for number, path in enumerate(paths):
        path.write_text("".join(f">{id}{number}\n{text}\n" for id, text in RNAS.items()))
    return paths


def call(files, tmp_path, model, **options):
    return ernie_rna.on_ray(
        ernie_rna.embed,
        files,
        tmp_path / "out",
        model,
        format=".npz",
        actors=2,
        cpus_per_actor=0.5,
        batch_tokens=12,
        **options,
    )


def test_files_have_what_the_function_alone_writes(files, tmp_path, model):
    summaries = call(files, tmp_path, model)
    assert [summary.records for summary in summaries] == [3, 3]
    for path in files:
        alone = tmp_path / f"{path.stem}.npz"
        ernie_rna.embed(path, model, alone, batch_tokens=12)
        written = np.load(tmp_path / "out" / alone.name)
        for name, expected in np.load(alone).items():
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(written[name], expected, rtol=0, atol=1e-5)


def test_the_same_call_finds_finished_outputs(files, tmp_path, model):
    call(files[:1], tmp_path, model)
    before = (tmp_path / "out" / "one.npz").stat().st_mtime_ns
    call(files[:1], tmp_path, model)
    assert (tmp_path / "out" / "one.npz").stat().st_mtime_ns == before
    with pytest.raises(OutputError):
        call(files[:1], tmp_path, model, pooling=("cls",))


def test_two_inputs_of_one_name_are_refused(files, tmp_path, model):
    (tmp_path / "other").mkdir()
    twin = Path(tmp_path / "other" / "one.fasta")
    twin.write_text(files[0].read_text())
    with pytest.raises(OutputError, match=r"one\.npz"):
        call([files[0], twin], tmp_path, model)
