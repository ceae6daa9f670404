"""What a run will take, told beforehand."""

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
    about, head, *table = summary.text.split("\n")
    assert about.startswith("600 sequences, 25200 nt: about ")
    assert f"{600 * 48 * 4 / 1e3:.3g} kB of output (measured on " in about
    assert head.startswith("6,000,000 sequences like these, 2.52e+08 nt: 1.15 GB of output, twice")
    assert [row.split()[0] for row in table] == ["machines", "1", "10", "100", "1,000"]
    monkeypatch.setattr(module, "SECONDS", 0.0)  # One batch is enough.
    told = dry_run(embed, iter(RNA.items()), encoder, output).text
    assert 0 < float(told.split("measured on")[1].split()[0]) < 600
    assert names(output.parent) == []
    with pytest.raises(OptionError, match="scale_to needs --dry-run"):
        embed(RNA, encoder, output, scale_to=5)
    with pytest.raises(OptionError, match="dry_run estimates a run that writes an output"):
        dry_run(embed, RNA, encoder)


def test_of_standard_output(model, capsys, monkeypatch):
    """No disk is measured: the working folder may have no room."""
    folders = []
    monkeypatch.setattr(module, "disk_rate", lambda folder: folders.append(folder) or 1.0)
    about = dry_run(mutate, {"a": "ACGU", "b": "AC"}, model, "-", scale_to=9).text
    assert " of memory (measured on 2 sequences)" in about
    about = dry_run(mutate, {"a": "NN"}, model, "-").text
    assert about.startswith("1 sequence, 2 nt: about 0 seconds and ")
    assert folders == [None]
    assert capsys.readouterr().out == ""


def test_the_longest_is_measured():
    rna = {**RNA, "long": "A" * 500, "long too": "C" * 500}
    records = [chunking.FastaRecord(*one) for one in rna.items()]
    sample = list(module._sample(records, survey(records)))
    assert len(sample) <= module._SAMPLE + 1
    assert [one.id for one in sample if len(one.sequence) == 500] == ["long"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(119.6, "120 seconds"), (150, "2.5 minutes"), (7200, "2 hours"), (3e6, "34.7 days")],
)
def test_words(seconds, text):
    told = Estimate(seconds, 2 * 10**9, 3 * 10**12, 7).text
    assert told.startswith(f"about {text} and 2 GB of memory, 3 TB of output (measured on 7 seq")


@pytest.mark.parametrize("known", [True, False])
def test_memory_where_the_system_does_not_say(monkeypatch, known):
    """Windows has no module `resource`."""
    if not known:
        monkeypatch.setitem(sys.modules, "resource", None)
        monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    memory = module.peak_memory()
    assert (memory or 0) > 1e7 if known else memory is None
    told = Estimate(1.0, memory, 0, 7).text
    assert ("and an unknown amount of memory (measured on 7 sequences)" in told) != known


def test_what_takes_longest():
    found = survey(chunking.FastaRecord(*one) for one in RNA.items())
    about = Estimate(600.0, 10**9, 10**6, 7)
    table = about.scaled(6000, found, reading=0.5, disk=1e6).split("\n")[2:]
    assert [row.split()[-1] for row in table] == ["computing"] * 3 + ["writing"]
    told = "10 10 minutes 10 seconds 11 seconds 10.3 minutes computing"
    assert " ".join(table[1].split()) == told


@pytest.mark.parametrize(
    ("rna", "tokens", "machines"),
    [(RNA, 10**6, 0), (RNA, 600, 3), (RNA, 16, 10), ({"one": "ACGU" * 400}, 16, 0)],
)
def test_machines_share_chunks(encoder, output, rna, tokens, machines):
    """What fits in one chunk is computed by one machine, whoever else begins."""
    told = dry_run(embed, rna, encoder, output, batch_tokens=tokens, long="full").text
    shared = f" on {machines} such machines, each with its --part I/{machines}" in told
    assert shared == ("machines" in told) == (machines > 0)
