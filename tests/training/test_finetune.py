"""Fine-tuning: every task from a table to a folder that loads, and what is refused before."""

import json
import math
import shutil
import subprocess
import sys

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
from tests.training.conftest import ROWS, TEST, Killer, facts_of

CLASSES = ["miRNA", "rRNA", "tRNA"]
CLASSIFY = ("--task", "classification", *TEST)
NUMBERS = ("--task", "regression", "--label-column", "number", *TEST)
BASES = ("--task", "token-classification", "--label-column", "bases", *TEST)


def config_of(folder):
    return ernie_rna.ErnieRnaConfig.from_pretrained(folder)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(*folders):
    """Whether the second folder has each weight of the first, by name."""
    one, other = (load_file(folder / "model.safetensors") for folder in folders)
    return {name: name in other and torch.equal(own, other[name]) for name, own in one.items()}


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
def test_what_was_saved_scores_the_same(run, table, rows, tmp_path, capsys, task, columns, names):
    for i, row in enumerate(rows):
        row |= {"always": "1", "odd": str(i % 2)}
    metrics = run(table(rows=rows), "--task", task, "--label-column", *columns, *TEST)
    assert set(metrics["test"]) == set(TASKS[task].metric_names)
    assert ("test: k-mers" in metrics) == (task != "token-classification")
    printed = capsys.readouterr()
    assert f"labels ({len(names)}): {', '.join(names)}" in printed.err
    assert TASKS[task].metric_names[0] in printed.out
    config = config_of(tmp_path / "out")
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
    assert config.problem_type == TASKS[task].problem_type
    given = {"label_column": columns, "progress": False}
    tests = table("test.tsv", [row for row in rows if row["split"] == "test"])
    predicted = ernie_rna.predict(tests, tmp_path / "out", tmp_path / "again.npz", **given).metrics
    expected = {n: math.nan if value is None else value for n, value in metrics["test"].items()}
    assert predicted == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def test_a_new_bias_is_the_means_of_training_and_a_trained_one_stays(run, table, rows, tmp_path):
    rows = [row | {"other": "70.5"} for row in rows]
    options = ("--task", "regression", "--label-column", "number", "other", *TEST)
    run(table(rows=rows), *options)
    higher = [row | {"number": f"{float(row['number']) + 100}"} for row in rows]
    run(table(rows=higher), *options, model=tmp_path / "out", out="next")
    training = [float(row["number"]) for row in rows if row["split"] == "train"]
    means = torch.tensor([np.mean(training), 70.5], dtype=torch.float32)
    for name in ("out", "next"):
        bias = load_file(tmp_path / name / "model.safetensors")["classifier.bias"]
        torch.testing.assert_close(bias, means, atol=0.01, rtol=0)


def test_bases_without_a_label_are_left_out_and_long_sequences_cut(run, table, rows, tmp_path):
    for row in rows:
        row |= {"sequence": row["sequence"] * 2, "bases": f"...{row['bases'] * 2}"[:-3]}
    metrics = run(table(rows=rows), *BASES, "--ignore-label", ".", "--truncate")
    assert metrics["test"]["accuracy"] >= 0
    assert config_of(tmp_path / "out").id2label == {0: "S", 1: "W"}


@pytest.mark.parametrize("pairing", ["inference", "pretraining"])
def test_masked_lm_on_fasta(run, rows, tmp_path, pairing):
    for name in ("train", "test"):
        own = [row["sequence"] for row in rows if row["split"] == name]
        fasta = "".join(f">rna{i}\n{sequence}\n" for i, sequence in enumerate(own))
        (tmp_path / f"{name}.fasta").write_text(fasta)
    options = ("--task", "masked-lm", "--mask-pairing", pairing, "--batch-size", "6")
    files = (tmp_path / "train.fasta", "--eval-file", tmp_path / "test.fasta")
    metrics = run(*files, *options)
    assert set(metrics["test"]) == {"perplexity", "loss", "accuracy"}
    assert 1 < metrics["test: guess"]["perplexity"] < 4.5
    # The saved model gives the same figure to the plain Trainer, for the masks of the seed.
    model = ernie_rna.ErnieRnaForMaskedLM.from_pretrained(tmp_path / "out")
    tokenizer = ernie_rna.ErnieRnaTokenizer.from_pretrained(tmp_path / "out")
    tests = [row["sequence"] for row in rows if row["split"] == "test"]
    data = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in tests]
    how = transformers.TrainingArguments(str(tmp_path / "own"), report_to=[], use_cpu=True)
    collator = ernie_rna.MaskingCollator(tokenizer, model.config, pairing)
    trainer = transformers.Trainer(model, how, data_collator=collator)
    torch.manual_seed(0)
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-5)
    assert run(*files, *options, out="again") == metrics


