"""Fine-tuning: every task, from a table to a folder that loads; errors, resuming and notes."""

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
from ernie_rna.run import estimate
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.tasks import TASKS, Task
from tests.conftest import run_elsewhere
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
def test_predict_reproduces_the_metrics_of_the_saved_model(
    run, table, rows, tmp_path, task, columns, names
):
    for i, row in enumerate(rows):
        row |= {"always": "1", "odd": str(i % 2)}
    result = run(table(rows=rows), "--task", task, "--label-column", *columns, *TEST)
    assert tuple(result.metrics["test"]) == TASKS[task].metric_names
    assert ("test: k-mers" in result.metrics) == (task != "token-classification")
    assert f"labels ({len(names)}): {', '.join(names)}" in result.err
    assert TASKS[task].metric_names[0] in result.out
    assert result.config.id2label == dict(enumerate(names))
    assert result.config.label2id == {name: index for index, name in enumerate(names)}
    assert result.config.problem_type == TASKS[task].problem_type
    test_rows = table("test.tsv", [row for row in rows if row["split"] == "test"])
    options = {"label_column": columns, "progress": False}
    again = ernie_rna.predict(test_rows, result.folder, tmp_path / "out.npz", **options).metrics
    expected = {
        n: np.nan if value is None else value for n, value in result.metrics["test"].items()
    }
    assert again == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def test_a_new_head_starts_at_the_means_of_training_and_a_trained_one_is_kept(run, table, rows):
    rows = [row | {"other": "70.5"} for row in rows]
    higher = [row | {"number": f"{float(row['number']) + 100}"} for row in rows]
    training = [float(row["number"]) for row in rows if row["split"] == "train"]
    for task, more_columns in (("regression", ["other"]), ("ribosome-loading", [])):
        options = ("--task", task, "--label-column", "number", *more_columns, *TEST)
        first = run(table(rows=rows), *options, out=task)
        for result in (first, run(table(rows=higher), *options, model=first.folder, out="next")):
            if task == "regression":
                bias = result.weights["classifier.bias"].tolist()
                assert bias == pytest.approx([np.mean(training), 70.5], abs=0.01)
            else:
                scaler = result.config.loading_mean, result.config.loading_scale
                assert scaler == pytest.approx((np.mean(training), np.std(training)))
        shutil.rmtree(result.folder)


def test_bases_without_a_label_are_ignored_and_long_sequences_cut(run, table, rows):
    for row in rows:
        row |= {"sequence": row["sequence"] * 2, "bases": f"...{row['bases'] * 2}"[:-3]}
    # This row has no label at all, and it alone is evaluated before training.
    rows[-6]["bases"] = "." * len(rows[-6]["bases"])
    result = run(table(rows=rows), *BASES, "--ignore-label", ".", "--truncate")
    assert result.metrics["test"]["accuracy"] >= 0
    assert result.config.id2label == {0: "S", 1: "W"}


def test_masked_lm_on_fasta(run, rows, tmp_path):
    for name in ("train", "test"):
        sequences = [row["sequence"] for row in rows if row["split"] == name]
        fasta = "".join(f">rna{i}\n{sequence}\n" for i, sequence in enumerate(sequences))
        (tmp_path / f"{name}.fasta").write_text(fasta)
    files = (tmp_path / "train.fasta", "--eval-file", tmp_path / "test.fasta")
    options = ("--task", "masked-lm", "--mask-pairing", "pretraining", "--batch-size", "6")
    result = run(*files, *options)
    assert set(result.metrics["test"]) == {"perplexity", "loss", "accuracy"}
    assert 1 < result.metrics["test: guess"]["perplexity"] < 4.5
    # With the masks of the same seed, the plain Trainer measures the same loss of the saved model.
    model = ernie_rna.ErnieRnaForMaskedLM.from_pretrained(result.folder)
    tokenizer = ernie_rna.ErnieRnaTokenizer.from_pretrained(result.folder)
    data = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in sequences]
    arguments = transformers.TrainingArguments(str(tmp_path / "x"), report_to=[], use_cpu=True)
    collator = ernie_rna.MaskingCollator(tokenizer, model.config, "pretraining")
    trainer = transformers.Trainer(model, arguments, data_collator=collator)
    torch.manual_seed(0)
    loss = result.metrics["test"]["loss"]
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert run(*files, *options, out="again").metrics == result.metrics


