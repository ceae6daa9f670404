"""Predictions of the heads for sequences and bases: values, output files, and metrics."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.cli.main import main
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.model import modeling_ernie_rna as models
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.options import OptionError
from ernie_rna.run.loading import EncodingError
from ernie_rna.run.outputs import OutputError
from ernie_rna.scoring.predict import PredictTask, predict
from ernie_rna.sequences import chunks as chunking
from tests.conftest import lively
from tests.golden_folder import GOLDEN, head_checkpoint, write_golden_folder
from tests.run.conftest import raising

SEQUENCES = {"one": "GGGGAAAACCCC", "two": "acgtN", "three": "G"}
# In a batch and alone, float32 sums have another order.
TOLERANCE = 2e-6


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)


def make_model(kind, problem=None, names=("a", "b", "c")):
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96}
    sizes |= {"max_position_embeddings": 66, "loading_channels": 8, "loading_blocks": 2}
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = ErnieRnaConfig(**sizes, **labels, problem_type=problem)
    return lively(getattr(models, kind)(config)).eval()


SEQUENCE = "ErnieRnaForSequenceClassification"
MODELS = {
    "classification": (SEQUENCE, "single_label_classification"),
    "multi-label": (SEQUENCE, "multi_label_classification"),
    "regression": (SEQUENCE, "regression", ("te",)),
    "token-classification": ("ErnieRnaForTokenClassification",),
    "ribosome-loading": ("ErnieRnaForRibosomeLoading", None, ("mrl",)),
}


def by_hand(model, tokenizer, sequence, task):
    """The values that the model returns for a single sequence."""
    with torch.inference_mode():
        output = model(**tokenizer(sequence, return_tensors="pt"))
    if task == "ribosome-loading":
        return output.predictions.numpy()
    (values,) = output.logits
    if task == "multi-label":
        values = values.sigmoid()
    if task.endswith("classification"):
        values = values.softmax(-1)
    return (values[1:-1] if task == "token-classification" else values).numpy()


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("batch_tokens", [1, 64, 2048])
def test_equals_the_model(tokenizer, task, batch_tokens):
    model = make_model(*MODELS[task])
    predictions = list(predict(SEQUENCES, model, batch_tokens=batch_tokens))
    expected_ids = [("one", "GGGGAAAACCCC"), ("two", "ACGUN"), ("three", "G")]
    assert [(one.id, one.sequence) for one in predictions] == expected_ids
    for one in predictions:
        expected = by_hand(model, tokenizer, one.sequence, task)
        assert (one.task, one.values.dtype) == (task, np.float32)
        np.testing.assert_allclose(one.values, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("task", "values", "predicted"),
    [
        ("classification", [0.2, 0.5, 0.3], "b"),
        ("multi-label", [0.51, 0.5, 0.9], ["a", "c"]),
        ("multi-label", [0.1, 0.1, 0.1], []),
        ("regression", [1.5, 0.25, 3.0], {"a": 1.5, "b": 0.25, "c": 3.0}),
        ("token-classification", [[0.2, 0.5, 0.3], [1, 0, 0]], ["b", "a"]),
    ],
)
def test_predicted_labels(task, values, predicted):
    (one,) = predict(["GC"], make_model(*MODELS[task][:2]))
    assert one.names == ("a", "b", "c")
    one.__dict__["values"] = np.array(values, np.float32)
    assert one.predicted == predicted


def test_a_model_without_problem_type():
    for names, task in ((("a", "b"), "classification"), (("te",), "regression")):
        with pytest.warns(UserWarning, match=f"no problem_type: the model is run as {task}"):
            (one,) = predict(["ACGU"], make_model(SEQUENCE, None, names))
        assert one.task == task


@pytest.mark.parametrize(
    ("kind", "way_out"),
    [
        ("ErnieRnaForSecondaryStructure", "`ernie-rna fold` runs it"),
        ("ErnieRnaForCloseness", "`ernie-rna closeness` runs it"),
        ("ErnieRnaForMaskedLM", "`ernie-rna finetune` trains one"),
    ],
)
def test_a_model_without_a_suitable_head(tmp_path, kind, way_out):
    model = make_model(kind)
    model.save_pretrained(tmp_path)
    for source, name in ((model, "the model"), (tmp_path, str(tmp_path))):
        with pytest.raises(ValueError, match=f"{name} has no head .*: it is {kind}; {way_out}"):
            predict(["ACGU"], source)


def test_values_that_are_not_finite_are_errors():
    model = make_model(*MODELS["regression"])
    with torch.no_grad():
        model.classifier.bias.fill_(float("inf"))
    with pytest.raises(EncodingError, match="0: the prediction is not finite"):
        list(predict(["ACGU"], model))


# The authors' mean ribosome loading.
UTRS = {"utr_50": "GGAGACUUCAGGCAUCCAGUAUCUGACGGAACUUUAGCUAGCCGAUUACG", "one": "G"}


@pytest.fixture(scope="module")
def loading_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loading")
    return write_golden_folder(folder, head_checkpoint("ribosome_loading"))


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_the_authors_values_in_any_batch(loading_folder, sequences, batch_tokens):
    rnas = {**UTRS, "utr_76": sequences["trna_arg"]}
    predicted = {
        one.id: one.predicted for one in predict(rnas, loading_folder, batch_tokens=batch_tokens)
    }
    expected = load_file(GOLDEN / "tiny_heads_expected.safetensors")
    for name in ("utr_50", "utr_76"):
        prediction = expected[f"ribosome_loading.{name}.prediction"].item()
        mrl = 1.3539032306228027 * prediction + 5.269799754058842
        assert predicted[name]["mrl"] == pytest.approx(mrl, abs=2e-5)


def test_pairing_scores_change_results_and_are_stored(loading_folder, tmp_path, monkeypatch):
    by_default, zero = (
        next(predict(UTRS, loading_folder, pairing_scores=choice)) for choice in (None, "zero")
    )
    assert abs(by_default.values - zero.values) > 1e-4
    with monkeypatch.context() as patch:
        patch.setattr(PredictTask, "assemble", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict(UTRS, loading_folder, tmp_path / "out.tsv")
    with pytest.raises(OutputError, match="pairing_scores was 'sequence', is 'zero'"):
        predict(UTRS, loading_folder, tmp_path / "out.tsv", pairing_scores="zero")


# ---------------------------------------------------------------------------------------------
# The command, and files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a model for each task, a FASTA file and a table."""
    monkeypatch.chdir(tmp_path)
    for task, arguments in MODELS.items():
        make_model(*arguments).save_pretrained(task)
    Path("in.fasta").write_text("".join(f">{id} RNA\n{rna}\n" for id, rna in SEQUENCES.items()))
    cells = [("b", "a;b", 1, 1, 0, "abcabcabcabc"), ("a", "", 0, 0, 0, "abcab")]
    cells += [("c", "a;c", 1, 0, 1, "c")]
    with open("in.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "note", "sequence", "label", "several", "a", "b", "c", "bases"])
        for (id, rna), labels in zip(SEQUENCES.items(), cells, strict=True):
            rows.writerow([id, f'5\' "{id}", end', rna, *labels])
    return tmp_path


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    try:
        exit_code = main(["predict", *arguments])
    except SystemExit as error:
        exit_code = error.code
    assert exit_code == code
    return capsys.readouterr()


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="," if path.endswith(".csv") else "\t"))