def test_training_lowers_the_loss(run, table):
    how = ("--steps", "60", "--learning-rate", "1e-2", "--batch-size", 16)
    # The label is the base itself.
    assert run(table(), *BASES, *how)["test"]["accuracy"] > 0.95


def test_the_folder_loads_and_its_card_says_what_it_was_trained_on(run, table, rows, tmp_path):
    parts = {"train.csv": rows[:18], "valid.csv": rows[18:], "test.csv": rows[18:]}
    training, *files = (table(name, own) for name, own in parts.items())
    metrics = run(training, *CLASSIFY[:2], "--eval-file", *files, "--lora", 2)
    kinds = ("", ": guess", ": k-mers")
    assert set(metrics) == {f"{name}{kind}" for name in ("valid", "test") for kind in kinds}
    folder = tmp_path / "out"
    assert {path.name for path in code_files()} <= {path.name for path in folder.iterdir()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, trust_remote_code=True)
    assert model(**tokenizer("AUGC", return_tensors="pt")).logits.shape == (1, 3)
    card = (folder / "README.md").read_text()
    digest = facts_of(folder)["splits"]["test"]["sha256"]
    for text in (digest, "miRNA, rRNA, tRNA", "  test: guess  ", "- lora: 2"):
        assert text in card
    assert "AutoModelForSequenceClassification" in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_the_folder_loads_without_this_package(run, table, tmp_path):
    run(table(), *CLASSIFY)
    code = (
        "import sys; from transformers import pipeline\n"
        "classify = pipeline('text-classification', sys.argv[1], trust_remote_code=True)\n"
        "print(classify('AUGC')[0]['label'])\n"
        "assert 'ernie_rna' not in sys.modules and 'modeling_ernie_rna' not in sys.modules\n"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in CLASSES


# ---------------------------------------------------------------------------------------------
# What is refused


ONE_CLASS = {(row, "label"): "a" for row in range(ROWS)}
MEASURED = {(row, "label"): f"{row / 7:.3f}" for row in range(ROWS)}
LONG = {(2, "sequence"): "A" * 41, (7, "sequence"): "C" * 50}
TOO_LONG = f"2 of {ROWS} sequences are longer than 40 nucleotides, the longest has 50 (line 9); "
UNFIT = {(3, "sequence"): "ACGU", (3, "bases"): "SSSSS"}
SPLIT = "classification --split-column split --eval-split"
BREAKS = "argument --trainer: breaks the training: "
UNDIVIDED = "of the column 'label' cannot be divided into"
UNKNOWN = f"(test): line {ROWS + 1}: label: 'lncRNA' is not a label of the training: miRNA, "


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("regression --label-column mrl", {}, "data.tsv: no column 'mrl'; it has sequence, label"),
        ("masked-lm --sequence-column rna", {}, "no column 'rna'"),
        (f"{SPLIT} test", {(-1, "label"): "lncRNA"}, UNKNOWN),
        ("regression --label-column number", {(4, "number"): "4,2"}, "line 6: number: '4,2' is no"),
        ("classification", LONG, f"{TOO_LONG}--truncate cuts them"),
        ("token-classification --label-column bases", UNFIT, "line 5: 5 labels for 4 bases"),
        ("classification", {(5, "sequence"): "ACG-U"}, "(line 7): '-' at position 4"),
        ("classification", {(5, "sequence"): ""}, "(line 7): it is empty"),
        ("classification", ONE_CLASS, "has 1 different labels"),
        ("classification", MEASURED, f"in {ROWS} rows: those are no classes; --task regression"),
        (f"{SPLIT} valid", {}, "no row with split='valid'; there are test, train"),
        (f"{SPLIT} held-out --split random", {(0, "split"): "held-out"}, "rename the other split"),
        ("multi-label --label-column number label", {}, "is neither 0 nor 1"),
        ("classification --label-column label bases", {}, "label column is needed; got label, ba"),
        ("classification --split label --folds 4", {}, f"3 values {UNDIVIDED} 4 parts"),
        ("classification --label-column bases --split label", ONE_CLASS, f"1 value {UNDIVIDED} 2"),
        (f"{SPLIT} test --best r2", {}, "argument --best: must be accuracy or macro_f1 or mcc"),
        (f"{SPLIT} test --trainer per_device_eval_batch_size=0", {}, f"{BREAKS}batch_size should"),
        (f"{SPLIT} test --trainer eval_accumulation_steps=0", {}, BREAKS),
        (f'{SPLIT} test --trainer lr_scheduler_kwargs={{"a":1}}', {}, BREAKS),
        (f"{SPLIT} test --eval-steps 9", {}, "argument --eval-steps: 9 is more than the 2 steps"),
        ("classification -m ./absent", {}, "error: there is no folder ./absent"),
    ],
)
def test_what_is_refused_before_training(refusal, table, rows, task, changes, message):
    for (row, column), value in changes.items():
        rows[row][column] = value
    told = refusal(table(rows=rows), "--task", *task.split())
    assert message in told
    assert "step 1 of" not in told


