"""Fine-tuning: every task from a table to a folder that loads, and what is refused before."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ernie_rna.convert.folder import MODULES
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForSequenceClassification,
    ErnieRnaForTokenClassification,
)
from tests.training.conftest import QUICK, ROWS, TEST


def test_classification(run, table, tmp_path, capsys):
    metrics = run(table(), "--task", "classification", *TEST)
    assert set(metrics["test"]) == {"accuracy", "macro_f1", "mcc"}
    assert metrics["test: guess"]["mcc"] == 0
    model = ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "miRNA", 1: "rRNA", 2: "tRNA"}
    assert model.config.label2id == {"miRNA": 0, "rRNA": 1, "tRNA": 2}
    assert model.config.problem_type == "single_label_classification"
    printed = capsys.readouterr()
    assert "labels (3): miRNA, rRNA, tRNA" in printed.err
    assert "accuracy" in printed.out


def test_multi_label_in_one_column(run, table, tmp_path):
    metrics = run(table(), "--task", "multi-label", "--label-column", "several", *TEST)
    assert set(metrics["test"]) == {"exact_match", "macro_f1", "micro_f1"}
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == {0: "GC", 1: "short"}
    assert config.problem_type == "multi_label_classification"


def test_multi_label_in_columns(run, table, rows, tmp_path):
    rows = [row | {"a": "1", "b": str(i % 2)} for i, row in enumerate(rows)]
    run(table(rows=rows), "--task", "multi-label", "--label-column", "b", "a", *TEST)
    assert ErnieRnaConfig.from_pretrained(tmp_path / "out").id2label == {0: "b", 1: "a"}


def test_regression(run, table, tmp_path):
    metrics = run(table(), "--task", "regression", "--label-column", "number", *TEST)
    assert set(metrics["test"]) == {"r2", "spearman", "mse"}
    config = ErnieRnaConfig.from_pretrained(tmp_path / "out")
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_regression_of_several_numbers_starts_from_their_means(run, table, rows, tmp_path):
    rows = [row | {"other": "70.5"} for row in rows]
    columns = ("--label-column", "number", "other")
    run(table(rows=rows), "--task", "regression", *columns, "--frozen", *TEST)
    model = ErnieRnaForSequenceClassification.from_pretrained(tmp_path / "out")
    training = [float(row["number"]) for row in rows if row["split"] == "train"]
    means = torch.tensor([np.mean(training), 70.5], dtype=torch.float32)
    torch.testing.assert_close(model.classifier.bias.detach(), means, atol=0.01, rtol=0)


@pytest.mark.parametrize("divider", ["", " ", ","])
def test_token_classification(run, table, rows, tmp_path, divider):
    rows = [row | {"bases": divider.join(row["bases"])} for row in rows]
    options = ("--task", "token-classification", "--label-column", "bases", *TEST)
    metrics = run(table(rows=rows), *options)
    assert set(metrics["test"]) == {"accuracy", "macro_f1", "mcc"}
    model = ErnieRnaForTokenClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "S", 1: "W"}


def test_bases_without_a_label_are_left_out(run, table, rows, tmp_path):
    rows = [row | {"bases": row["bases"][:-3] + "..."} for row in rows]
    options = ("--label-column", "bases", "--ignore-label", ".", *TEST)
    run(table(rows=rows), "--task", "token-classification", *options)
    assert ErnieRnaConfig.from_pretrained(tmp_path / "out").id2label == {0: "S", 1: "W"}


@pytest.mark.parametrize("pairing", ["inference", "pretraining"])
def test_masked_lm(run, table, tmp_path, pairing):
    options = ("--task", "masked-lm", "--mask-pairing", pairing, *TEST)
    metrics = run(table(), *options)
    assert set(metrics["test"]) == {"perplexity", "loss", "accuracy"}
    assert 1 < metrics["test: guess"]["perplexity"] < 4.5
    ErnieRnaForMaskedLM.from_pretrained(tmp_path / "out")


def test_masked_lm_on_fasta(run, rows, tmp_path):
    path = tmp_path / "rnas.fasta"
    path.write_text("".join(f">rna{i}\n{row['sequence']}\n" for i, row in enumerate(rows)))
    metrics = run(str(path), "--task", "masked-lm", "--eval-file", str(path))
    assert metrics["rnas"]["perplexity"] > 1


def test_separate_files_and_csv(run, table, rows):
    parts = {"train.csv": rows[:18], "valid.csv": rows[18:], "test.csv": rows[18:]}
    training, *evaluation = (table(name, own) for name, own in parts.items())
    metrics = run(training, "--task", "classification", "--eval-file", *evaluation)
    assert set(metrics) == {"valid", "valid: guess", "test", "test: guess"}


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
    assert "its head is of other labels: miRNA, rRNA, tRNA; the table has GC, short" in message
    renamed = [row | {"label": row["label"].replace("miRNA", "piRNA")} for row in rows]
    message = refusal(
        table("more.tsv", renamed), "--task", "classification", model=tmp_path / "out"
    )
    assert "its head is of other labels" in message


def test_the_folder_loads_with_the_auto_classes(run, table, tmp_path):
    run(table(), "--task", "classification", *TEST)
    folder = tmp_path / "out"
    assert {f"{module}.py" for module in MODULES} <= {path.name for path in folder.iterdir()}
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


def test_a_missing_column_names_those_there_are(refusal, table):
    message = refusal(table(), "--task", "regression", "--label-column", "mrl")
    assert "data.tsv: no column 'mrl'; it has sequence, label, several, number" in message
    assert "no column 'rna'" in refusal(table(), "--task", "masked-lm", "--sequence-column", "rna")


def test_a_label_that_training_lacks(refusal, table, rows):
    rows[-1]["label"] = "lncRNA"
    message = refusal(table(rows=rows), "--task", "classification", *TEST)
    assert f"(test): line {ROWS + 1}: label: 'lncRNA' is none of the labels of training" in message
    assert "miRNA, rRNA, tRNA" in message


def test_a_label_that_is_no_number(refusal, table, rows):
    rows[4]["number"] = "4,2"
    message = refusal(table(rows=rows), "--task", "regression", "--label-column", "number")
    assert "data.tsv: line 6: number: '4,2' is no number" in message
    rows[4]["number"] = "nan"
    message = refusal(table(rows=rows), "--task", "regression", "--label-column", "number")
    assert "line 6: number: 'nan' is not finite" in message
    rows[4]["number"] = ""
    message = refusal(table(rows=rows), "--task", "regression", "--label-column", "number")
    assert "line 6: number: an empty cell is no number" in message


def test_sequences_that_are_too_long(refusal, table, rows):
    rows[2]["sequence"], rows[7]["sequence"] = "A" * 41, "C" * 50
    message = refusal(table(rows=rows), "--task", "classification")
    assert f"2 of {ROWS} sequences are longer than 40 nucleotides" in message
    assert "the longest has 50 (line 9); --truncate cuts them" in message


def test_bases_that_do_not_fit(refusal, table, rows):
    rows[3]["bases"] += "S"
    length = len(rows[3]["sequence"])
    options = ("--task", "token-classification", "--label-column", "bases")
    message = refusal(table(rows=rows), *options)
    assert f"line 5: {length + 1} labels for {length} bases" in message


def test_sequences_that_are_none(refusal, table, rows):
    rows[5]["sequence"] = "ACG-U"
    message = refusal(table(rows=rows), "--task", "classification")
    assert "(line 7): '-' at position 4" in message
    rows[5]["sequence"] = ""
    assert "(line 7): it is empty" in refusal(table(rows=rows), "--task", "classification")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; its first line must name the columns"),
        ("sequence\tlabel\n", "no row behind the header"),
        ("sequence\tlabel\nACGU\ta\tb\n", "line 2: 3 cells, and the header has 2"),
        ("sequence\tsequence\nACGU\ta\n", "two columns are called 'sequence'"),
        ("sequence\tlabel\nACGU\ta\nACGU\ta\n", "has 1 different labels"),
    ],
)
def test_tables_that_are_none(refusal, tmp_path, text, message):
    path = tmp_path / "broken.tsv"
    path.write_text(text)
    assert message in refusal(str(path), "--task", "classification")


def test_splits_that_are_not_there(refusal, table):
    options = ("--task", "classification", "--split-column", "split", "--eval-split", "valid")
    assert "no row with split='valid'; there are test, train" in refusal(table(), *options)
    message = refusal(table(), "--task", "classification", "--eval-split", "test")
    assert "--eval-split needs --split-column" in message


def test_flags_that_are_none(refusal, table):
    options = ("--task", "multi-label", "--label-column", "number", "label")
    assert "is neither 0 nor 1" in refusal(table(), *options)


def test_two_label_columns_for_one_label(refusal, table):
    options = ("--task", "classification", "--label-column", "label", "bases")
    assert "one label column is needed; got label, bases" in refusal(table(), *options)


def test_a_folder_that_is_there(model_folder, table, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    argv = [str(model_folder), table(), str(tmp_path / "out"), "--task", "classification"]
    assert finetune.main(argv) == 1
    assert "not empty; --force writes into it" in capsys.readouterr().err


def test_a_model_that_is_none(table, tmp_path, capsys):
    argv = [str(tmp_path / "absent"), table(), str(tmp_path / "out"), "--task", "classification"]
    assert finetune.main(argv) == 1
    assert "error: " in capsys.readouterr().err


def test_a_missing_extra_is_named(model_folder, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    argv = [str(model_folder), table(), str(tmp_path / "out"), "--task", "classification"]
    assert finetune.main(argv) == 1
    assert 'pip install "ernie-rna[train]"' in capsys.readouterr().err


def test_the_command_knows_every_task_and_pairing():
    assert set(cli_finetune.TASK_NAMES) == {*TASKS, "structure", "ribosome-loading"}
    assert cli_finetune.PAIRINGS == PAIRINGS
