"""Estimates of the time, memory and output of a run, made by `--dry-run`."""

import sys

import pytest

from ernie_rna.embeddings.embed import embed
from ernie_rna.options import OptionError
from ernie_rna.run import estimate as module
from ernie_rna.run.estimate import Estimate
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.sources import survey
from tests.run.conftest import names

RNA = {f"rna{i}": "ACGU" * (1 + i % 20) for i in range(600)}


def dry_run(function, rna, *arguments, **options):
    return function(rna, *arguments, dry_run=True, progress=False, **options)


def test_a_dry_run_writes_nothing(encoder, output, monkeypatch):
    summary = dry_run(embed, RNA, encoder, output, scale_to=6_000_000)
    assert (summary.files, summary.records) == ([], 600)
    first, scaled, *table = summary.text.split("\n")
    assert first.startswith("600 sequences, 25200 nt: about ")
    assert f"{600 * 48 * 4 / 1e3:.3g} kB of output (measured on " in first
    size = "6,000,000 sequences like these, 2.52e+08 nt: 1.15 GB of output, twice"
    assert scaled.startswith(size)
    assert [row.split()[0] for row in table] == ["machines", "1", "10", "100", "1,000"]
    monkeypatch.setattr(module, "SECONDS", 0.0)  # One batch is enough.
    text = dry_run(embed, iter(RNA.items()), encoder, output).text
    assert 0 < float(text.split("measured on")[1].split()[0]) < 600
    assert names(output.parent) == []
    with pytest.raises(OptionError, match="scale_to needs --dry-run"):
        embed(RNA, encoder, output, scale_to=5)
    with pytest.raises(OptionError, match="dry_run estimates a run that writes an output"):
        dry_run(embed, RNA, encoder)


def test_a_dry_run_to_standard_output(model, capsys, monkeypatch):
    """No disk is measured, because the working folder may have no room."""
    folders = []
    monkeypatch.setattr(module, "disk_rate", lambda folder: folders.append(folder) or 1.0)
    text = dry_run(mutate, {"a": "ACGU", "b": "AC"}, model, "-", scale_to=9).text
    assert " of memory (measured on 2 sequences)" in text
    text = dry_run(mutate, {"a": "NN"}, model, "-").text
    assert text.startswith("1 sequence, 2 nt: about 0 seconds and ")
    assert folders == [None]
    assert capsys.readouterr().out == ""


def test_the_sample_has_one_of_the_longest_sequences():
    rna = {**RNA, "long": "A" * 500, "long too": "C" * 500}
    records = [chunking.FastaRecord(*item) for item in rna.items()]
    sample = list(module._sample(records, survey(records)))
    assert len(sample) <= module._SAMPLE + 1
    assert [record.id for record in sample if len(record.sequence) == 500] == ["long"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(119.6, "120 seconds"), (150, "2.5 minutes"), (7200, "2 hours"), (3e6, "34.7 days")],
)
def test_units_of_time_and_size(seconds, text):
    estimate = Estimate(seconds, 2 * 10**9, 3 * 10**12, 7)
    expected = f"about {text} and 2 GB of memory, 3 TB of output (measured on 7 seq"
    assert estimate.text.startswith(expected)


@pytest.mark.parametrize("known", [True, False])
def test_memory_may_be_unknown(monkeypatch, known):
    """Windows has no module `resource`."""
    if not known:
        monkeypatch.setitem(sys.modules, "resource", None)
        monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    memory = module.peak_memory()
    assert memory > 1e7 if known else memory is None
    text = Estimate(1.0, memory, 0, 7).text
    assert ("and an unknown amount of memory (measured on 7 sequences)" in text) != known


def test_the_table_names_what_takes_longest():
    size = survey(chunking.FastaRecord(*item) for item in RNA.items())
    estimate = Estimate(600.0, 10**9, 10**6, 7)
    table = estimate.scaled(6000, size, reading=0.5, disk=1e6).split("\n")[2:]
    assert [row.split()[-1] for row in table] == ["computing"] * 3 + ["writing"]
    ten_machines = "10 10 minutes 10 seconds 11 seconds 10.3 minutes computing"
    assert " ".join(table[1].split()) == ten_machines


@pytest.mark.parametrize(
    ("rna", "tokens", "machines"),
    [(RNA, 10**6, 0), (RNA, 600, 3), (RNA, 16, 10), ({"one": "ACGU" * 400}, 16, 0)],
)
def test_machines_are_suggested_only_for_several_chunks(encoder, output, rna, tokens, machines):
    """A single chunk is computed by one machine, however many there are."""
    text = dry_run(embed, rna, encoder, output, batch_tokens=tokens, long="full").text
    shared = f" on {machines} such machines, each with its --part I/{machines}" in text
    assert shared == ("machines" in text) == (machines > 0)