def test_a_model_that_is_there(run, refusal, table, rows, model_folder, tmp_path):
    """It is not trained for other labels, and --force replaces it and nothing else."""
    out = tmp_path / "out"
    run(table(), *CLASSIFY)
    several = ("--task", "multi-label", "--label-column", "several")
    message = refusal(table(), *several, model=out)
    assert "its head has other labels: miRNA, rRNA, tRNA; the table has GC, short" in message
    renamed = [row | {"label": row["label"].replace("miRNA", "piRNA")} for row in rows]
    message = refusal(table("renamed.tsv", renamed), *CLASSIFY[:2], model=out)
    assert "its head has other labels" in message
    assert "exists already; --force replaces it" in refusal(table(), *CLASSIFY, out="out")
    first = (out / "model.safetensors").stat().st_ino
    run(table(), *CLASSIFY, "--force")
    assert (out / "model.safetensors").stat().st_ino != first
    (out / "thesis.tex").touch()
    for force in ((), ("--force",)):
        message = refusal(table(), *CLASSIFY, *force, out="out")
        assert "no model that ernie-rna wrote (holds thesis.tex as well" in message
    assert {path.name for path in out.iterdir()} > {"thesis.tex", "model.safetensors"}
    config = config_of(model_folder)
    config.num_labels = 5  # without names
    ernie_rna.ErnieRnaForSequenceClassification(config).save_pretrained(tmp_path / "five")
    shutil.copy(model_folder / "tokenizer.json", tmp_path / "five")
    message = refusal(table(), *CLASSIFY, model=tmp_path / "five")
    assert "its head has other labels: LABEL_0, LABEL_1" in message


def test_a_split_without_a_label_is_refused(refusal, table, rows):
    for row in rows:
        row["bases"] = "-" * len(row["sequence"]) if row["split"] == "test" else row["bases"]
    message = refusal(table(rows=rows), *BASES, "--ignore-label", "-")
    assert "(test): no base has a label but '-', which is ignored" in message


def test_a_missing_extra_and_processes_that_measure_are_named(refusal, table, monkeypatch):
    with pytest.raises(TypeError, match="expected a folder or a Hub id"):
        ernie_rna.finetune(table(), object(), "out", task="classification")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert 'pip install "ernie-rna[train]"' in refusal(table(), *CLASSIFY)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refusal(table(), *CLASSIFY, "--dry-run")
    assert "argument --dry-run: measures one process; this is one of 2" in message


def test_labels_of_minus_100_are_numbers_and_json_is_json(run, table, rows, tmp_path, capsys):
    def refuse(word):
        raise ValueError(word)

    rows = [row | {"number": "-100"} for row in rows]  # whose correlation is not defined
    run(table(rows=rows), *NUMBERS, "--json")
    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert facts["metrics"]["test"]["mse"] < 1
    assert facts["metrics"]["test"]["spearman"] is None
    assert facts["splits"]["train"]["rows"] == 18
    assert all(entry["loss"] > 0 for entry in log_of(tmp_path / "out") if "loss" in entry)


def test_what_becomes_nan_ends_the_run(refusal, table):
    message = refusal(table(), *NUMBERS[:4], "--learning-rate", "1e30", "--steps", 20)
    for text in ("became", "in step", "of the training rows in lines", "nothing was saved"):
        assert text in message


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError, 1)])
def test_an_evaluation_that_fails_leaves_the_model(
    start, run, table, tmp_path, monkeypatch, capsys, error, code, resumes
):
    evaluate, measured = Task.evaluate, []

    def fail(self, trainer, examples):
        measured.append(len(examples))
        if len(measured) == 2:
            raise error
        return evaluate(self, trainer, examples)

    options = (*CLASSIFY, *["--resume"] * resumes)
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.training.tasks.Task.evaluate", fail)
        assert start(table(), *options) == code
    assert "is saved" in capsys.readouterr().err
    ernie_rna.ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert (tmp_path / "out.partial").exists() == resumes
    assert measured == [1, 6]  # One row is tried before training.
    if resumes:
        metrics = tmp_path / "out" / "metrics.json"
        metrics.touch()  # Then it is not what this run has left.
        assert start(table(), *options) == 1
        metrics.unlink()
        assert {"test", "test: guess"} <= {*run(table(), *options)}
        assert not (tmp_path / "out.partial").exists()