def test_training_lowers_the_loss(run, table):
    options = ("--steps", "60", "--learning-rate", "1e-2", "--batch-size", 16)
    # The base alone determines its label, S or W.
    assert run(table(), *BASES, *options).metrics["test"]["accuracy"] > 0.95


def test_the_folder_loads_and_its_card_describes_the_training(run, table, rows, tmp_path):
    parts = {"train.csv": rows[:18], "valid.csv": rows[18:], "test.csv": rows[18:]}
    training, *eval_files = (table(name, part) for name, part in parts.items())
    result = run(training, *CLASSIFY[:2], "--eval-file", *eval_files, "--lora", 2)
    kinds = ("", ": guess", ": k-mers")
    assert {*result.metrics} == {f"{name}{kind}" for name in ("valid", "test") for kind in kinds}
    assert {path.name for path in code_files()} <= {path.name for path in result.folder.iterdir()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(result.folder, trust_remote_code=True)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(result.folder, trust_remote_code=True)
    assert model(**tokenizer("AUGC", return_tensors="pt")).logits.shape == (1, 3)
    split = f"- test: 6 rows, sha256 {result.facts['splits']['test']['sha256']}\n"
    stated = [split, "Labels: miRNA, rRNA, tRNA.\n", "  test: guess  ", " in 2 steps,"]
    stated += ["`AutoModelForSequenceClassification`", "\n- lora: 2\n", "\n- seed: 0\n"]
    assert [text for text in stated if text not in result.card] == []
    not_stated = ("- epochs", "- held_out", "- mask_", str(tmp_path))
    assert [text for text in not_stated if text in result.card] == []


@pytest.mark.slow
def test_the_folder_loads_without_this_package(run, table, tmp_path):
    code = (
        "import sys; from transformers import pipeline\n"
        "classify = pipeline('text-classification', sys.argv[1], trust_remote_code=True)\n"
        "print(classify('AUGC')[0]['label'])\n"
        "assert 'ernie_rna' not in sys.modules and 'modeling_ernie_rna' not in sys.modules\n"
    )
    folder = run(table(), *CLASSIFY).folder
    assert run_elsewhere("-I", "-c", code, folder, cwd=tmp_path).split()[-1] in CLASSES


# ---------------------------------------------------------------------------------------------
# Errors


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
    errors = refusal(table(rows=rows), "--task", *task.split())
    assert message in errors
    assert "step 1 of" not in errors


def test_a_trained_head_is_refused_other_labels(run, refusal, table, rows, model_folder, tmp_path):
    first = run(table(), *CLASSIFY)
    config = first.config
    config.id2label = {number: f"LABEL_{number}" for number in range(5)}  # the default names
    ernie_rna.ErnieRnaForSequenceClassification(config).save_pretrained(tmp_path / "five")
    shutil.copy(model_folder / "tokenizer.json", tmp_path / "five")
    renamed = [row | {"label": row["label"].replace("miRNA", "piRNA")} for row in rows]
    multi_label = ("--task", "multi-label", "--label-column", "several")
    config.architectures, config.pair_heads = ["ErnieRnaForCloseness"], [0, 3]
    ernie_rna.ErnieRnaForCloseness(config).save_pretrained(tmp_path / "close")
    other = "its head has other labels"
    for model, options, message in (
        (
            "out",
            multi_label,
            "its head is for single_label_classification: miRNA, rRNA, tRNA; the",
        ),
        ("out", CLASSIFY[:2], f"{other}: miRNA, rRNA, tRNA; the table has piRNA"),
        ("five", CLASSIFY[:2], f"{other}: LABEL_0, LABEL_1"),
        ("out", BASES[:4], "is ErnieRnaForSequenceClassification, with a head of 3 labels for an"),
        ("close", ("--task", "structure"), "is ErnieRnaForCloseness, with a head of 2 maps for "),
    ):
        errors = refusal(table(rows=renamed), *options, model=tmp_path / model)
        assert message in errors


def test_force_replaces_a_model(run, refusal, table):
    first = run(table(), *CLASSIFY)
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
    result = run(table(), *loading, out="loading", model=tmp_path / "TRL")
    assert result.config.loading_mean == before.loading_mean
    assert result.config.id2label == {0: "number"}
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


def test_an_empty_output_does_not_mean_the_working_directory(refusal, table, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "the folder to write is empty" in refusal(table(), *CLASSIFY, "-o", "", "--force")
    assert not [*(tmp_path / "empty").iterdir()]


def test_wrong_models_a_missing_extra_and_a_dry_run_of_two_processes_are_refused(
    refusal, table, monkeypatch
):
    with pytest.raises(TypeError, match="expected a folder or a Hub id"):
        ernie_rna.finetune(table(), object(), "out", task="classification")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert 'pip install "ernie-rna[train]"' in refusal(table(), *CLASSIFY)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(table(), *CLASSIFY, "--dry-run")
    assert "argument --dry-run: measures one process; this is one of 2" in message


def test_labels_of_minus_100_are_numbers_and_json_has_no_nan(run, table, rows):
    rows = [row | {"number": "-100"} for row in rows]  # The correlation is not defined.
    result = run(table(rows=rows), *NUMBERS, "--json")
    facts = json.loads(result.out, parse_constant=pytest.fail)
    assert facts["metrics"]["test"]["mse"] < 1
    assert facts["metrics"]["test"]["spearman"] is None
    assert facts["splits"]["train"]["rows"] == 18
    assert all(entry["loss"] > 0 for entry in result.log if "loss" in entry)


def test_a_loss_that_is_not_finite_ends_the_run(refusal, table):
    message = refusal(table(), *NUMBERS[:4], "--learning-rate", "1e30", "--steps", 20)
    for text in ("became", "in step", "on the training rows in lines", "nothing was saved"):
        assert text in message


@pytest.mark.parametrize(
    ("error", "code", "more"), [(KeyboardInterrupt, 130, ["--resume"]), (RuntimeError, 1, [])]
)
def test_the_model_is_saved_though_the_evaluation_fails(
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
    assert measured == [1, 6]  # One row is evaluated before training.
    if more:
        metrics.touch()  # Now the folder is not the one that this run left.
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
def test_a_resumed_run_equals_an_uninterrupted_one(
    run, interrupt, table, tmp_path, capsys, options, step, steps
):
    """It has the same weights, masks and losses, no extra step and no extra patience."""
    uninterrupted = run(table(), *options, out="uninterrupted")
    interrupt(table(), *options, step=step)
    assert "run the same command again to resume" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    states = tmp_path / "out.partial"
    last = max(int(path.name[11:]) for path in states.glob("checkpoint-*"))
    # A process killed while it writes a state leaves one that lacks one of these files.
    for number, file in ((7, "trainer_state.json"), (8, "rng_state.pth")):
        shutil.copytree(states / f"checkpoint-{last}", states / f"checkpoint-{number}")
        (states / f"checkpoint-{number}" / file).unlink()
    result = run(table(), *options, "--resume")
    assert result.facts["steps"] == uninterrupted.facts["steps"] == steps
    assert all(result.same(uninterrupted.weights).values())
    assert result.log == uninterrupted.log


@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json", "model.safetensors"]
)
def test_a_damaged_state_is_named(start, interrupt, table, tmp_path, capsys, file):
    options = (*CLASSIFY, "--steps", "4")
    interrupt(table(), *options, step=3)
    (path,) = (tmp_path / "out.partial").glob(f"checkpoint-*/{file}")
    os.truncate(path, 100)
    assert start(table(), *options, "--resume") == 1
    message = capsys.readouterr().err
    assert f"error: {path} is damaged (" in message
    assert f"delete {path.parent} to resume from an older state, or from the start" in message
    shutil.rmtree(path.parent)
    assert start(table(), *options, "--resume") == 0


def test_a_best_state_that_is_missing_is_named(start, interrupt, table, tmp_path, capsys):
    options = (*CLASSIFY, "--steps", 5, *BEST)
    interrupt(table(), *options, step=3)
    states = tmp_path / "out.partial"
    shutil.rmtree(states / "checkpoint-1")
    assert start(table(), *options, "--resume") == 1
    message = f"{states / 'checkpoint-1'}, the best state, is missing: delete {states} to start"
    assert message in capsys.readouterr().err


def test_a_run_that_differs_is_not_resumed(start, interrupt, table, rows, capsys, tmp_path):
    data, options = table(), (*CLASSIFY, "--steps", "4")
    interrupt(data, *options, step=3)
    renamed = table(
        "renamed.tsv", [row | {"label": row["label"].replace("tRNA", "aRNA")} for row in rows]
    )
    for other_data, other_options, difference in (
        (data, (*options, "--learning-rate", 1), "options.learning_rate was 0.0001, is 1.0"),
        (data, (*options, "--frozen"), "options.frozen was False, is True"),
        (
            data,
            ("--task", "masked-lm", *options[2:]),
            "options.task was 'classification', is 'masked-lm'",
        ),
        (renamed, options, "labels was ['miRNA', 'rRNA', 'tRNA'], is ['aRNA'"),
    ):
        assert start(other_data, *other_options, "--resume") == 1
        assert difference in capsys.readouterr().err
    assert start(data, *options) == 1
    assert "--resume resumes it, --force deletes it" in capsys.readouterr().err
    assert start(data, *options, "--resume", "--force") == 0
    assert not (tmp_path / "out.partial").exists()


# ---------------------------------------------------------------------------------------------
# Dry runs


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
def test_a_dry_run_writes_nothing(start, table, tmp_path, capsys, monkeypatch, options, steps):
    monkeypatch.setattr(estimate, "SECONDS", 600.0)  # A busy machine would measure one step only.
    assert start(table(), *options, "--dry-run") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data.tsv"}
    errors = capsys.readouterr().err
    assert f" rows, {steps} steps: about " in errors
    assert " of output (measured on 2 steps)" in errors
    keeps_states = bool({"--best", "--resume"} & {*options})
    assert ("out.partial takes up to" in errors) == keeps_states
    assert start(table(), *options, "--dry-run", "--json", "--quiet") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["estimate"].startswith("about ")
    assert "metrics" not in facts


# ---------------------------------------------------------------------------------------------
# Notes on the data; which weights are trained and saved


def test_notes_name_leakage_and_odd_labels(run, table, rows):
    rows[-1]["sequence"] = rows[0]["sequence"].replace("U", "t")
    rows[1] |= {"sequence": rows[0]["sequence"], "label": "other"}
    result = run(table(rows=rows), *CLASSIFY)
    assert "1 of 6 sequences of test are in training as well" in result.notes[-1]
    assert "1 training sequences occur more than once, with different labels" in result.notes
    assert "classes with a single row: other" in result.notes
    assert all(note in result.card and note in result.err for note in result.notes)


@pytest.mark.parametrize(
    ("column", "way_out"),
    [(TEST[:2], "--eval-split names the values of 'split'"), ((), "--split similar holds out")],
)
def test_a_note_says_that_nothing_is_evaluated(run, table, column, way_out):
    result = run(table(), *CLASSIFY[:2], *column, "--steps", 1)
    assert result.metrics == {}
    assert f"note: nothing is evaluated: {way_out}" in result.err
    unused = "6 rows are not used: their split is test, which is neither --train-split"
    assert (unused in result.err) == bool(column)
    assert "The model was not evaluated." in result.card


def test_the_best_state_is_saved(run, table):
    options = ("--eval-steps", 2, "--best", "mse", "--steps", 8, "--learning-rate", "0.3")
    result = run(table(), *NUMBERS, *options)
    values = [entry["eval_mse"] for entry in result.log if "eval_mse" in entry]
    assert len(values) == 4
    assert result.metrics["test"]["mse"] == pytest.approx(min(values), rel=1e-5)
    assert "</svg>" in (result.folder / "curve.svg").read_text()


@pytest.mark.parametrize(
    ("options", "frozen"),
    [(("--frozen",), True), (("--lora", 2), False), ((), False)],
    ids=["frozen", "lora", "all"],
)
@pytest.mark.parametrize("task", ["structure", "ribosome-loading", "masked-lm"])
def test_which_weights_are_trained(run, table, model_folder, task, options, frozen):
    column = ("--label-column", "number") if task == "ribosome-loading" else ()
    result = run(table(), "--task", task, *column, *options, "--learning-rate", "0.1", *TEST)
    assert set(result.metrics["test"]) == set(TASKS[task].metric_names)
    before = load_file(model_folder / "model.safetensors")
    encoder = result.same({n: w for n, w in before.items() if n.startswith("ernie_rna.")})
    assert all(encoder.values()) == frozen
    assert encoder["ernie_rna.layers.0.self_attn.q_proj.weight"] == frozen
    # The attention scores of the last layer, from which structures are read, precede this weight.
    assert encoder["ernie_rna.layers.1.fc2.weight"] == (frozen or task == "structure")
    assert 0 < result.facts["weights_trained"] <= result.facts["weights"]
    not_all = result.facts["weights_trained"] < result.facts["weights"]
    assert not_all == bool(options or task == "structure")


def test_the_saved_structure_model_folds_as_well_as_its_metrics_say(run, table, rows, tmp_path):
    result = run(table(), "--task", "structure", "--positive-weight", 5, *TEST)
    known = [
        Structure(str(number), row["sequence"], from_dot_bracket(row["dot_bracket"]))
        for number, row in enumerate(rows)
        if row["split"] == "test"
    ]
    sequences = {structure.id: structure.sequence for structure in known}
    folds = ernie_rna.fold(sequences, result.folder, progress=False)
    scores = ernie_rna.evaluate([fold.structure for fold in folds], known).mean_exact
    metrics = result.metrics["test"]
    assert metrics == pytest.approx({name: getattr(scores, name) for name in metrics})
    assert result.config.architectures == ["ErnieRnaForSecondaryStructure"]
    assert (result.config.pair_heads, result.config.pair_positive_weight) == ([5], 5)
    auto_map = json.loads((result.folder / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_ernie_rna.ErnieRnaForSecondaryStructure"
    config = ernie_rna.ErnieRnaConfig(**SMALL, num_attention_heads=4, pair_channels=8)
    ernie_rna.ErnieRnaForMaskedLM(config).save_pretrained(tmp_path / "four-heads")
    shutil.copy(result.folder / "tokenizer.json", tmp_path / "four-heads")
    result = run(table(), "--task", "structure", model=tmp_path / "four-heads", out="of-four")
    assert result.config.pair_heads is None


def test_rows_to_evaluate_on_need_no_pair(run, table):
    none = table("none.tsv", [{"sequence": "GGGGAAAA", "dot_bracket": "........"}])
    result = run(table(), "--task", "structure", "--steps", 1, "--eval-file", none)
    assert result.metrics["none"]["f1"] == 1


def test_training_removes_the_calibration_of_the_old_head(run, table, rows):
    rows = [row | {"sequence": "AUU", "dot_bracket": "..."} for row in rows]  # too short a loop
    rows[0] |= {"sequence": "AAA"}
    result = run(table(rows=rows), "--task", "structure", "--frozen", *TEST, model="mini")
    assert "1 training rows have no part in the loss: no two bases can pair" in result.err
    assert result.metrics["test"]["f1"] == 1  # No pair exists, and none is predicted.
    before = ernie_rna.ErnieRnaConfig.from_pretrained(ernie_rna.mini())
    assert before.pair_calibration is not None
    assert result.config.pair_calibration is None
    assert result.config.pair_channels == before.pair_channels


@pytest.mark.slow
def test_two_processes_train_what_one_trains(model_folder, table, tmp_path):
    options = ["--task", "structure", "--steps", "3", "--device", "cpu", *TEST]
    shared = ["-m", "ernie_rna", "finetune", table(), "-m", str(model_folder), *options]
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, size, name in (([], "4", "one"), (two, "2", "two")):
        command = [*launcher, *shared, "--batch-size", size, "-o", str(tmp_path / name)]
        process = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert process.stderr.count("weights were trained") == 1
    assert (tmp_path / "two" / "metrics.json").exists()