@pytest.mark.parametrize("task", MODELS)
def test_a_table_and_an_npz_file_of_predictions(folder, capsys, task):
    predictions = list(predict("in.fasta", task))
    names = list(predictions[0].names)
    values = np.concatenate([np.atleast_2d(one.values) for one in predictions])
    numbers = task in ("regression", "ribosome-loading")
    expected = []
    for one in predictions:
        length = {"id": one.id, "length": str(len(one.sequence))}
        if task == "token-classification":
            for i, (base, label) in enumerate(zip(one.sequence, one.predicted, strict=True), 1):
                row = {"id": one.id, "position": str(i), "base": base, "predicted": label}
                expected.append(row)
        elif task == "multi-label":
            expected.append({**length, "predicted": ";".join(one.predicted)})
        else:
            expected.append(length if numbers else {**length, "predicted": one.predicted})
    assert run(capsys, "in.fasta", "-m", task, "-o", "out.tsv").err.startswith("out.tsv: 3 sequ")
    rows, prefix = read("out.tsv"), "predicted" if numbers else "p"
    written = [[float(row.pop(f"{prefix}_{name}")) for name in names] for row in rows]
    assert rows == expected
    np.testing.assert_allclose(written, values, rtol=1e-6)
    streamed = run(capsys, "in.fasta", "-m", task, "-o", "-", "--quiet").out
    assert streamed == Path("out.tsv").read_text()

    run(capsys, "in.fasta", "-m", task, "-o", "out.npz")
    column = "numbers" if numbers else "probabilities"
    column = f"token_{column}" if task == "token-classification" else column
    metadata = read_metadata("out.npz")
    assert (metadata["columns"], metadata["names"]) == ([column], names)
    arrays = list(read_embeddings("out.npz"))
    assert [(one.id, one.length) for one in arrays] == [(i, len(r)) for i, r in SEQUENCES.items()]
    vectors = np.concatenate([np.atleast_2d(one.arrays[column]) for one in arrays])
    np.testing.assert_array_equal(vectors, values)