# ---------------------------------------------------------------------------------------------
# Resuming


@pytest.fixture
def resume(start, table, tmp_path, monkeypatch, capsys):
    """Resumes a run that was killed in step 3, its state of step 2 in out.partial."""
    options = (*CLASSIFY, "--steps", "4")
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.training.trainer.Progress", lambda _: Killer(3))
        assert start(table(), *options, "--resume") == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert (tmp_path / "out.partial" / "checkpoint-2").is_dir()
    assert not (tmp_path / "out").exists()
    data = tmp_path / "data.tsv"
    return lambda *more: start(data, *options[2 * ("--task" in more) :], *more)


def test_a_run_that_was_cut_off_comes_to_the_same_weights(resume, run, table, tmp_path):
    # A kill while a state is written leaves one without trainer_state.json.
    for number, file in ((3, "trainer_state.json"), (4, "rng_state.pth")):
        broken = tmp_path / "out.partial" / f"checkpoint-{number}"
        shutil.copytree(tmp_path / "out.partial" / "checkpoint-2", broken)
        (broken / file).unlink()
    assert resume("--resume") == 0
    assert not (tmp_path / "out.partial").exists()
    run(table(), *CLASSIFY, "--steps", "4", out="whole")
    assert all(same_weights(tmp_path / "whole", tmp_path / "out").values())


def test_masks_of_a_run_that_was_cut_off_are_the_same(start, run, table, tmp_path, monkeypatch):
    options = ("--task", "masked-lm", "--steps", 6)
    run(table(), *options, out="whole")
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.training.trainer.Progress", lambda _: Killer(3))
        assert start(table(), *options, "--resume") == 130
    run(table(), *options, "--resume")
    assert all(same_weights(tmp_path / "whole", tmp_path / "out").values())
    logs = [log_of(tmp_path / name) for name in ("whole", "out")]
    assert logs[0][-1]["loss"] == logs[1][-1]["loss"]


@pytest.mark.parametrize("step", [2, None], ids=["in a step", "at the end"])
@pytest.mark.parametrize(
    "more", [(), ("--eval-steps", 1, "--best", "accuracy", "--patience", 2)], ids=["all", "best"]
)
def test_a_resumed_run_ends_where_it_would_have(
    run, start, table, tmp_path, monkeypatch, step, more
):
    """Neither a step after the last, nor more patience than was left."""
    options = (*CLASSIFY, "--steps", 5, "--learning-rate", "1e-9", *more)
    run(table(), *options)
    with monkeypatch.context() as patch:
        if step is None:
            fail = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
            patch.setattr("ernie_rna.training.finetune._Run._save", fail)
        else:
            patch.setattr("ernie_rna.training.trainer.Progress", lambda _: Killer(step))
        assert start(table(), *options, "--resume", out="again") == 130
    run(table(), *options, "--resume", out="again")
    folders = tmp_path / "out", tmp_path / "again"
    assert [facts_of(folder)["steps"] for folder in folders] == [3 if more else 5] * 2
    assert all(same_weights(*folders).values())


def test_a_run_that_differs_is_not_resumed(resume, table, rows, capsys, tmp_path):
    for more, difference in (
        ("--learning-rate 1", "options.learning_rate was 0.0001, is 1.0"),
        ("--frozen", "options.frozen was False, is True"),
        ("--task masked-lm", "options.task was 'classification', is 'masked-lm'"),
        ("--batch-size 2", "options.batch_size was 4, is 2"),
    ):
        assert resume(*more.split(), "--resume") == 1
        assert difference in capsys.readouterr().err
    table(rows=[row | {"label": row["label"].replace("tRNA", "aRNA")} for row in rows])
    assert resume("--resume") == 1
    assert "labels was ['miRNA', 'rRNA', 'tRNA'], is ['aRNA'" in capsys.readouterr().err
    assert resume() == 1
    assert "--resume resumes it, --force drops it" in capsys.readouterr().err
    assert resume("--resume", "--force") == 0
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


