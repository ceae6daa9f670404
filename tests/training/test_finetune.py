"""Fine-tuning: every task from a table to a folder that loads, and what is refused before."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from ernie_rna.cli.main import main
from ernie_rna.conversion.folder import code_files
from ernie_rna.data import mini
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForSequenceClassification,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.scoring.predict import predict
from ernie_rna.structures.evaluation import evaluate
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.collators import MaskingCollator
from ernie_rna.training.tasks import TASKS, Task
from tests.training.conftest import QUICK, ROWS, TEST, Killer

CLASSES = ["miRNA", "rRNA", "tRNA"]


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
        ("token-classification", ["words"], ["S", "W"]),
        ("token-classification", ["commas"], ["S", "W"]),
    ],
)
def test_the_same_figure_from_what_was_saved(
    run, table, rows, tmp_path, capsys, task, columns, names
):
    for i, row in enumerate(rows):
        row |= {"always": "1", "odd": str(i % 2)}
        row |= {"words": " ".join(row["bases"]), "commas": ",".join(row["bases"])}
    metrics = run(table(rows=rows), "--task", task, "--label-column", *columns, *TEST)
    assert set(metrics["test"]) == set(TASKS[task].metric_names)
    assert ("test: k-mers" in metrics) == (task != "token-classification")
    printed = capsys.readouterr()
    assert f"labels ({len(names)}): {', '.join(names)}" in printed.err
    assert TASKS[task].metric_names[0] in printed.out
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
    assert config.problem_type == TASKS[task].problem_type
    given = {"label_column": columns, "progress": False}
    tests = table("test.tsv", [row for row in rows if row["split"] == "test"])
    predicted = predict(tests, tmp_path / "out", tmp_path / "again.npz", **given).metrics
    expected = {n: math.nan if value is None else value for n, value in metrics["test"].items()}
    assert predicted == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def test_regression_of_several_numbers_starts_from_their_means(run, table, rows, tmp_path):
    rows = [row | {"other": "70.5"} for row in rows]
    columns = ("--label-column", "number", "other")
    run(table(rows=rows), "--task", "regression", *columns, "--frozen", *TEST)
    model = ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    training = [float(row["number"]) for row in rows if row["split"] == "train"]
    means = torch.tensor([np.mean(training), 70.5], dtype=torch.float32)
    torch.testing.assert_close(model.classifier.bias.detach(), means, atol=0.01, rtol=0)


def test_bases_without_a_label_are_left_out(run, table, rows, tmp_path):
    rows = [row | {"bases": row["bases"][:-3] + "..."} for row in rows]
    options = ("--label-column", "bases", "--ignore-label", ".", *TEST)
    run(table(rows=rows), "--task", "token-classification", *options)
    assert ErnieRnaConfig.from_pretrained(tmp_path / "out").id2label == {0: "S", 1: "W"}


@pytest.mark.parametrize("pairing", ["inference", "pretraining"])
def test_masked_lm(run, table, rows, tmp_path, pairing):
    options = ("--task", "masked-lm", "--mask-pairing", pairing, "--batch-size", "6", *TEST)
    metrics = run(table(), *options)
    assert set(metrics["test"]) == {"perplexity", "loss", "accuracy"}
    assert 1 < metrics["test: guess"]["perplexity"] < 4.5
    # The saved model gives the same figure to the plain Trainer, for the masks of the seed.
    model = ErnieRnaForMaskedLM.from_pretrained(tmp_path / "out")
    tokenizer = ErnieRnaTokenizer.from_pretrained(tmp_path / "out")
    tests = [row["sequence"] for row in rows if row["split"] == "test"]
    data = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in tests]
    how = TrainingArguments(str(tmp_path / "own"), report_to=[], use_cpu=True)
    collator = MaskingCollator(tokenizer, model.config, pairing)
    trainer = Trainer(model, how, data_collator=collator)
    torch.manual_seed(0)
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-5)


def test_masked_lm_on_fasta(run, rows, tmp_path):
    path = tmp_path / "rnas.fasta"
    path.write_text("".join(f">rna{i}\n{row['sequence']}\n" for i, row in enumerate(rows)))
    metrics = run(str(path), "--task", "masked-lm", "--eval-file", str(path))
    assert metrics["rnas"]["perplexity"] > 1


def test_separate_files_and_csv(run, table, rows):
    parts = {"train.csv": rows[:18], "valid.csv": rows[18:], "test.csv": rows[18:]}
    training, *evaluation = (table(name, own) for name, own in parts.items())
    metrics = run(training, "--task", "classification", "--eval-file", *evaluation)
    assert set(metrics) == {
        f"{name}{suffix}" for name in ("valid", "test") for suffix in ("", ": guess", ": k-mers")
    }


def test_training_lowers_the_loss(run, table):
    options = ("--task", "token-classification", "--label-column", "bases", *TEST)
    metrics = run(table(), *options, "--steps", "60", "--learning-rate", "1e-2", "--batch-size", 16)
    # The label is the base itself.
    assert metrics["test"]["accuracy"] > 0.95


def test_a_frozen_encoder_stays_as_it_was(run, table, model_folder, tmp_path):
    run(table(), "--task", "classification", "--frozen", "--learning-rate", "0.1", *TEST)
    before = ErnieRnaForMaskedLM.from_pretrained(model_folder).ernie_rna.state_dict()
    after = ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    for name, weight in after.ernie_rna.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_the_same_seed_gives_the_same_model(run, table):
    options = ("--task", "masked-lm", "--mask-pairing", "pretraining", *TEST)
    first, second = (run(table(), *options, out=out) for out in ("one", "two"))
    assert first == second


def test_long_sequences_are_cut_if_asked(run, table, rows):
    rows = [row | {"sequence": row["sequence"] * 2, "bases": row["bases"] * 2} for row in rows]
    options = ("--task", "token-classification", "--label-column", "bases", *TEST)
    assert run(table(rows=rows), *options, "--truncate")["test"]["accuracy"] >= 0


def test_a_saved_model_can_be_trained_on(run, refusal, table, rows, tmp_path):
    run(table(), "--task", "classification", *TEST)
    run(table(), "--task", "classification", *TEST, model=tmp_path / "out", out="next")
    options = ("--task", "multi-label", "--label-column", "several")
    message = refusal(table(), *options, model=tmp_path / "out")
    assert "its head has other labels: miRNA, rRNA, tRNA; the table has GC, short" in message
    renamed = [row | {"label": row["label"].replace("miRNA", "piRNA")} for row in rows]
    message = refusal(
        table("more.tsv", renamed), "--task", "classification", model=tmp_path / "out"
    )
    assert "its head has other labels" in message


def test_the_folder_loads_with_the_auto_classes(run, table, tmp_path):
    run(table(), "--task", "classification", *TEST)
    folder = tmp_path / "out"
    assert {path.name for path in code_files()} <= {path.name for path in folder.iterdir()}
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert model(**tokenizer("AUGC", return_tensors="pt")).logits.shape == (1, 3)


@pytest.mark.slow
def test_the_folder_loads_without_this_package(run, table, tmp_path):
    run(table(), "--task", "classification", *TEST)
    code = (
        "import sys; from transformers import pipeline\n"
        "classify = pipeline('text-classification', sys.argv[1], trust_remote_code=True)\n"
        "print(classify('AUGC')[0]['label'])\n"
        "assert 'ernie_rna' not in sys.modules and 'modeling_ernie_rna' not in sys.modules\n"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in ("miRNA", "rRNA", "tRNA")


# ---------------------------------------------------------------------------------------------
# What is refused


ONE_CLASS = {(row, "label"): "a" for row in range(ROWS)}
MEASURED = {(row, "label"): f"{row / 7:.3f}" for row in range(ROWS)}
LONG = {(2, "sequence"): "A" * 41, (7, "sequence"): "C" * 50}
UNFIT = {(3, "sequence"): "ACGU", (3, "bases"): "SSSSS"}
SPLIT = "classification --split-column split --eval-split"


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (
            "regression --label-column mrl",
            {},
            "data.tsv: no column 'mrl'; it has sequence, label, ",
        ),
        ("masked-lm --sequence-column rna", {}, "no column 'rna'"),
        (
            f"{SPLIT} test",
            {(-1, "label"): "lncRNA"},
            f"(test): line {ROWS + 1}: label: 'lncRNA' is not a label of the training: miRNA, ",
        ),
        ("regression --label-column number", {(4, "number"): "4,2"}, "line 6: number: '4,2' is no"),
        (
            "classification",
            LONG,
            f"2 of {ROWS} sequences are longer than 40 nucleotides, the longest has 50 (line 9); "
            "--truncate cuts them",
        ),
        ("token-classification --label-column bases", UNFIT, "line 5: 5 labels for 4 bases"),
        ("classification", {(5, "sequence"): "ACG-U"}, "(line 7): '-' at position 4"),
        ("classification", {(5, "sequence"): ""}, "(line 7): it is empty"),
        ("classification", ONE_CLASS, "has 1 different labels"),
        ("classification", MEASURED, f"in {ROWS} rows: those are no classes; --task regression"),
        (f"{SPLIT} valid", {}, "no row with split='valid'; there are test, train"),
        (
            f"{SPLIT} held-out --split random",
            {(0, "split"): "held-out"},
            "'held-out' names the rows that --split holds out: rename the other split",
        ),
        ("multi-label --label-column number label", {}, "is neither 0 nor 1"),
        (
            "classification --label-column label bases",
            {},
            "one label column is needed; got label, bases",
        ),
        (
            "classification --split label --folds 4",
            {},
            "3 values of the column 'label' cannot be divided into 4 parts",
        ),
        (
            "classification --label-column bases --split label",
            ONE_CLASS,
            "1 value of the column 'label' cannot be divided into 2 parts",
        ),
    ],
)
def test_what_is_refused(refusal, table, rows, task, changes, message):
    for (row, column), value in changes.items():
        rows[row][column] = value
    assert message in refusal(table(rows=rows), "--task", *task.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("config.json", "not empty; --force replaces it"),
        ("thesis.tex", "not empty, and thesis.tex was not written by finetune"),
    ],
)
def test_a_folder_that_is_there(refusal, table, tmp_path, content, message):
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / content).touch()
    assert message in refusal(table(), "--task", "classification")
    assert (tmp_path / "refused" / content).exists()


def test_force_replaces_a_model_and_nothing_else(run, refusal, table, tmp_path):
    run(table(), "--task", "classification", *TEST)
    first = (tmp_path / "out" / "model.safetensors").stat().st_ino
    run(table(), "--task", "classification", *TEST, "--force")
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino != first
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "thesis.tex").touch()
    assert "name another folder" in refusal(table(), "--task", "classification", "--force")


def test_a_model_that_is_none(refusal, table):
    message = refusal(table(), "--task", "classification", model="./absent")
    assert "error: there is no folder ./absent" in message


def test_a_missing_extra_is_named(refusal, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert 'pip install "ernie-rna[train]"' in refusal(table(), "--task", "classification")


def test_a_head_that_was_trained_is_kept(run, table, rows, tmp_path):
    """Neither is its bias set anew, nor a line of another head's logits handed on."""
    options = ("--task", "regression", "--label-column", "number", "--frozen", *TEST)
    run(table(), *options, "--learning-rate", "0.5")
    more = [row | {"number": f"{float(row['number']) + 100}"} for row in rows]
    run(table("more.tsv", more), *options, model=tmp_path / "out", out="next")
    first, then = (
        ErnieRnaForSequenceClassification.from_pretrained(tmp_path / name).classifier.bias
        for name in ("out", "next")
    )
    assert abs(first - then) < 0.1