def test_the_columns_of_a_table_are_kept(folder, capsys):
    table = read("in.csv")
    for output in ("out.tsv", "out.csv"):
        run(capsys, "in.csv", "-m", "classification", "-o", output)
        rows = read(output)
        assert [{name: row[name] for name in table[0]} for row in rows] == table
        assert [*rows[0]][len(table[0]) :] == ["predicted", "p_a", "p_b", "p_c"]
    run(capsys, "in.csv", "-m", "token-classification", "-o", "b.tsv", "--label-column", "bases")
    rows = read("b.tsv")
    assert [*rows[0]][:5] == ["name", "note", "label", "several", "a"]
    letters = "".join(SEQUENCES.values()).upper().replace("T", "U")
    assert [row["base"] for row in rows] == list(letters)
    assert [row["name"] for row in rows] == ["one"] * 12 + ["two"] * 5 + ["three"]
    Path("no_ids.csv").write_text("sequence\nGG\nA\n")
    run(capsys, "no_ids.csv", "-m", "token-classification", "-o", "c.tsv")
    assert [row["id"] for row in read("c.tsv")] == ["line 2", "line 2", "line 3"]


def test_metrics_of_a_table_with_labels(folder, capsys):
    only_a = make_model(*MODELS["multi-label"])
    # The model predicts only a, so that the order of columns matters.
    only_a.classifier.bias.data = torch.tensor([9.0, -9.0, -9.0])
    only_a.save_pretrained("multi-label")
    command = ("in.csv", "-m", "multi-label", "--quiet", "--force", "--label-column")
    metrics = run(capsys, *command, "several", "-o", "o.tsv").out
    rows = ["predicted", "exact_match", "macro_f1", "micro_f1"]
    assert [line.split()[0] for line in metrics.splitlines()] == rows
    for columns in ("abc", "bca"):  # A column for each label, in any order.
        assert run(capsys, *command, *columns, "-o", "o.npz").out == metrics
    streamed = run(capsys, *command, "several", "-o", "-")
    assert (streamed.out, streamed.err) == (Path("o.tsv").read_text(), metrics)
    summary = predict("in.csv", "multi-label", "p.tsv", label_column="several", progress=False)
    assert f"{summary.metrics['micro_f1']:.4f}" in metrics
    with pytest.raises(OptionError, match="label_column needs a table of sequences, and an outp"):
        predict("in.csv", "multi-label", label_column="several")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("in.csv -m classification --label-column x", 1, "no column 'x'; it has name, note"),
        ("in.csv -m classification --label-column name", 1, "line 2: name: 'one' is not a label"),
        ("in.csv -m regression --label-column name", 1, "line 2: name: 'one' is not a number"),
        ("in.csv -m token-classification --label-column label", 1, "line 2: 1 labels for 12 bases"),
        ("in.csv -m regression --label-column a b", 2, "--label-column: must name 1 (te); got a,"),
        ("in.csv -m multi-label --label-column a b", 2, "must name 3 (a, b, c); got a, b"),
        ("in.csv -m multi-label --label-column label a b", 2, "in the order of the model's a, b"),
        ("in.fasta -m regression --label-column a", 2, "needs a table of sequences, and an outp"),
        ("in.fasta -m regression --sequence-column s", 2, "--sequence-column: needs a table"),
        ("in.csv -m classification --ignore-label a", 2, "applies to token-classification; the ta"),
        ("in.fasta -m classification --label-separator @", 2, "applies to multi-label; the task"),
        ("in.fasta -m token-classification --ignore-label a", 2, "without --label-column"),
        ("clash.csv -m classification", 1, "the output also has a column 'p_a': rename that"),
        ("long.csv -m classification", 1, "line 2 (99 nt). --long full computes each as a whole"),
    ],
)
def test_invalid_labels_and_tables(folder, capsys, arguments, code, message):
    Path("clash.csv").write_text("sequence,p_a\nACGU,1\n")
    Path("long.csv").write_text(f"sequence\n{'A' * 99}\n")
    before = {path.name for path in folder.iterdir()}
    assert message in run(capsys, *arguments.split(), "-o", "out.tsv", code=code).err
    assert {path.name for path in folder.iterdir()} == before