def test_leakage_is_told(run, table, rows, tmp_path, capsys):
    rows[-1]["sequence"] = rows[0]["sequence"].replace("U", "t")
    rows[1] |= {"sequence": rows[0]["sequence"], "label": "other"}
    run(table(rows=rows), *CLASSIFY)
    notes = facts_of(tmp_path / "out")["notes"]
    assert "1 of 6 sequences of test are in training as well" in notes[-1]
    assert "1 training sequences occur more than once, with different labels" in notes
    assert "classes with a single row: other" in notes
    card = (tmp_path / "out" / "README.md").read_text()
    printed = capsys.readouterr().err
    for note in notes:
        assert note in card
        assert note in printed


@pytest.mark.parametrize(
    ("column", "way_out"),
    [(TEST[:2], "--eval-split names the values of 'split'"), ((), "--split similar holds out")],
)
def test_nothing_is_evaluated(run, table, tmp_path, capsys, column, way_out):
    assert run(table(), *CLASSIFY[:2], *column, "--steps", 1) == {}
    told = capsys.readouterr().err
    assert f"note: nothing is evaluated: {way_out}" in told
    assert ("6 rows are in no split that is named: split is test there" in told) == bool(column)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- epochs" not in card
    assert "- held_out" not in card
    assert "- seed: 0" in card


def test_the_best_state_is_kept(run, table, tmp_path):
    options = ("--eval-steps", 2, "--best", "mse", "--steps", 8, "--learning-rate", "0.3")
    metrics = run(table(), *NUMBERS, *options)
    values = [entry["eval_mse"] for entry in log_of(tmp_path / "out") if "eval_mse" in entry]
    assert len(values) == 4
    assert metrics["test"]["mse"] == pytest.approx(min(values), rel=1e-5)
    assert "</svg>" in (tmp_path / "out" / "curve.svg").read_text()
    assert not (tmp_path / "out.partial").exists()


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
    same = same_weights(model_folder, tmp_path / "out")
    encoder = {name: one for name, one in same.items() if name.startswith("ernie_rna.")}
    assert all(encoder.values()) == frozen
    assert encoder["ernie_rna.layers.0.self_attn.q_proj.weight"] == frozen
    last = "ernie_rna.layers.1.fc2.weight"  # behind the scores that structures are read off
    assert encoder[last] == (frozen or task == "structure")
    facts = facts_of(tmp_path / "out")
    assert 0 < facts["weights_trained"] < facts["weights"] or not options


def test_structures(run, table, rows, tmp_path):
    metrics = run(table(), "--task", "structure", "--positive-weight", 5, *TEST)["test"]
    known = [
        Structure(str(row), one["sequence"], from_dot_bracket(one["dot_bracket"]))
        for row, one in enumerate(rows)
        if one["split"] == "test"
    ]
    sequences = {one.id: one.sequence for one in known}
    folded = ernie_rna.fold(sequences, tmp_path / "out", progress=False)
    scores = ernie_rna.evaluate([one.structure for one in folded], known).mean_exact
    assert {name: getattr(scores, name) for name in metrics} == pytest.approx(metrics)
    config = config_of(tmp_path / "out")
    assert config.architectures == ["ErnieRnaForSecondaryStructure"]
    assert (config.pair_heads, config.pair_positive_weight) == ([5], 5)
    auto_map = json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_ernie_rna.ErnieRnaForSecondaryStructure"


def test_the_calibration_of_another_head_goes_and_no_pair_is_right(run, table, rows, tmp_path):
    rows = [row | {"sequence": "A" * 9, "dot_bracket": "." * 9} for row in rows]
    metrics = run(table(rows=rows), "--task", "structure", "--frozen", *TEST, model="mini")
    assert metrics["test"]["f1"] == 1  # no pair, and none predicted
    before, after = map(config_of, (ernie_rna.mini(), tmp_path / "out"))
    assert before.pair_calibration is not None
    assert after.pair_calibration is None
    assert after.pair_channels == before.pair_channels


def test_ribosome_loading_has_the_scaler_of_the_training_rows(run, table, rows, tmp_path):
    run(table(), "--task", "ribosome-loading", "--label-column", "number", *TEST)
    config = config_of(tmp_path / "out")
    numbers = [float(row["number"]) for row in rows if row["split"] == "train"]
    assert config.loading_mean == pytest.approx(np.mean(numbers))
    assert config.loading_scale == pytest.approx(np.std(numbers))


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