def test_labels_of_exactly_minus_100_are_numbers(run, table, rows, tmp_path):
    rows = [row | {"number": "-100"} for row in rows]
    options = ("--task", "regression", "--label-column", "number", *TEST)
    assert run(table(rows=rows), *options)["test"]["mse"] < 1
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)


def test_what_becomes_nan_ends_the_run(refusal, table):
    options = ("--label-column", "number", "--learning-rate", "1e30", "--steps", 20)
    message = refusal(table(), "--task", "regression", *options)
    assert "became" in message
    assert "in step" in message
    assert "of the training rows in lines" in message
    assert "nothing was saved" in message


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_evaluation_that_fails_leaves_the_model(
    model_folder, table, tmp_path, monkeypatch, capsys, error
):
    evaluate, measured = Task.evaluate, []

    def fail(self, trainer, examples):
        measured.append(len(examples))
        if len(measured) == 2:
            raise error
        return evaluate(self, trainer, examples)

    monkeypatch.setattr("ernie_rna.training.tasks.Task.evaluate", fail)
    options = ["-m", str(model_folder), "-o", str(tmp_path / "out"), *QUICK, *TEST]
    code = main(["finetune", table(), *options, "--task", "classification"])
    assert code == (130 if error is KeyboardInterrupt else 1)
    assert "is saved" in capsys.readouterr().err
    ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out.partial").exists()
    assert measured == [1, 6]  # One row is tried before training.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("per_device_eval_batch_size=0", "breaks the evaluation: batch_size should be a positive"),
        ("eval_accumulation_steps=0", "breaks the evaluation: "),
        ("dataloader_drop_last=true", "cannot set dataloader_drop_last: finetune does without"),
    ],
)
def test_fields_that_break_the_evaluation_end_the_run_before_training(
    refusal, table, given, message
):
    options = ("--task", "classification", *TEST, "--trainer", given)
    told = refusal(table(), *options, code=2)
    assert message in told
    assert "step 1 of" not in told


