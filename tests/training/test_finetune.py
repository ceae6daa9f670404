"""Fine-tuning: every task from a table to a folder that loads, and what is refused before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import ernie_rna
from ernie_rna.conversion.folder import code_files
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.tasks import TASKS, Task
from tests.training.conftest import ROWS, SMALL, TEST

CLASSES = ["miRNA", "rRNA", "tRNA"]
CLASSIFY = ("--task", "classification", *TEST)
NUMBERS = ("--task", "regression", "--label-column", "number", *TEST)
BASES = ("--task", "token-classification", "--label-column", "bases", *TEST)


@pytest.mark.parametrize(
    ("task", "columns", "names"),
    [
        ("classification", ["label"], CLASSES),
        ("multi-label", ["several"], ["GC", "short"]),
        ("multi-label", ["odd", "always"], ["odd", "always"]),
        ("regression", ["number"], ["number"]),
        ("regression", ["number", "odd"], ["number", "odd"]),
        ("ribosome-loading", ["number"], ["number"]),
        ("token-classification", ["bases"], ["S", "W"]),
    ],
)
def test_what_was_saved_scores_the_same(run, table, rows, tmp_path, task, columns, names):
    for i, row in enumerate(rows):
        row |= {"always": "1", "odd": str(i % 2)}
    made = run(table(rows=rows), "--task", task, "--label-column", *columns, *TEST)
    assert tuple(made.metrics["test"]) == TASKS[task].metric_names
    assert ("test: k-mers" in made.metrics) == (task != "token-classification")
    assert f"labels ({len(names)}): {', '.join(names)}" in made.err
    assert TASKS[task].metric_names[0] in made.out
    assert made.config.id2label == dict(enumerate(names))
    assert made.config.label2id == {name: index for index, name in enumerate(names)}
    assert made.config.problem_type == TASKS[task].problem_type
    tests = table("test.tsv", [row for row in rows if row["split"] == "test"])
    given = {"label_column": columns, "progress": False}
    predicted = ernie_rna.predict(tests, made.folder, tmp_path / "again.npz", **given).metrics
    expected = {n: np.nan if value is None else value for n, value in made.metrics["test"].items()}
    assert predicted == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def test_a_new_head_starts_at_the_means_of_training_and_a_trained_one_stays(run, table, rows):
    rows = [row | {"other": "70.5"} for row in rows]
    higher = [row | {"number": f"{float(row['number']) + 100}"} for row in rows]
    training = [float(row["number"]) for row in rows if row["split"] == "train"]
    for task, others in (("regression", ["other"]), ("ribosome-loading", [])):
        options = ("--task", task, "--label-column", "number", *others, *TEST)
        first = run(table(rows=rows), *options, out=task)
        for made in (first, run(table(rows=higher), *options, model=first.folder, out="next")):
            if others:
                bias = made.weights["classifier.bias"].tolist()
                assert bias == pytest.approx([np.mean(training), 70.5], abs=0.01)
            else:
                scaler = made.config.loading_mean, made.config.loading_scale
                assert scaler == pytest.approx((np.mean(training), np.std(training)))
        shutil.rmtree(made.folder)


def test_bases_without_a_label_are_left_out_and_long_sequences_cut(run, table, rows):
    for row in rows:
        row |= {"sequence": row["sequence"] * 2, "bases": f"...{row['bases'] * 2}"[:-3]}
    rows[-6]["bases"] = "." * len(rows[-6]["bases"])  # which is measured alone before training
    made = run(table(rows=rows), *BASES, "--ignore-label", ".", "--truncate")
    assert made.metrics["test"]["accuracy"] >= 0
    assert made.config.id2label == {0: "S", 1: "W"}


def test_masked_lm_on_fasta(run, rows, tmp_path):
    for name in ("train", "test"):
        own = [row["sequence"] for row in rows if row["split"] == name]
        fasta = "".join(f">rna{i}\n{sequence}\n" for i, sequence in enumerate(own))
        (tmp_path / f"{name}.fasta").write_text(fasta)
    files = (tmp_path / "train.fasta", "--eval-file", tmp_path / "test.fasta")
    options = ("--task", "masked-lm", "--mask-pairing", "pretraining", "--batch-size", "6")
    made = run(*files, *options)
    assert set(made.metrics["test"]) == {"perplexity", "loss", "accuracy"}
    assert 1 < made.metrics["test: guess"]["perplexity"] < 4.5
    # The saved model gives the same figure to the plain Trainer, for the masks of the seed.
    model = ernie_rna.ErnieRnaForMaskedLM.from_pretrained(made.folder)
    tokenizer = ernie_rna.ErnieRnaTokenizer.from_pretrained(made.folder)
    data = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in own]
    how = transformers.TrainingArguments(str(tmp_path / "own"), report_to=[], use_cpu=True)
    collator = ernie_rna.MaskingCollator(tokenizer, model.config, "pretraining")
    trainer = transformers.Trainer(model, how, data_collator=collator)
    torch.manual_seed(0)
    loss = made.metrics["test"]["loss"]
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert run(*files, *options, out="again").metrics == made.metrics


def test_training_lowers_the_loss(run, table):
    how = ("--steps", "60", "--learning-rate", "1e-2", "--batch-size", 16)
    # The label is the base itself.
    assert run(table(), *BASES, *how).metrics["test"]["accuracy"] > 0.95


def test_the_folder_loads_and_its_card_says_what_it_was_trained_on(run, table, rows, tmp_path):
    parts = {"train.csv": rows[:18], "valid.csv": rows[18:], "test.csv": rows[18:]}
    training, *files = (table(name, own) for name, own in parts.items())
    made = run(training, *CLASSIFY[:2], "--eval-file", *files, "--lora", 2)
    kinds = ("", ": guess", ": k-mers")
    assert {*made.metrics} == {f"{name}{kind}" for name in ("valid", "test") for kind in kinds}
    assert {path.name for path in code_files()} <= {path.name for path in made.folder.iterdir()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.folder, trust_remote_code=True)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(made.folder, trust_remote_code=True)
    assert model(**tokenizer("AUGC", return_tensors="pt")).logits.shape == (1, 3)
    split = f"- test: 6 rows, sha256 {made.facts['splits']['test']['sha256']}\n"
    there = [split, "Labels: miRNA, rRNA, tRNA.\n", "  test: guess  ", " in 2 steps,"]
    there += ["`AutoModelForSequenceClassification`", "\n- lora: 2\n", "\n- seed: 0\n"]
    assert [text for text in there if text not in made.card] == []
    not_there = ("- epochs", "- held_out", "- mask_", str(tmp_path))
    assert [text for text in not_there if text in made.card] == []


@pytest.mark.slow
def test_the_folder_loads_without_this_package(run, table, tmp_path):
    code = (
        "import sys; from transformers import pipeline\n"
        "classify = pipeline('text-classification', sys.argv[1], trust_remote_code=True)\n"
        "print(classify('AUGC')[0]['label'])\n"
        "assert 'ernie_rna' not in sys.modules and 'modeling_ernie_rna' not in sys.modules\n"
    )
    command = [sys.executable, "-I", "-c", code, str(run(table(), *CLASSIFY).folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in CLASSES


# ---------------------------------------------------------------------------------------------
# What is refused


ONE_CLASS = {(row, "label"): "a" for row in range(ROWS)}
LONG = {(2, "sequence"): "A" * 41, (7, "sequence"): "C" * 50}
TOO_LONG = "line 4: 41 nucleotides, more than the limit of 40: --truncate cuts"
UNFIT = {(3, "sequence"): "ACGU", (3, "bases"): "SSSSS"}
IGNORED = "token-classification --label-column ignored --ignore-label -"
NO_LABELS = "no base has a label other than '-', which is ignored"
SPLIT = "classification --split-column split --eval-split"
BREAKS = "argument --trainer: breaks the training: "
UNDIVIDED = "of the column 'label' cannot be divided into"
UNKNOWN = f"(test): line {ROWS + 1}: label: 'lncRNA' is not a label of the training: miRNA, "


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("masked-lm --sequence-column rna", {}, "no column 'rna'"),
        (f"{SPLIT} test", {(-1, "label"): "lncRNA"}, UNKNOWN),
        ("regression --label-column number", {(4, "number"): "4,2"}, "line 6: number: '4,2' is no"),
        ("classification", LONG, TOO_LONG),
        ("token-classification --label-column bases", UNFIT, "line 5: 5 labels for 4 bases"),
        ("classification", {(5, "sequence"): ""}, "(line 7): it is empty"),
        ("classification", ONE_CLASS, "has 1 different labels; this task needs at least 2"),
        (f"{IGNORED} --split-column split --eval-split test", {}, f"(test): {NO_LABELS}"),
        (f"{IGNORED} --split split --folds 2", {}, f"(fold 2): {NO_LABELS}"),
        (f"{SPLIT} valid", {}, "no row with split='valid'; its values are test, train"),
        (f"{SPLIT} held-out --split random", {(0, "split"): "held-out"}, "is called 'held-out'"),
        ("multi-label --label-column number label", {}, "is neither 0 nor 1"),
        ("classification --label-column label bases", {}, "label column is needed; got label, ba"),
        ("classification --split label --folds 4", {}, f"3 values {UNDIVIDED} 4 parts"),
        ("classification --label-column bases --split label", ONE_CLASS, f"1 value {UNDIVIDED} 2"),
        (f"{SPLIT} test --best r2", {}, "argument --best: must be accuracy or macro_f1 or mcc"),
        (f"{SPLIT} test --trainer per_device_eval_batch_size=0", {}, f"{BREAKS}batch_size should"),
        (f"{SPLIT} test --trainer eval_accumulation_steps=0", {}, BREAKS),
        (f'{SPLIT} test --trainer lr_scheduler_kwargs={{"a":1}}', {}, BREAKS),
        (f"{SPLIT} test --trainer report_to=magic", {}, f"{BREAKS}magic is not supported"),
        (
            "classification --lora 17",
            {},
            "--lora: 17 is above 16, the width of the matrices that it",
        ),
        ("masked-lm --mask-probability 1e-9", {}, "1e-09 of the nucleotides is less than one: ra"),
        ("structure --truncate --max-length 1", {}, "data.tsv: no two bases can pair (A-U, G-C"),
        (f"{SPLIT} test --eval-steps 9", {}, "argument --eval-steps: 9 is more than the 2 steps"),
        ("classification -m ./absent", {}, "error: there is no folder ./absent"),
    ],
)
def test_what_is_refused_before_training(refusal, table, rows, task, changes, message):
    for row in rows:
        row["ignored"] = row["bases"] if row["split"] == "train" else "-" * len(row["sequence"])
    for (row, column), value in changes.items():
        rows[row][column] = value
    told = refusal(table(rows=rows), "--task", *task.split())
    assert message in told
    assert "step 1 of" not in told


def test_a_model_that_is_there(run, refusal, table, rows, model_folder, tmp_path):
    """It is not trained for other labels, and --force replaces it."""
    first = run(table(), *CLASSIFY)
    config = first.config
    config.id2label = {number: f"LABEL_{number}" for number in range(5)}  # without names
    ernie_rna.ErnieRnaForSequenceClassification(config).save_pretrained(tmp_path / "five")
    shutil.copy(model_folder / "tokenizer.json", tmp_path / "five")
    renamed = [row | {"label": row["label"].replace("miRNA", "piRNA")} for row in rows]
    several = ("--task", "multi-label", "--label-column", "several")
    config.architectures, config.pair_heads = ["ErnieRnaForCloseness"], [0, 3]
    ernie_rna.ErnieRnaForCloseness(config).save_pretrained(tmp_path / "close")
    other = "its head has other labels"
    for model, options, message in (
        ("out", several, "its head is for single_label_classification: miRNA, rRNA, tRNA; the tab"),
        ("out", CLASSIFY[:2], f"{other}: miRNA, rRNA, tRNA; the table has piRNA"),
        ("five", CLASSIFY[:2], f"{other}: LABEL_0, LABEL_1"),
        ("out", BASES[:4], "is ErnieRnaForSequenceClassification, with a head of 3 labels for an"),
        ("close", ("--task", "structure"), "is ErnieRnaForCloseness, with a head of 2 maps for "),
    ):
        assert message in refusal(table(rows=renamed), *options, model=tmp_path / model)
    assert "exists already; --force replaces it" in refusal(table(), *CLASSIFY, out="out")
    itself = refusal(table(), *CLASSIFY, "--force", out="out", model=first.folder)
    assert f"out would replace {first.folder}, an input: name another output" in itself
    inode = (first.folder / "model.safetensors").stat().st_ino
    again = run(table(), *CLASSIFY, "--force")
    assert (again.folder / "model.safetensors").stat().st_ino != inode


def test_a_head_for_one_number_gets_a_new_name_and_several_keep_their_order(
    run, refusal, table, tmp_path
):
    golden = Path(__file__).parents[1] / "golden" / "tiny_ribosome_loading_head.pt"
    ernie_rna.convert(golden, tmp_path / "TRL")
    before = ernie_rna.ErnieRnaConfig.from_pretrained(tmp_path / "TRL")
    loading = ("--task", "ribosome-loading", "--label-column", "number", "--steps", 1)
    made = run(table(), *loading, out="loading", model=tmp_path / "TRL")
    assert made.config.loading_mean == before.loading_mean
    assert made.config.id2label == {0: "number"}
    rows = [{"sequence": "ACGU" * 3, "x": f"{i}", "y": f"{-i}"} for i in range(4)]
    regression, data = ("--task", "regression", "--steps", 1, "--label-column"), ("xy.tsv", rows)
    one = run(table(*data), *regression, "x", out="one")
    assert run(table(*data), *regression, "y", out="y", model=one.folder).config.id2label == {
        0: "y"
    }
    two = run(table(*data), *regression, "x", "y", out="two")
    message = refusal(table(*data), *regression, "y", "x", model=two.folder)
    assert (
        "has another order of labels: x, y; the table has y, x: give --label-column x y" in message
    )


def test_a_folder_without_a_name_is_not_the_one_it_is_in(refusal, table, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "the folder to write is empty" in refusal(table(), *CLASSIFY, "-o", "", "--force")
    assert not [*(tmp_path / "empty").iterdir()]


def test_a_missing_extra_and_processes_that_measure_are_named(refusal, table, monkeypatch):
    with pytest.raises(TypeError, match="expected a folder or a Hub id"):
        ernie_rna.finetune(table(), object(), "out", task="classification")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert 'pip install "ernie-rna[train]"' in refusal(table(), *CLASSIFY)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(table(), *CLASSIFY, "--dry-run")
    assert "argument --dry-run: measures one process; this is one of 2" in message


def test_labels_of_minus_100_are_numbers_and_json_is_json(run, table, rows):
    def refuse(word):
        raise ValueError(word)

    rows = [row | {"number": "-100"} for row in rows]  # whose correlation is not defined
    made = run(table(rows=rows), *NUMBERS, "--json")
    facts = json.loads(made.out, parse_constant=refuse)
    assert facts["metrics"]["test"]["mse"] < 1
    assert facts["metrics"]["test"]["spearman"] is None
    assert facts["splits"]["train"]["rows"] == 18
    assert all(entry["loss"] > 0 for entry in made.log if "loss" in entry)


def test_what_becomes_nan_ends_the_run(refusal, table):
    message = refusal(table(), *NUMBERS[:4], "--learning-rate", "1e30", "--steps", 20)
    for text in ("became", "in step", "on the training rows in lines", "nothing was saved"):
        assert text in message


@pytest.mark.parametrize(
    ("error", "code", "more"), [(KeyboardInterrupt, 130, ["--resume"]), (RuntimeError, 1, [])]
)
def test_an_evaluation_that_fails_leaves_the_model(
    start, run, table, tmp_path, monkeypatch, capsys, error, code, more
):
    evaluate, measured = Task.evaluate, []

    def fail(self, trainer, examples):
        measured.append(len(examples))
        if len(measured) == 2:
            raise error
        return evaluate(self, trainer, examples)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "evaluate", fail)
        assert start(table(), *CLASSIFY, *more) == code
    assert "is saved" in capsys.readouterr().err
    ernie_rna.ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    metrics = tmp_path / "out" / "metrics.json"
    assert not metrics.exists()
    assert (tmp_path / "out.partial").exists() == bool(more)
    assert measured == [1, 6]  # One row is tried before training.
    if more:
        metrics.touch()  # Then it is not what this run has left.
        assert start(table(), *CLASSIFY, *more) == 1
        metrics.unlink()
        assert {"test", "test: guess"} <= {*run(table(), *CLASSIFY, *more).metrics}


# ---------------------------------------------------------------------------------------------
# Resuming


BEST = ("--eval-steps", 1, "--best", "accuracy", "--patience", 2, "--learning-rate", "1e-9")


@pytest.mark.parametrize(
    ("options", "step", "steps"),
    [
        ((*CLASSIFY, "--steps", 5), 3, 5),
        ((*CLASSIFY, "--steps", 5), None, 5),
        (("--task", "masked-lm", "--steps", 6), 3, 6),
        ((*CLASSIFY, "--steps", 5, *BEST), 2, 3),
        ((*CLASSIFY, "--steps", 5, *BEST), None, 3),
    ],
    ids=["step", "end", "masks", "best-step", "best-end"],
)
def test_a_resumed_run_ends_where_it_would_have(
    run, killed, table, tmp_path, capsys, options, step, steps
):
    """Same weights, masks and losses; neither a step more, nor more patience than was left."""
    whole = run(table(), *options, out="whole")
    killed(table(), *options, step=step)
    assert "run the same command again to resume" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    states = tmp_path / "out.partial"
    last = max(int(path.name[11:]) for path in states.glob("checkpoint-*"))
    # A kill while a state is written leaves one without one of these.
    for number, file in ((7, "trainer_state.json"), (8, "rng_state.pth")):
        shutil.copytree(states / f"checkpoint-{last}", states / f"checkpoint-{number}")
        (states / f"checkpoint-{number}" / file).unlink()
    made = run(table(), *options, "--resume")
    assert made.facts["steps"] == whole.facts["steps"] == steps
    assert all(made.same(whole.weights).values())
    assert made.log == whole.log


@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json", "model.safetensors"]
)
def test_a_damaged_state_is_named(start, killed, table, tmp_path, capsys, file):
    options = (*CLASSIFY, "--steps", "4")
    killed(table(), *options, step=3)
    (path,) = (tmp_path / "out.partial").glob(f"checkpoint-*/{file}")
    os.truncate(path, 100)
    assert start(table(), *options, "--resume") == 1
    message = capsys.readouterr().err
    assert f"error: {path} is damaged (" in message
    assert f"delete {path.parent} to resume from an older state, or from the start" in message
    shutil.rmtree(path.parent)
    assert start(table(), *options, "--resume") == 0


def test_a_best_state_that_is_missing_is_named(start, killed, table, tmp_path, capsys):
    options = (*CLASSIFY, "--steps", 5, *BEST)
    killed(table(), *options, step=3)
    states = tmp_path / "out.partial"
    shutil.rmtree(states / "checkpoint-1")
    assert start(table(), *options, "--resume") == 1
    message = f"{states / 'checkpoint-1'}, the best state, is missing: delete {states} to start"
    assert message in capsys.readouterr().err


def test_a_run_that_differs_is_not_resumed(start, killed, table, rows, capsys, tmp_path):
    data, options = table(), (*CLASSIFY, "--steps", "4")
    killed(data, *options, step=3)
    renamed = [row | {"label": row["label"].replace("tRNA", "aRNA")} for row in rows]
    for more, difference in (
        ("--learning-rate 1", "options.learning_rate was 0.0001, is 1.0"),
        ("--frozen", "options.frozen was False, is True"),
        ("--task masked-lm", "options.task was 'classification', is 'masked-lm'"),
        ("", "labels was ['miRNA', 'rRNA', 'tRNA'], is ['aRNA'"),
    ):
        given = data if more else table("renamed.tsv", renamed)
        same = options[2 * ("--task" in more) :]
        assert start(given, *same, *more.split(), "--resume") == 1
        assert difference in capsys.readouterr().err
    assert start(data, *options) == 1
    assert "--resume resumes it, --force deletes it" in capsys.readouterr().err
    assert start(data, *options, "--resume", "--force") == 0
    assert not (tmp_path / "out.partial").exists()


# ---------------------------------------------------------------------------------------------
# What a run will take


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (NUMBERS[:4], 2),
        ((*NUMBERS[:4], "--folds", "3", "--lora", "2"), 8),
        ((*NUMBERS, "--best", "mse", "--patience", "1"), 2),
        (("--task", "structure", "--label-column", "dot_bracket", "--resume", *TEST), 2),
    ],
    ids=["plain", "folds", "best", "structure"],
)
def test_a_dry_run_writes_nothing(start, table, tmp_path, capsys, options, steps):
    assert start(table(), *options, "--dry-run") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.tsv"}
    told = capsys.readouterr().err
    assert f" rows, {steps} steps: about " in told
    assert " of output (measured on 2 steps)" in told
    states = "out.partial takes up to" in told
    assert states == bool({"--best", "--resume"} & {*options})
    assert start(table(), *options, "--dry-run", "--json", "--quiet") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["estimate"].startswith("about ")
    assert "metrics" not in facts


# ---------------------------------------------------------------------------------------------
# What is known of the data and the training


def test_leakage_is_told(run, table, rows):
    rows[-1]["sequence"] = rows[0]["sequence"].replace("U", "t")
    rows[1] |= {"sequence": rows[0]["sequence"], "label": "other"}
    made = run(table(rows=rows), *CLASSIFY)
    assert "1 of 6 sequences of test are in training as well" in made.notes[-1]
    assert "1 training sequences occur more than once, with different labels" in made.notes
    assert "classes with a single row: other" in made.notes
    assert [note for note in made.notes if note not in made.card or note not in made.err] == []


@pytest.mark.parametrize(
    ("column", "way_out"),
    [(TEST[:2], "--eval-split names the values of 'split'"), ((), "--split similar holds out")],
)
def test_nothing_is_evaluated(run, table, column, way_out):
    made = run(table(), *CLASSIFY[:2], *column, "--steps", 1)
    assert made.metrics == {}
    assert f"note: nothing is evaluated: {way_out}" in made.err
    others = "6 rows are not used: their split is test, which is neither --train-split"
    assert (others in made.err) == bool(column)
    assert "The model was not evaluated." in made.card


def test_the_best_state_is_kept(run, table):
    options = ("--eval-steps", 2, "--best", "mse", "--steps", 8, "--learning-rate", "0.3")
    made = run(table(), *NUMBERS, *options)
    values = [entry["eval_mse"] for entry in made.log if "eval_mse" in entry]
    assert len(values) == 4
    assert made.metrics["test"]["mse"] == pytest.approx(min(values), rel=1e-5)
    assert "</svg>" in (made.folder / "curve.svg").read_text()


@pytest.mark.parametrize(
    ("options", "frozen"),
    [(("--frozen",), True), (("--lora", 2), False), ((), False)],
    ids=["frozen", "lora", "whole"],
)
@pytest.mark.parametrize("task", ["structure", "ribosome-loading", "masked-lm"])
def test_what_is_trained(run, table, model_folder, task, options, frozen):
    column = ("--label-column", "number") if task == "ribosome-loading" else ()
    made = run(table(), "--task", task, *column, *options, "--learning-rate", "0.1", *TEST)
    assert set(made.metrics["test"]) == set(TASKS[task].metric_names)
    before = load_file(model_folder / "model.safetensors")
    encoder = made.same({n: w for n, w in before.items() if n.startswith("ernie_rna.")})
    assert all(encoder.values()) == frozen
    assert encoder["ernie_rna.layers.0.self_attn.q_proj.weight"] == frozen
    last = "ernie_rna.layers.1.fc2.weight"  # behind the scores that structures are read off
    assert encoder[last] == (frozen or task == "structure")
    assert 0 < made.facts["weights_trained"] <= made.facts["weights"]
    some = made.facts["weights_trained"] < made.facts["weights"]
    assert some == bool(options or task == "structure")


def test_structures(run, table, rows, tmp_path):
    made = run(table(), "--task", "structure", "--positive-weight", 5, *TEST)
    known = [
        Structure(str(row), one["sequence"], from_dot_bracket(one["dot_bracket"]))
        for row, one in enumerate(rows)
        if one["split"] == "test"
    ]
    sequences = {one.id: one.sequence for one in known}
    folded = ernie_rna.fold(sequences, made.folder, progress=False)
    scores = ernie_rna.evaluate([one.structure for one in folded], known).mean_exact
    found = made.metrics["test"]
    assert {name: getattr(scores, name) for name in found} == pytest.approx(found)
    assert made.config.architectures == ["ErnieRnaForSecondaryStructure"]
    assert (made.config.pair_heads, made.config.pair_positive_weight) == ([5], 5)
    auto_map = json.loads((made.folder / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_ernie_rna.ErnieRnaForSecondaryStructure"
    config = ernie_rna.ErnieRnaConfig(**SMALL, num_attention_heads=4, pair_channels=8)
    ernie_rna.ErnieRnaForMaskedLM(config).save_pretrained(tmp_path / "four")
    shutil.copy(made.folder / "tokenizer.json", tmp_path / "four")
    four = run(table(), "--task", "structure", model=tmp_path / "four", out="of-four")
    assert four.config.pair_heads is None


def test_the_calibration_of_another_head_goes_and_no_pair_is_right(run, table, rows):
    rows = [row | {"sequence": "AUU", "dot_bracket": "..."} for row in rows]  # too short a loop
    rows[0] |= {"sequence": "AAA"}
    made = run(table(rows=rows), "--task", "structure", "--frozen", *TEST, model="mini")
    assert "1 training rows have no part in the loss: no two bases can pair" in made.err
    assert made.metrics["test"]["f1"] == 1  # no pair, and none predicted
    before = ernie_rna.ErnieRnaConfig.from_pretrained(ernie_rna.mini())
    assert before.pair_calibration is not None
    assert made.config.pair_calibration is None
    assert made.config.pair_channels == before.pair_channels


@pytest.mark.slow
def test_two_processes_train_what_one_trains(model_folder, table, tmp_path):
    options = ["--task", "structure", "--steps", "3", "--device", "cpu", *TEST]
    shared = ["-m", "ernie_rna", "finetune", table(), "-m", str(model_folder), *options]
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, size, name in (([], "4", "one"), (two, "2", "two")):
        command = [*launcher, *shared, "--batch-size", size, "-o", str(tmp_path / name)]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("weights were trained") == 1
    assert (tmp_path / "two" / "metrics.json").exists()