def test_a_compressed_table_with_decimal_commas(folder, capsys):
    Path("in.tsv.gz").write_bytes(gzip.compress(b"sequence;mrl\nACGU;1,5\nGGCC;2,5"))
    printed = run(capsys, "in.tsv.gz", "-m", "regression", "-o", "a.tsv", "--label-column", "mrl")
    assert "mse" in printed.out
    assert printed.err.count("a comma in a number is read as a decimal point") == 1


@pytest.mark.parametrize("suffix", [".tsv", ".npz"])
def test_killed_and_resumed_and_shared(folder, monkeypatch, suffix):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 1)
    options = {"label_column": "label", "progress": False}
    expected = predict("in.csv", "classification", f"expected{suffix}", **options)
    computed, compute = [], PredictTask.compute

    def counted(self, records, pieces):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.extend(record.id for record in records)
        return compute(self, records, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(PredictTask, "compute", counted)
        with pytest.raises(KeyboardInterrupt):
            predict("in.csv", "classification", f"out{suffix}", **options)
    assert computed == ["line 2", "line 3"]
    summary = predict("in.csv", "classification", f"out{suffix}", **options)
    assert summary.resumed
    assert summary.metrics == expected.metrics
    for part, metrics in ((2, {}), (1, expected.metrics)):
        shared = predict("in.csv", "classification", f"p{suffix}", part=f"{part}/2", **options)
        assert shared.metrics == metrics
    for path in (f"out{suffix}", f"p{suffix}"):
        assert Path(path).read_bytes() == Path(f"expected{suffix}").read_bytes()


def test_a_resumed_run_returns_the_metrics_of_a_complete_output(folder, monkeypatch):
    options = {"label_column": "label", "progress": False}
    with monkeypatch.context() as patch:  # as if killed after the output is complete
        patch.setattr("ernie_rna.run.store.Store.__exit__", lambda self, *_: self._held.close())
        first = predict("in.csv", "classification", "out.tsv", **options)
        with pytest.raises(OutputError, match=r"out\.tsv exists already; --force"):
            predict("in.csv", "classification", "out.tsv", progress=False)
    assert predict("in.csv", "classification", "out.tsv", **options).metrics == first.metrics != {}


def test_shards_of_embed_are_not_replaced_without_force(folder):
    index = Path("out.safetensors.index.json")
    index.write_text('{"shards": []}')
    with pytest.raises(OutputError, match=r"index\.json exists already; --force"):
        predict("in.fasta", "regression", "out.safetensors", progress=False)
    predict("in.fasta", "regression", "out.safetensors", progress=False, force=True)
    assert not index.exists()