# ---------------------------------------------------------------------------------------------
# Resuming


@pytest.fixture
def killed(model_folder, table, tmp_path, monkeypatch, capsys):
    """Options of a run that was killed in step 3, its state of step 2 in broken.partial."""
    options = ["--task", "classification", "--steps", "4", "--batch-size", "4", "--device", "cpu"]
    argv = ["finetune", table(), "-m", str(model_folder), "-o", str(tmp_path / "broken"), *TEST]
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.training.trainer.Progress", lambda _: Killer(3))
        assert main([*argv, *options, "--resume"]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert (tmp_path / "broken.partial" / "checkpoint-2").is_dir()
    assert not (tmp_path / "broken").exists()
    return [*argv, *options]


def test_a_run_that_was_cut_off_comes_to_the_same_weights(killed, tmp_path):
    # A kill while a state is written leaves one without trainer_state.json.
    shutil.copytree(
        tmp_path / "broken.partial/checkpoint-2", tmp_path / "broken.partial/checkpoint-3"
    )
    (tmp_path / "broken.partial" / "checkpoint-3" / "trainer_state.json").write_text("{")
    assert main([*killed, "--resume"]) == 0
    assert not (tmp_path / "broken.partial").exists()
    whole = [str(tmp_path / "whole") if one.endswith("broken") else one for one in killed]
    assert main(whole) == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.parametrize("step", [2, None], ids=["in a step", "at the end"])
@pytest.mark.parametrize(
    "more", [(), ("--eval-steps", 1, "--best", "accuracy", "--patience", 2)], ids=["all", "best"]
)
def test_a_resumed_run_ends_where_it_would_have(run, table, tmp_path, monkeypatch, step, more):
    """Neither a step after the last, nor more patience than was left."""
    options = ("--task", "classification", "--steps", 5, "--learning-rate", "1e-9", *TEST, *more)
    run(table(), *options)
    with monkeypatch.context() as patch:
        if step is None:
            fail = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
            patch.setattr("ernie_rna.training.finetune._Run._save", fail)
        else:
            patch.setattr("ernie_rna.training.trainer.Progress", lambda _: Killer(step))
        with pytest.raises(AssertionError):
            run(table(), *options, "--resume", out="again")
    run(table(), *options, "--resume", out="again")
    facts, again = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("out", "again")
    )
    assert facts["steps"] == again["steps"] == (3 if more else 5)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("out", "again")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--learning-rate", "1"], "options.learning_rate was 0.0001, is 1.0"),
        (["--seed", "1"], "options.seed was 0, is 1"),
        (["--frozen"], "options.frozen was False, is True"),
        (["--lora", "2"], "options.lora was None, is 2"),
        (["--task", "masked-lm"], "options.task was 'classification', is 'masked-lm'"),
        (["--batch-size", "2"], "options.batch_size was 4, is 2"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_run_that_differs_is_not_resumed(killed, capsys, more, difference):
    assert main([*killed, *more, "--resume"]) == 1
    assert difference in capsys.readouterr().err


def test_other_rows_are_not_resumed(killed, table, rows, capsys, tmp_path):
    table(rows=[row | {"label": row["label"].replace("tRNA", "aRNA")} for row in rows])
    assert main([*killed, "--resume"]) == 1
    assert "labels was ['miRNA', 'rRNA', 'tRNA'], is ['aRNA'" in capsys.readouterr().err
    assert main(killed) == 1
    assert "--resume resumes it, --force drops it" in capsys.readouterr().err
    assert main([*killed, "--resume", "--force"]) == 0
    assert not (tmp_path / "broken.partial").exists()


# ---------------------------------------------------------------------------------------------
# What a run will take


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ((), 2),
        (("--folds", "3", "--lora", "2"), 8),
        (("--best", "mse", "--patience", "1", *TEST), 2),
        (("--task", "structure", "--label-column", "dot_bracket", "--resume", *TEST), 2),
    ],
    ids=["plain", "folds", "best", "structure"],
)
def test_a_dry_run_writes_nothing(model_folder, table, tmp_path, capsys, options, steps):
    argv = ["finetune", table(), "-m", str(model_folder), "-o", str(tmp_path / "out"), *QUICK]
    task = ["--task", "regression", "--label-column", "number", *options]
    if "structure" in options:
        task = [*options]
    assert main([*argv, *task, "--dry-run"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.tsv"}
    told = capsys.readouterr().err
    assert f" rows, {steps} steps: about " in told
    assert " of output (measured on 2 steps)" in told
    states = "out.partial takes up to" in told
    assert states == bool({"--best", "--resume"} & {*options})
    assert main([*argv, *task, "--dry-run", "--json", "--quiet"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["estimate"].startswith("about ")
    assert "metrics" not in facts


def test_a_dry_run_is_of_one_process(refusal, table, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(table(), "--task", "classification", "--dry-run", code=2)
    assert "--dry-run: measures one process; this is one of 2" in message


# ---------------------------------------------------------------------------------------------
# What is known of the data and the training


def test_leakage_is_told(run, table, rows, tmp_path, capsys):
    rows[-1]["sequence"] = rows[0]["sequence"].replace("U", "t")
    rows[1] |= {"sequence": rows[0]["sequence"], "label": "other"}
    run(table(rows=rows), "--task", "classification", *TEST)
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "1 of 6 sequences of test are in training as well" in facts["notes"][-1]
    assert "1 training sequences occur more than once, with different labels" in facts["notes"]
    assert "classes with a single row: other" in facts["notes"]
    card = (tmp_path / "out" / "README.md").read_text()
    printed = capsys.readouterr().err
    for note in facts["notes"]:
        assert note in card
        assert note in printed


@pytest.mark.parametrize(
    ("column", "way_out"),
    [
        (("--split-column", "split"), "--eval-split names the values of 'split'"),
        ((), "--split similar holds out"),
    ],
)
def test_nothing_is_evaluated(run, table, tmp_path, capsys, column, way_out):
    assert run(table(), "--task", "classification", *column, "--steps", 1) == {}
    assert f"note: nothing is evaluated: {way_out}" in capsys.readouterr().err
    assert "- epochs" not in (tmp_path / "out" / "README.md").read_text()


def test_the_best_state_is_kept(run, table, tmp_path):
    options = ("--eval-steps", 2, "--best", "mse", "--steps", 8, "--learning-rate", "0.3")
    task = ("--task", "regression", "--label-column", "number", *TEST)
    metrics = run(table(), *task, *options)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    values = [entry["eval_mse"] for entry in log if "eval_mse" in entry]
    assert len(values) == 4
    assert metrics["test"]["mse"] == pytest.approx(min(values), rel=1e-5)
    assert "</svg>" in (tmp_path / "out" / "curve.svg").read_text()
    assert not (tmp_path / "out.partial").exists()


def test_it_stops_early(run, table, tmp_path):
    options = ("--eval-steps", 1, "--best", "accuracy", "--patience", 2, "--steps", 30)
    run(table(), "--task", "classification", "--learning-rate", "1e-9", *options, *TEST)
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["steps"] == 3


def test_a_metric_that_there_is_not(refusal, table):
    message = refusal(table(), "--task", "classification", "--best", "r2", *TEST, code=2)
    assert "argument --best: must be accuracy or macro_f1 or mcc" in message


def test_json_is_json(model_folder, table, rows, tmp_path, capsys):
    rows = [row | {"number": "1"} for row in rows]  # whose correlation is not defined
    argv = ["finetune", table(rows=rows), "-m", str(model_folder), "-o", str(tmp_path / "out")]
    task = ["--task", "regression", "--label-column", "number", *TEST]
    assert main([*argv, *QUICK, *task, "--json"]) == 0

    def refuse(word):
        raise ValueError(word)

    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert facts["metrics"]["test"]["spearman"] is None
    assert facts["splits"]["train"]["rows"] == 18


def test_the_card_says_what_it_was_trained_on(run, table, tmp_path):
    run(table(), "--task", "classification", "--lora", 2, *TEST)
    card = (tmp_path / "out" / "README.md").read_text()
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["splits"]["test"]["sha256"] in card
    for text in ("miRNA, rRNA, tRNA", "  test: guess  ", "- lora: 2", "AutoModelForSequence"):
        assert text in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("options", "frozen"),
    [(("--frozen",), True), (("--lora", 2), False), ((), False)],
    ids=["frozen", "lora", "whole"],
)
@pytest.mark.parametrize("task", ["structure", "ribosome-loading", "masked-lm"])
def test_what_is_trained(run, table, model_folder, tmp_path, task, options, frozen):
    column = {"ribosome-loading": ("--label-column", "number")}.get(task, ())
    metrics = run(table(), "--task", task, *column, *options, "--learning-rate", "0.1", *TEST)
    assert set(metrics["test"]) == set(TASKS[task].metric_names)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (model_folder, tmp_path / "out")
    )
    name = "ernie_rna.layers.0.self_attn.q_proj.weight"
    assert torch.equal(before[name], after[name]) == frozen
    last = "ernie_rna.layers.1.fc2.weight"  # behind the scores that structures are read off
    assert torch.equal(before[last], after[last]) == (frozen or task == "structure")
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 < facts["weights_trained"] < facts["weights"] or not options


def test_structures(run, table, rows, tmp_path):
    metrics = run(table(), "--task", "structure", "--positive-weight", 5, *TEST)["test"]
    tests = [row for row in rows if row["split"] == "test"]
    known = [
        Structure(str(row), one["sequence"], from_dot_bracket(one["dot_bracket"]))
        for row, one in enumerate(tests)
    ]
    folded = fold({one.id: one.sequence for one in known}, tmp_path / "out", progress=False)
    scores = evaluate([one.structure for one in folded], known).mean_exact
    assert {name: getattr(scores, name) for name in metrics} == pytest.approx(metrics)
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == ["ErnieRnaForSecondaryStructure"]
    assert (config.pair_heads, config.pair_positive_weight) == ([5], 5)
    auto_map = json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_ernie_rna.ErnieRnaForSecondaryStructure"


def test_the_calibration_of_another_head_goes(run, table, tmp_path):
    run(table(), "--task", "structure", "--frozen", *TEST, model="mini")
    assert ErnieRnaConfig.from_pretrained(mini()).pair_calibration is not None
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    assert config.pair_calibration is None
    assert config.pair_channels == ErnieRnaConfig.from_pretrained(mini()).pair_channels


def test_sequences_that_admit_no_pair(run, table, rows):
    rows = [row | {"sequence": "A" * 9, "dot_bracket": "." * 9} for row in rows]
    metrics = run(table(rows=rows), "--task", "structure", *TEST)
    assert metrics["test"]["f1"] == 1  # no pair, and none predicted


def test_ribosome_loading_has_the_scaler_of_the_training_rows(run, table, rows, tmp_path):
    run(table(), "--task", "ribosome-loading", "--label-column", "number", *TEST)
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    numbers = [float(row["number"]) for row in rows if row["split"] == "train"]
    assert config.loading_mean == pytest.approx(np.mean(numbers))
    assert config.loading_scale == pytest.approx(np.std(numbers))


@pytest.mark.slow
def test_two_processes_train_what_one_trains(model_folder, table, tmp_path):
    options = ["--task", "structure", "--steps", "3", "--device", "cpu", *TEST]
    shared = [table(), "-m", str(model_folder), *options]
    one = [sys.executable, "-m", "ernie_rna", "finetune", *shared]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two += ["-m", "ernie_rna", "finetune", *shared]
    for command, size, name in ((one, "4", "one"), (two, "2", "two")):
        command = [*command, "--batch-size", size, "-o", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("weights were trained") == 1
    assert (tmp_path / "two" / "metrics.json").exists()
