"""Embeddings on a local Ray of two workers, one of which is killed."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

from ernie_rna.embeddings.embed import embed
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import InputError
from scripts.long_run import kill_actor

ray = pytest.importorskip("ray")
pytest.importorskip("dnaio")
parquet = pytest.importorskip("pyarrow.parquet")
ray_embed = pytest.importorskip("ernie_rna.embeddings.on_ray")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray():
    # The workers unpickle classes of this package.
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture
def folder(config, tmp_path):
    torch.manual_seed(0)
    ErnieRnaModel(config, add_pooling_layer=False).eval().save_pretrained(tmp_path / "model")
    return tmp_path


def write_fasta(path, count, prefix="rna"):
    generator = torch.Generator().manual_seed(count)
    rna = {}
    for i in range(count):
        letters = torch.randint(4, (20 + i % 90,), generator=generator).tolist()
        rna[f"{prefix}{i}"] = "".join("ACGU"[k] for k in letters)
    path.write_text("".join(f">{id} text\n{sequence}\n" for id, sequence in rna.items()))
    return rna


def check(output, rna, model):
    """That the rows are those of all sequences, in order, with the right vectors."""
    rows = parquet.read_table(output)
    assert rows["id"].to_pylist() == list(rna)
    assert rows["length"].to_pylist() == [len(sequence) for sequence in rna.values()]
    vectors = np.array(rows["mean_layer3"].to_pylist())
    sample = dict(list(rna.items())[:: max(1, len(rna) // 50)])
    for embedding in embed(sample, model):
        at = list(rna).index(embedding.id)
        np.testing.assert_allclose(vectors[at], embedding["mean"], atol=3e-6)


def test_nothing_is_lost_with_a_worker(folder):
    rna = write_fasta(folder / "in.fasta", 4000)
    killed = []
    arguments = (folder / "out", killed)
    thread = threading.Thread(target=kill_actor, args=arguments, daemon=True)
    thread.start()
    count = ray_embed.embed_on_ray(
        folder / "in.fasta",
        folder / "out",
        folder / "model",
        cpus_per_actor=0.5,
        records_at_once=100,
    )
    assert killed
    assert count == 4000
    check(folder / "out", rna, folder / "model")
    metadata = json.loads((folder / "out" / ray_embed.METADATA_FILE).read_text())
    assert (metadata["records"], metadata["pooling"]) == (4000, ["mean"])


def test_parquet_and_several_files(folder):
    rna = write_fasta(folder / "a.fasta", 30, "a") | write_fasta(folder / "b.fasta", 20, "b")
    table = {"id": list(rna), "sequence": list(rna.values()), "more": list(range(50))}
    import pyarrow as pa

    parquet.write_table(pa.table(table), folder / "in.parquet")
    for name, inputs in (
        ("fasta", [folder / "a.fasta", folder / "b.fasta"]),
        ("parquet", folder / "in.parquet"),
    ):
        arguments = (inputs, folder / name, folder / "model")
        assert ray_embed.embed_on_ray(*arguments, actors=1, records_at_once=16) == 50
        check(folder / name, rna, folder / "model")


def test_refuses(folder):
    (folder / "bad.fasta").write_text(">a\nACGU\n>p\nMKTAYIAKQR\n")
    arguments = (folder / "bad.fasta", folder / "out", folder / "model")
    with pytest.raises(
        InputError, match=r"bad.fasta: record 2 \(p\): it looks like a protein"
    ) as e:
        ray_embed.embed_on_ray(*arguments, actors=1)
    assert "UDF" not in str(e.value)
    (folder / "bad.fasta").write_text(f">a\nACGU\n>big\n{'ACGU' * 99}\n")
    with pytest.raises(InputError, match=r"big has 396 nt, over the limit of 254"):
        ray_embed.embed_on_ray(*arguments, actors=1)
    with pytest.raises(ValueError, match=r"take 2 CPUs of the 2 that Ray has"):
        ray_embed.embed_on_ray(*arguments, cpus_per_actor=1)
    with pytest.raises(ValueError, match=r"no token vectors"):
        ray_embed.embed_on_ray(*arguments, pooling=("token",))
    (folder / "out").mkdir()
    with pytest.raises(OutputError, match=r"out exists already"):
        ray_embed.embed_on_ray(*arguments)
