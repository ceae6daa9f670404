"""Pretraining: which batches, that it learns both losses, and that a killed run goes on exactly."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
    ErnieRnaModel,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from ernie_rna.convert.folder import why_no_export
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.batches import PretrainingBatches, pair_labels
from recipes.pretraining.checkpoints import AVERAGE_FILE, last_checkpoint
from recipes.pretraining.data import (
    Limit,
    Rna,
    Sampler,
    Stream,
    permute,
    read_table,
    stream_fasta,
)
from recipes.pretraining.ema import load_average
from recipes.pretraining.export import OFFSETS, THRESHOLDS
from recipes.pretraining.initial_weights import model_of, new_model
from recipes.pretraining.plot import LOG_FILE, PICTURE, read_log
from recipes.pretraining.settings import (
    MaskedLMPart,
    Settings,
    StructurePart,
    read_settings,
)
from recipes.pretraining.trainer import _batches
from scripts import evaluate_pair_head, export_pretrained, predict_structures, pretrain
from tests.conftest import ROOT

MODEL = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 32, "pair_channels": 8, "pair_blocks": 1},
}
SETTINGS = {
    "_about": "a remark",
    "model": MODEL,
    "masked_lm": {"fraction": 0.5, "tokens": 120, "max_length": 40},
    "structure": {"squared_tokens": 3000, "max_length": 40, "permuted": 0.5},
    **{"steps": 6, "warmup_steps": 2, "decay_steps": 2, "learning_rate": 0.01},
    **{"ema_decay": 0.9, "eval_steps": 3, "eval_sequences": 4, "save_steps": 2, "logging_steps": 1},
}


def hairpin(draw, stem, loop):
    partner = {"G": "C", "C": "G", "A": "U", "U": "A"}
    left = draw.choices("ACGU", k=stem)
    middle = draw.choices("ACGU", k=loop)
    sequence = "".join([*left, *middle, *(partner[base] for base in reversed(left))])
    return sequence, "(" * stem + "." * loop + ")" * stem


@pytest.fixture
def table(tmp_path):
    draw = random.Random(0)
    lines = ["id\tsequence\tdot_bracket\tfamily\tsplit"]
    for row in range(40):
        split = "validation" if row % 5 == 0 else "train"
        sequence, structure = hairpin(draw, draw.randint(3, 12), draw.randint(3, 9))
        lines.append(f"rna{row}\t{sequence}\t{structure}\tfamily{min(row % 7, 3)}\t{split}")
    path = tmp_path / "rnas.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rnas(table):
    return read_table(table, "train")


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SETTINGS))
    return path


class TestTable:
    def test_split_and_pairs(self, table):
        rnas = read_table(table, "train", leave_out={"rna1", "rna2"})
        assert len(rnas) == 30
        assert rnas[0].id == "rna3"
        assert rnas[0].pairs[0] == (0, len(rnas[0].sequence) - 1)

    def test_what_is_missing_is_named(self, table):
        with pytest.raises(InputError, match="split 'test'"):
            read_table(table, "test")
        table.write_text("id\tsequence\nx\tACGU\n")
        with pytest.raises(InputError, match="no column dot_bracket, family, split"):
            read_table(table, "train")


class TestSettings:
    def test_remarks_and_parts(self, config_file):
        settings = read_settings(config_file)
        assert settings.structure.squared_tokens == 3000
        assert settings.masked_lm.probability == 0.15

    @pytest.mark.parametrize(("key", "where"), [("lr", None), ("tokens", "structure")])
    def test_unknown_key(self, config_file, key, where):
        values = json.loads(config_file.read_text())
        (values[where] if where else values)[key] = 1
        config_file.write_text(json.dumps(values))
        with pytest.raises(InputError, match=f"'{key}' is none of"):
            read_settings(config_file)


class TestSampler:
    def test_batches_keep_to_the_limit(self, rnas):
        for batch in itertools.islice(Sampler(rnas, 1.0, Limit(3000, 2, 40), 0).batches(), 200):
            longest = max(len(rna.sequence) for rna in batch) + 2
            assert len(batch) == 1 or longest**2 * len(batch) <= 3000

    def test_skipping_is_going_on(self, rnas):
        sampler = Sampler(rnas, 0.5, Limit(200, 1, 40), 3)
        every = list(itertools.islice(sampler.batches(), 600))
        assert list(itertools.islice(sampler.batches(350), 250)) == every[350:]

    @pytest.mark.parametrize(("power", "expected"), [(0.0, 0.25), (1.0, None)])
    def test_families(self, rnas, power, expected):
        drawn = itertools.islice(Sampler(rnas, power, Limit(1, 1, 40), 0).batches(), 8000)
        shares = Counter(rna.family for batch in drawn for rna in batch)
        sizes = Counter(rna.family for rna in rnas)
        for family, count in shares.items():
            share = expected or sizes[family] / len(rnas)
            assert count / 8000 == pytest.approx(share, abs=0.02)

    def test_share_of_predicted(self, rnas):
        several = rnas + [replace(rna, predicted=True) for rna in rnas[:5]]
        sampler = Sampler(several, 0.0, Limit(1, 1, 40), 0, predicted=0.3)
        drawn = [batch[0] for batch in itertools.islice(sampler.batches(), 8000)]
        share = np.mean([rna.predicted for rna in drawn])
        assert share == pytest.approx(0.3, abs=0.02)
        families = Counter(rna.family for rna in drawn if not rna.predicted)
        assert min(families.values()) == pytest.approx(8000 * 0.7 / 4, rel=0.1)


class TestStream:
    @pytest.fixture
    def fasta(self, rnas, tmp_path):
        path = tmp_path / "rnas.fasta"
        path.write_text("".join(f">{rna.id}\n{rna.sequence}\n" for rna in rnas))
        return path

    def test_every_sequence_as_often(self, fasta, rnas):
        batches = Stream(stream_fasta(fasta), Limit(200, 1, 40), 0).batches()
        seen = Counter()
        while sum(seen.values()) < 2048:
            seen.update(rna.id for rna in next(batches))
        assert set(seen) == {rna.id for rna in rnas}
        assert set(seen.values()) == {2048 // len(rnas)}

    def test_skipping_is_going_on(self, fasta):
        stream = Stream(stream_fasta(fasta), Limit(200, 1, 40), 0)
        every = list(itertools.islice(stream.batches(), 30))
        assert list(itertools.islice(stream.batches(20), 10)) == every[20:]

    def test_run(self, fasta, config_file, tmp_path, capsys):
        command = [str(config_file), str(fasta), str(tmp_path / "run"), "--cpu"]
        assert pretrain.main(command) == 1
        assert "masked_lm.fraction" in capsys.readouterr().err
        config_file.write_text(json.dumps({**SETTINGS, "masked_lm": {"tokens": 120}}))
        assert pretrain.main(command) == 1
        assert "--eval-fasta" in capsys.readouterr().err
        command += ["--eval-fasta", str(fasta)]
        assert pretrain.main(command) == 0
        log = (tmp_path / "run" / LOG_FILE).read_text()
        assert "eval_masked_lm_loss" in log
        assert "eval_f1" not in log


@pytest.fixture
def parquet_table(table, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    columns = dict(zip(lines[0], map(list, zip(*lines[1:], strict=True)), strict=True))
    columns["notes"] = [None] * (len(lines) - 1)
    parquet.write_table(pa.table(columns), tmp_path / "rnas.parquet")
    return tmp_path / "rnas.parquet"


def test_parquet_is_tsv(table, parquet_table):
    assert read_table(parquet_table, "train") == read_table(table, "train")


class TestStreamedTable:
    def test_reads_no_more_than_a_pool_ahead(self, rnas):
        read = []

        def endless():
            for rna in itertools.cycle(rnas):
                read.append(rna)
                yield rna

        next(Stream(endless, Limit(200, 1, 40), 0).batches())
        assert len(read) == 2048

    def test_both_kinds_of_batches(self, rnas):
        part = StructurePart(max_length=25)
        settings = Settings(model=MODEL, structure=part, masked_lm=MASKED_LM)
        unpaired = [replace(rna, pairs=()) for rna in rnas[:10]]
        for batches in _batches(lambda: iter(unpaired + rnas[10:]), settings):
            seen = {rna.id for batch in itertools.islice(batches.batches(), 200) for rna in batch}
            assert seen >= {rna.id for rna in rnas[10:] if len(rna.sequence) <= 25}
        assert all(rna.pairs and len(rna.sequence) <= 25 for rna in next(batches.batches()))

    def test_run_goes_on(self, parquet_table, config_file, tmp_path):
        run = tmp_path / "run"
        command = [str(config_file), str(parquet_table), str(run), "--cpu", "--stream", "--resume"]
        assert pretrain.main(command) == 0
        whole = load_file(run / "checkpoint-6" / "model.safetensors")
        for step in (4, 6):
            shutil.rmtree(run / f"checkpoint-{step}")
        assert pretrain.main(command) == 0
        again = load_file(run / "checkpoint-6" / "model.safetensors")
        assert all(torch.equal(whole[name], again[name]) for name in whole)

    def test_what_it_cannot_do_is_said(self, table, config_file, tmp_path, capsys):
        command = [str(config_file), str(table), str(tmp_path / "run"), "--cpu", "--stream"]
        config_file.write_text(json.dumps({**SETTINGS, "family_power": 0.5}))
        assert pretrain.main(command) == 1
        assert "family_power is 0.5" in capsys.readouterr().err
        structure = {**SETTINGS["structure"], "predicted": 0.5}
        config_file.write_text(json.dumps({**SETTINGS, "structure": structure}))
        assert pretrain.main([*command, "--predicted", str(table)]) == 1
        assert "tables in memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [("x\tACGU\t(((.))\tf\ttrain", "x: 4 nucleotides and a structure of 6"),
     ("x\t\t\tf\ttrain", "x: has no sequence")],
)  # fmt: skip
def test_rows_at_fault_are_named(table, row, message):
    with table.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=message):
        read_table(table, "train")


class TestPermute:
    def test_structure_and_composition_stay(self, rnas):
        generator = np.random.default_rng(0)
        changed = 0
        for rna in rnas:
            new = permute(rna, 1.0, generator)
            assert new.pairs == rna.pairs
            assert Counter(new.sequence) == Counter(rna.sequence)
            assert all(new.sequence[i] + new.sequence[j] in PAIRS for i, j in new.pairs)
            changed += new.sequence != rna.sequence
        assert changed > len(rnas) / 2

    def test_none_drawn(self, rnas):
        assert permute(rnas[0], 0.0, np.random.default_rng(0)) == rnas[0]


PAIRS = {"AU", "UA", "GC", "CG", "GU", "UG"}


def test_pair_labels():
    labels = pair_labels([Rna("x", "GAAAC", ((0, 4),), ""), Rna("y", "GU", (), "")], 5)
    assert labels[0, 0].tolist() == [-100, -100, -100, -100, 1]
    assert labels[0, 4].tolist() == [1, -100, -100, -100, -100]
    assert labels[1, 0].tolist() == [-100, 0, -100, -100, -100]


class TestBatches:
    def batches(self, rnas, count, **options):
        return list(itertools.islice(self.dataset(rnas, **options), count))

    def dataset(self, rnas, **options):
        settings = Settings(
            model=MODEL, structure=StructurePart(permuted=0.5), masked_lm=MASKED_LM, seed=4
        )
        samplers = [
            Sampler(rnas, 1.0, Limit(200, 1, 40), 0),
            Sampler(rnas, 1.0, Limit(3000, 2, 40), 1),
        ]
        tokenizer = ErnieRnaTokenizer()
        config = ErnieRnaConfig(**MODEL)
        return PretrainingBatches(*samplers, settings, tokenizer, config, **options)

    def test_kinds_by_fraction(self, rnas):
        kinds = ["labels" in batch for batch in self.batches(rnas, 20)]
        assert sum(kinds) == 5
        assert all(sum(kinds[start : start + 4]) == 1 for start in range(0, 20, 4))

    def test_goes_on_anywhere(self, rnas):
        every = self.batches(rnas, 12)
        for batch, expected in zip(self.batches(rnas, 5, start=7), every[7:], strict=True):
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in batch)

    def test_processes_share(self, rnas):
        shares = [self.batches(rnas, 8, rank=rank, world=2) for rank in (0, 1)]
        for first, second in zip(*shares, strict=True):
            assert first.keys() == second.keys()
            assert first["input_ids"].tolist() != second["input_ids"].tolist()

    def test_workers_make_the_same(self, rnas):
        expected = self.batches(rnas, 7)
        batches = self.dataset(rnas, start=2)
        made = itertools.islice(DataLoader(batches, batch_size=None, num_workers=2), 5)
        for batch, same in zip(made, expected[2:], strict=True):
            assert batch.keys() == same.keys()
            assert all(torch.equal(batch[name], same[name]) for name in batch)

    def test_predicted_structures_stay_with_their_sequences(self, rnas):
        predicted = [replace(rna, predicted=True) for rna in rnas]
        parts = {"masked_lm": MaskedLMPart(fraction=0.0), "structure": StructurePart(permuted=1.0)}
        settings = Settings(model=MODEL, **parts)
        for source, stays in ((predicted, True), (rnas, False)):
            sampler = Sampler(source, 1.0, Limit(3000, 2, 40), 0, predicted=float(stays))
            batches = PretrainingBatches(
                None, sampler, settings, ErnieRnaTokenizer(), ErnieRnaConfig(**MODEL)
            )
            drawn = [tuple(row) for row in next(iter(batches))["input_ids"].tolist()]
            known = {
                tuple(ids)
                for rna in rnas
                for ids in [ErnieRnaTokenizer()(rna.sequence)["input_ids"]]
            }
            unchanged = [tuple(id for id in row if id != 1) in known for row in drawn]
            assert all(unchanged) == stays

    def test_drawing_leaves_the_model_s_random_numbers_alone(self, rnas):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        self.batches(rnas, 8)
        assert torch.equal(torch.rand(3), expected)


MASKED_LM = MaskedLMPart(fraction=0.25, max_length=40)


def test_gains():
    settings = Settings(model={**MODEL, "hidden_size": 64}, embedding_gain=20.0, pair_bias=-2.0)
    model = new_model(settings).eval()
    plain = new_model(Settings(model={**MODEL, "hidden_size": 64}))
    ratio = model.get_input_embeddings().weight / plain.get_input_embeddings().weight
    assert ratio[0, 0].item() == pytest.approx(20.0)
    logits = model(**ErnieRnaTokenizer()(["ACGU"], return_tensors="pt")).logits
    assert 0.3 < logits.std().item() < 3
    assert model.pair_head.conv_out.bias.item() == -2.0


def run(*arguments):
    assert pretrain.main([*map(str, arguments), "--cpu"]) == 0


def weights(folder):
    return {
        **load_file(folder / "model.safetensors"),
        **{f"average.{k}": v for k, v in load_file(folder / AVERAGE_FILE).items()},
    }


def test_a_killed_run_goes_on_exactly(table, config_file, tmp_path):
    torch.set_num_threads(1)  # as in the other process; the fixture sets it back
    run(config_file, table, tmp_path / "whole")
    command = [sys.executable, ROOT / "scripts" / "pretrain.py", config_file, table]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, tmp_path / "killed", "--cpu"], env=environment)
    deadline = time.monotonic() + 120
    while not last_checkpoint(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = last_checkpoint(tmp_path / "killed")
    assert killed_at is not None
    run(config_file, table, tmp_path / "killed", "--resume")
    expected = weights(tmp_path / "whole" / "checkpoint-6")
    found = weights(tmp_path / "killed" / "checkpoint-6")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    logs = (tmp_path / "whole" / LOG_FILE).read_text().splitlines()
    metrics = [json.loads(line) for line in logs if "eval_f1" in line]
    assert {line["step"] for line in metrics} == {3, 6}
    assert {"eval_masked_lm_loss", "eval_pair_loss", "eval_f1_at_1.5"} <= metrics[0].keys()


def test_picture_of_the_log(table, config_file, tmp_path):
    pytest.importorskip("matplotlib")
    run(config_file, table, tmp_path, "--steps", 3)
    assert "<svg" in (tmp_path / PICTURE).read_text()
    with (tmp_path / LOG_FILE).open("a") as file:  # as of a run that went on from step 2
        file.write('{"step": 3, "loss": 7.0}\n')
    assert read_log(tmp_path)["loss"][3] == 7.0


def test_export(table, config_file, tmp_path, capsys):
    run(config_file, table, tmp_path / "run", "--steps", 2)
    (tmp_path / "card.md").write_text("# A card")
    out = tmp_path / "model"
    command = [tmp_path / "run", table, out, "--card", tmp_path / "card.md"]
    assert export_pretrained.main([*map(str, command)]) == 0
    assert why_no_export(out) is None
    assert "threshold" in capsys.readouterr().out
    average = load_average(tmp_path / "run" / "checkpoint-2")
    model, info = ErnieRnaForPreTraining.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.dtype == torch.float32
    offset = 2 * (model.pair_head.conv_out.bias - average.pair_head.conv_out.bias).item()
    assert offset == pytest.approx(min(OFFSETS, key=lambda one: abs(one - offset)), abs=1e-2)
    assert model.config.pair_threshold in THRESHOLDS
    assert model.config.weights_origin == "pretrained"
    fits = {"rtol": 2e-3, "atol": 2e-3}  # float16 has 11 bits
    batch = ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    expected, found = average(**batch), model.eval()(**batch)
    torch.testing.assert_close(found.logits, expected.logits, **fits)
    inside = expected.pair_logits + offset
    torch.testing.assert_close(found.pair_logits, inside, rtol=1e-2, atol=2e-2)
    for model_class in (ErnieRnaModel, ErnieRnaForMaskedLM, ErnieRnaForSecondaryStructure):
        _, info = model_class.from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"]
    scores = tmp_path / "scores.tsv"
    command = [str(out), str(table), "--split", "validation", "-o", str(scores)]
    assert evaluate_pair_head.main(command) == 0
    assert len(scores.read_text().splitlines()) == 1 + 8
    capsys.readouterr()
    chosen = [*command[:4], "--sequences", "4"]
    assert evaluate_pair_head.main([*chosen, "--scores", "all"]) == 0
    best = capsys.readouterr().out.splitlines()[1].split("\t")
    assert evaluate_pair_head.main([*chosen, "--scores", ",".join(best[:2])]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[-1] == best[2]
    assert evaluate_pair_head.main([*chosen, "--random"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("all\t4")


def test_a_run_begins_with_the_weights_of_another(table, config_file, tmp_path, capsys):
    run(config_file, table, tmp_path / "first", "--steps", 2)
    gain = tmp_path / "gain.json"
    gain.write_text(json.dumps({**SETTINGS, "learning_rate": 0.0, "residual_gain": 0.25}))
    run(gain, table, tmp_path / "next", "--steps", 2, "--start-from", tmp_path / "first")
    first, after = (load_average(tmp_path / name / "checkpoint-2") for name in ("first", "next"))
    for (name, before), now in zip(first.named_parameters(), after.parameters(), strict=True):
        scaled = "out_proj" in name or "fc2" in name
        torch.testing.assert_close(now, before * 0.25 if scaled else before)
    command = [config_file, table, tmp_path / "x", "--start-from", tmp_path / "none"]
    assert pretrain.main([*map(str, command)]) == 1
    assert "none: has no whole checkpoint to begin with" in capsys.readouterr().err


def test_a_run_begins_with_more_blocks_than_another(table, config_file, tmp_path, capsys):
    run(config_file, table, tmp_path / "first", "--steps", 2)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**SETTINGS, "model": {**MODEL, "pair_blocks": 3}}))
    checkpoint = tmp_path / "first" / "checkpoint-2"
    first, wider = load_average(checkpoint), model_of(checkpoint, read_settings(config)).eval()
    assert len(wider.pair_head.blocks) == 3
    batch = ErnieRnaTokenizer()(["GGGAAACCC", "AUGGCUACGAA"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(first(**batch).pair_logits, wider(**batch).pair_logits)
    run(config, table, tmp_path / "next", "--steps", 1, "--start-from", tmp_path / "first")
    for other, message in (
        ({"pair_channels": 9}, "a model whose pair_channels is 8, not 9"),
        ({"pairing_scores": "zero"}, "a model whose pairing_scores is sequence, not zero"),
        ({"pair_blocks": 0}, "pair_blocks"),
    ):
        config.write_text(json.dumps({**SETTINGS, "model": {**MODEL, **other}}))
        command = [config, table, tmp_path / "x", "--start-from", tmp_path / "first"]
        assert pretrain.main([*map(str, command)]) == 1
        assert message in capsys.readouterr().err


def test_predicted_structures(table, config_file, tmp_path, capsys):
    """Made, trained on beside the known ones, and neither forgotten nor taken by mistake."""
    pytest.importorskip("RNA")
    made = tmp_path / "predicted.tsv.gz"
    command = [table, made, "--count", 30, "--max-length", 30, "--processes", 1]
    assert predict_structures.main([*map(str, command)]) == 0
    predicted = read_table(made, "train", predicted=True)
    assert len(predicted) == 30
    assert all(
        rna.sequence[i] + rna.sequence[j] in PAIRS for rna in predicted for i, j in rna.pairs
    )
    again = tmp_path / "again.tsv"
    predict_structures.main([*map(str, [table, again, *command[2:]])])
    assert read_table(again, "train", predicted=True) == predicted

    options = [config_file, table, tmp_path / "run", "--cpu"]
    assert pretrain.main([*map(str, options), "--predicted", str(made)]) == 1
    assert "structure.predicted is 0.0" in capsys.readouterr().err
    part = {**SETTINGS["structure"], "predicted": 0.5}
    config_file.write_text(json.dumps({**SETTINGS, "structure": part}))
    assert pretrain.main([*map(str, options)]) == 1
    assert "structure.predicted is 0.5" in capsys.readouterr().err
    assert pretrain.main([*map(str, options), "--predicted", str(made)]) == 0
    assert "eval_f1" in (tmp_path / "run" / LOG_FILE).read_text()


def test_sequences_without_pairs_are_in_no_structure_batch(tmp_path, config_file, capsys):
    table = tmp_path / "table.tsv"
    rows = [("a", "GGGAAACCC", "(((...)))", "train"), ("b", "GGGAAAGGG", ".........", "train")]
    rows += [("c", "GGGAAAGGG", ".........", "validation")]
    lines = ["id\tsequence\tdot_bracket\tfamily\tsplit"]
    lines += [f"{name}\t{bases}\t{pairs}\tF{name}\t{split}" for name, bases, pairs, split in rows]
    table.write_text("\n".join(lines) + "\n")
    kinds = _batches(read_table(table, "train"), read_settings(config_file))
    drawn = [{rna.id for rna in next(kind.batches())} for kind in kinds]
    assert drawn == [{"a", "b"}, {"a"}]
    assert pretrain.main([str(config_file), str(table), str(tmp_path / "run"), "--cpu"]) == 1
    assert (
        "the validation data: no sequence has pairs and at most 40 nucleotides"
        in capsys.readouterr().err
    )


def test_checkpoints_are_not_overwritten(table, config_file, tmp_path, capsys):
    run(config_file, table, tmp_path / "run", "--steps", 2)
    assert pretrain.main([str(config_file), str(table), str(tmp_path / "run"), "--cpu"]) == 1
    assert "--resume" in capsys.readouterr().err


def test_two_processes(table, config_file, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = ["-m", "ernie_rna.cli", "pretrain", config_file, table, tmp_path / "run", "--cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, [*launch, *script])], env=environment, check=True, timeout=300)
    folder = tmp_path / "run" / "checkpoint-6"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in folder.iterdir()}
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
