"""Fine-tuning for structures and ribosome loading: labels, heads, LoRA, resumption."""

import json

import numpy as np
import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure

from ernie_rna.run.loading import class_names
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.head_tasks import PairCollator, RibosomeLoading, SecondaryStructure
from ernie_rna.training.head_tasks import pair_labels as labels_of
from ernie_rna.training.settings import Settings
from ernie_rna.training.tables import read_sequences, read_table
from ernie_rna.training.tasks import LabelFormat
from scripts import finetune as script
from tests.golden_folder import write_golden_folder

HAIRPIN = Structure("hairpin", "GGGAAACCC", [(0, 8), (1, 7), (2, 6)])
SHORT = Structure("short", "GAAAN", [(0, 4)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_golden_folder(tmp_path_factory.mktemp("model"))


def structure_task(**options):
    return SecondaryStructure(LabelFormat(("dot_bracket",)), **options)


def test_labels_of_pairs():
    labels = labels_of([HAIRPIN, SHORT], 9)
    assert labels.shape == (2, 9, 9)
    assert torch.equal(labels, labels.transpose(1, 2))
    assert labels[0, 0, 8] == labels[0, 2, 6] == 1
    assert labels[0, 0, 7] == 0  # G and C that do not pair
    assert labels[0, 0, 3] == -100  # G and A cannot
    assert labels[1, 0, 4] == 1  # known, whatever the letters
    assert (labels[1, 5:] == -100).all()


def test_a_cut_sequence_keeps_the_pairs_that_are_in_it():
    example = structure_task().encode([0, *[4] * 7, 2], HAIRPIN)
    assert example["labels"].pairs == [(2, 6)]
    batch = PairCollator(1)([example, structure_task().encode([0, *[4] * 5, 2], SHORT)])
    assert batch["input_ids"].shape == (2, 9)
    assert batch["labels"].shape == (2, 7, 7)
    assert batch["attention_mask"].sum(1).tolist() == [9, 7]


def test_structures_from_tables_and_folders(tmp_path):
    table = "id\tsequence\tdot_bracket\nhairpin\tGGGAAACCC\t(((...)))\n"
    (tmp_path / "known.tsv").write_text(table)
    (tmp_path / "ct").mkdir()
    write_structures(tmp_path / "ct" / "hairpin.ct", [HAIRPIN])
    write_structures(tmp_path / "known.dbn", [HAIRPIN])
    for name in ("known.tsv", "ct", "ct/hairpin.ct", "known.dbn"):
        read = read_sequences(tmp_path / name, "sequence")
        sequences = read.sequences("sequence")
        (label,) = structure_task().read_labels(read, sequences)
        assert label.pairs == HAIRPIN.pairs
        assert label.sequence == HAIRPIN.sequence


@pytest.mark.parametrize(
    ("brackets", "message"),
    [("(((..)))", "line 2: 8 labels for 9 bases"), ("(((....))", "line 2: dot_bracket: ")],
)
def test_structures_that_are_none(tmp_path, brackets, message):
    path = tmp_path / "known.tsv"
    path.write_text(f"sequence\tdot_bracket\nGGGAAACCC\t{brackets}\n")
    table = read_table(path)
    with pytest.raises(InputError, match=message):
        structure_task().read_labels(table, table.sequences("sequence"))


def test_a_new_head_is_like_the_authors_and_an_old_one_is_kept():
    class Before:
        architectures = ("ErnieRnaForMaskedLM",)

    assert structure_task(positive_weight=3.0).config(Before) == {
        "pair_heads": [5],
        "pair_positive_weight": 3.0,
    }
    Before.architectures = ("ErnieRnaForPreTraining",)
    assert structure_task().config(Before) == {}


def test_the_scaler_is_that_of_the_training_rows():
    class Model:
        class config:  # noqa: N801
            loading_mean, loading_scale = 5.0, 1.0

    class Before:
        architectures = None

    task = RibosomeLoading(LabelFormat(("mrl",)))
    task.config(Before)
    task.start_head(Model, [[1.0], [3.0]])
    assert (Model.config.loading_mean, Model.config.loading_scale) == (2.0, 1.0)
    Before.architectures = ["ErnieRnaForRibosomeLoading"]
    task.config(Before)
    task.start_head(Model, [[7.0], [9.0]])
    assert Model.config.loading_mean == 2.0


def test_lora_and_frozen_exclude_each_other():
    with pytest.raises(ValueError, match="--lora takes a rank of at least 1, without --frozen"):
        Settings(lora=4, frozen=True)
    with pytest.raises(ValueError, match="got 0"):
        Settings(lora=0)


def hairpins(count):
    """Rows of hairpins, split in two."""
    generator = np.random.default_rng(0)
    pairs = {"G": "C", "C": "G", "A": "U", "U": "A"}
    rows = []
    for number in range(count):
        stem = "".join(generator.choice(list("GCAU"), 6))
        other = "".join(pairs[base] for base in reversed(stem))
        split = "test" if number % 4 == 0 else "train"
        rows.append(f"{stem}GAAA{other}\t{'(' * 6}....{')' * 6}\t{number}\t{split}")
    return "sequence\tdot_bracket\tmrl\tsplit\n" + "\n".join(rows) + "\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text(hairpins(8))
    return path


def finetune(folder, table, out, *more, code=0):
    arguments = [str(folder), str(table), str(out), "--split-column", "split", "--eval-split"]
    arguments += ["test", "--cpu", "--batch-size", "4", *map(str, more)]
    assert script.main(arguments) == code
    return None if code else json.loads((out / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize("how", [["--frozen"], ["--lora", 2], []], ids=["frozen", "lora", "whole"])
def test_structure(folder, table, tmp_path, how):
    out = tmp_path / "out"
    more = ["--task", "structure", "--steps", 2, "--positive-weight", 5, *how]
    metrics = finetune(folder, table, out, *more)
    assert 0 <= metrics["test"]["f1"] <= 1
    assert class_names(out) == ["ErnieRnaForSecondaryStructure"]
    before, after = (ErnieRnaForSecondaryStructure.from_pretrained(f) for f in (folder, out))
    assert after.config.pair_heads == [5]
    assert after.config.pair_positive_weight == 5
    same = torch.equal(
        before.ernie_rna.layers[0].self_attn.q_proj.weight,
        after.ernie_rna.layers[0].self_attn.q_proj.weight,
    )
    assert same == (how == ["--frozen"])
    assert after.pair_head.blocks[0].norm.num_batches_tracked == 2
    auto_map = json.loads((out / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_ernie_rna.ErnieRnaForSecondaryStructure"


def test_ribosome_loading(folder, table, tmp_path):
    more = ["--task", "ribosome-loading", "--label-column", "mrl", "--steps", 2]
    metrics = finetune(folder, table, tmp_path / "out", *more)
    assert set(metrics["test"]) == {"r2", "spearman", "mse"}
    assert metrics["test: guess"]["mse"] > 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["ErnieRnaForRibosomeLoading"]
    assert config["loading_mean"] == pytest.approx(np.mean([1, 2, 3, 5, 6, 7]))


def test_a_run_that_was_cut_off_comes_to_the_same_weights(
    folder, table, tmp_path, monkeypatch, capsys
):
    from transformers import TrainerCallback

    more = ["--task", "structure", "--frozen", "--steps", 4, "--resume"]
    finetune(folder, table, tmp_path / "whole", *more)

    class Killer(TrainerCallback):
        def on_step_end(self, args, state, control, **rest):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.training.finetune._Progress", Killer)
        finetune(folder, table, tmp_path / "broken", *more, code=130)
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "broken" / "checkpoints" / "checkpoint-2").is_dir()
    finetune(folder, table, tmp_path / "broken", *more)
    assert not (tmp_path / "broken" / "checkpoints").exists()
    whole, broken = (
        ErnieRnaForSecondaryStructure.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "broken")
    )
    assert all(torch.equal(weight, broken[name]) for name, weight in whole.items())
