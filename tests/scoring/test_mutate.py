"""Scores of substitutions, compared with a plain loop; and runs, resumed or shared, and tables."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ernie_rna.cli import main as cli
from ernie_rna.run import runner
from ernie_rna.run.loading import EncodingError
from ernie_rna.scoring.masking import mask_tokens
from ernie_rna.scoring.mutate import NUCLEOTIDES, mutate

SEQUENCES = {"hairpin": "GGGGAAAACCCC", "odd": "acgtNRyu", "one": "G", "nothing": "NNN"}
# Batches of other shapes are rounded differently: 4.8e-7 is the largest difference measured.
TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)


@pytest.fixture
def model(model):
    """A model in which pairing scores matter: as initialised, they hardly change the attention."""
    with torch.no_grad():
        for linear in (model.ernie_rna.twod_proj.linear1, model.ernie_rna.twod_proj.linear2):
            linear.weight *= 60
    return model


@torch.inference_mode()
def one_by_one(model, tokenizer, sequence, mask_pairing):
    """Mask every position by itself, in a pass of its own; return log-probabilities (length, 4)."""
    batch = tokenizer(sequence, return_tensors="pt")
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    rows = []
    for position, letter in enumerate(sequence, 1):
        masked = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
        masked[0, position] = True
        input_ids, scores = mask_tokens(batch["input_ids"], masked, model.config, mask_pairing)
        logits = model(input_ids, batch["attention_mask"], pairing_scores=scores).logits
        row = logits[0, position].log_softmax(-1)[columns]
        rows.append(row if letter in "ACGUacgtu" else torch.full_like(row, math.nan))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("mask_pairing", ["inference", "pretraining"])
@pytest.mark.parametrize("batch_tokens", [1, 30, 4096])
def test_equals_a_loop_over_positions(model, tokenizer, mask_pairing, batch_tokens):
    options = {"mask_pairing": mask_pairing, "batch_tokens": batch_tokens, "vocabulary": "all"}
    results = mutate(SEQUENCES, model, **options)
    for scores, (id, sequence) in zip(results, SEQUENCES.items(), strict=True):
        assert (scores.id, scores.sequence) == (id, sequence.upper().replace("T", "U"))
        expected = one_by_one(model, tokenizer, sequence, mask_pairing)
        np.testing.assert_allclose(scores.log_probabilities, expected, rtol=0, atol=TOLERANCE)


def test_probabilities_by_vocabulary_and_mask_pairing(model):
    choices = [{}, {"vocabulary": "all"}, {"mask_pairing": "pretraining"}]
    four, every, paired = (next(mutate(["GGGGAAAACCCC"], model, **choice)) for choice in choices)
    np.testing.assert_allclose(np.exp(four.log_probabilities).sum(-1), 1, rtol=0, atol=1e-6)
    assert (np.exp(every.log_probabilities).sum(-1) < 0.9).all()
    np.testing.assert_allclose(four.effects, every.effects, rtol=0, atol=1e-5)
    assert np.abs(four.log_probabilities - paired.log_probabilities).max() > 1e-3


def test_a_single_pass_without_masks(model, tokenizer):
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    with torch.inference_mode():
        logits = model(**tokenizer("GGNGAAAACCCC", return_tensors="pt")).logits
    expected = logits[0, 1:-1].log_softmax(-1)[:, columns].numpy()
    expected[2] = np.nan
    (single,) = mutate(["GGNGAAAACCCC"], model, masked=False, vocabulary="all")
    np.testing.assert_allclose(single.log_probabilities, expected, rtol=0, atol=TOLERANCE)


def test_values_derived_from_the_probabilities(model):
    scores = next(mutate({"odd": SEQUENCES["odd"]}, model))
    values = scores.log_probabilities.astype(np.float64)
    assert scores.scored.tolist() == [True, True, True, True, False, False, False, True]
    likelihoods = values[[0, 1, 2, 3, 7], [0, 1, 2, 3, 3]]  # of A, C, G, U and the last U
    np.testing.assert_allclose(scores.log_likelihoods[scores.scored], likelihoods, rtol=1e-6)
    assert scores.pseudo_log_likelihood == pytest.approx(likelihoods.sum())
    assert scores.pseudo_perplexity == pytest.approx(math.exp(-likelihoods.mean()))
    np.testing.assert_allclose(scores.effects[1], values[1] - values[1, 1], rtol=0, atol=TOLERANCE)
    assert np.isnan(scores.effects[4]).all()
    (nothing,) = mutate(["NNN"], model)
    assert nothing.pseudo_log_likelihood == 0
    assert math.isnan(nothing.pseudo_perplexity)


def test_values_that_are_not_finite_are_errors(model):
    with torch.no_grad():
        model.lm_head.decoder.bias.fill_(math.nan)
    with pytest.raises(EncodingError, match=r"0: a log-probability is not finite"):
        list(mutate(["ACGU"], model))


# The positions of a sequence may be in several chunks, and so be computed by several processes.
LONG = {"short": "ACGU", "long": "ACGUN" * 9, "none": "NN", "last": "GGAUCC"}
CHUNKS = [["short", "long"], *[["long"]] * 4, ["long", "none"], ["last"]]
OPTIONS = {"batch_tokens": 20, "progress": False}


@pytest.fixture
def chunks(monkeypatch):
    """The ids in each computed chunk, and a list of chunk numbers at which a run is interrupted."""
    computed, compute_batches, stops = [], runner.compute_batches, []

    def watched(task, chunk):
        if chunk.number in stops:
            raise KeyboardInterrupt
        computed.append([record.id for record in chunk.records])
        return compute_batches(task, chunk)

    monkeypatch.setattr(runner, "compute_batches", watched)
    return computed, stops


@pytest.fixture
def outputs(tmp_path):
    return [tmp_path / name for name in ("effects.tsv", "positions.tsv", "summary.tsv")]


@pytest.fixture
def expected(model, outputs):
    """The bytes that an uninterrupted run writes to the outputs, which are then deleted."""
    mutate(LONG, model, *outputs, **OPTIONS)
    contents = [path.read_bytes() for path in outputs]
    for path in outputs:
        path.unlink()
    return contents


def test_a_killed_run_is_resumed_within_a_sequence(model, outputs, expected, chunks):
    computed, stops = chunks
    stops.append(4)
    with pytest.raises(KeyboardInterrupt):
        mutate(LONG, model, *outputs, **OPTIONS)
    assert [path.name for path in outputs[0].parent.iterdir()] == ["effects.tsv.partial"]
    for name, value in {"masked": False, "mask_pairing": "pretraining"}.items():
        with pytest.raises(RuntimeError, match=f"settings.{name} was .*, is .*--force"):
            mutate(LONG, model, *outputs, **{name: value})
    stops.clear()
    assert mutate(LONG, model, *outputs, **OPTIONS).resumed
    assert computed == CHUNKS
    assert [path.read_bytes() for path in outputs] == expected


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_processes_share_a_sequence(model, outputs, expected, chunks, order):
    for part in order:
        mutate(LONG, model, *outputs, part=f"{part}/3", **OPTIONS)
    assert sorted(chunks[0]) == sorted(CHUNKS)
    assert [path.read_bytes() for path in outputs] == expected
    assert {*outputs[0].parent.iterdir()} == {*outputs}


def read(path):
    header, *lines = Path(path).read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_the_three_tables_of_the_command(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("model")
    Path("in.fasta").write_text(">hairpin\nGGGGAAAACCCC\n>odd\nacNt\n>none\nNN\n")
    outputs = "-o effects.tsv --positions positions.tsv --summary summary.tsv"
    assert cli.main(["mutate", "in.fasta", "-m", "model", *outputs.split()]) == 0
    errors = capsys.readouterr().err
    assert "effects.tsv, positions.tsv, summary.tsv: 3 sequences, 18 nt; " in errors
    results = {scores.id: scores for scores in mutate("in.fasta", model)}
    effects = read("effects.tsv")
    assert len(effects) == 3 * 12 + 3 * 3
    assert [row["mutant"] for row in effects[:3]] == ["A", "C", "U"]
    for row in effects:
        scores, base = results[row["id"]], int(row["position"]) - 1
        effect = scores.effects[base, "ACGU".index(row["mutant"])]
        assert float(row["effect"]) == pytest.approx(effect, abs=1e-5)
        assert row["wildtype"] == scores.sequence[base] != row["mutant"]
    positions = read("positions.tsv")
    assert [row["wildtype"] for row in positions[12:]] == ["A", "C", "N", "U", "N", "N"]
    assert set(positions[14].values()) == {"odd", "3", "N", "NA"}
    assert float(positions[12]["log_likelihood"]) == float(positions[12]["log_p_A"])
    summary = read("summary.tsv")
    assert [row["scored"] for row in summary] == ["12", "3", "0"]
    perplexity = pytest.approx(results["odd"].pseudo_perplexity, abs=1e-4)
    assert float(summary[1]["pseudo_perplexity"]) == perplexity
    assert summary[2]["pseudo_perplexity"] == "NA"
    mutate("in.fasta", model, "kept.tsv", keep_letters=True, progress=False)
    kept = read("kept.tsv")
    assert [row["wildtype"] for row in kept[36:]] == [letter for letter in "act" for _ in range(3)]
    for row in kept:
        row["wildtype"] = row["wildtype"].upper().replace("T", "U")
    assert kept == effects
