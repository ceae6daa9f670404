"""Conversion of the authors' fine-tuned models, known by their keys and strict both ways."""

import json
from dataclasses import replace

import pytest
import torch

from ernie_rna.convert.conversion import convert_weights, to_fairseq
from ernie_rna.convert.export import convert, write_folder
from ernie_rna.convert.foreign.head_names import loading_rows, pair_rows
from ernie_rna.convert.foreign.names import expand
from ernie_rna.convert.foreign.pickles import CheckpointError
from ernie_rna.convert.foreign.reading import read_checkpoint
from ernie_rna.convert.model_card import model_card
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.run.loading import load_model
from tests.golden_folder import head_checkpoint

TASKS = {
    "secondary_structure": ("ErnieRnaForSecondaryStructure", [5], 8),
    "closeness": ("ErnieRnaForCloseness", None, 16),
    "ribosome_loading": ("ErnieRnaForRibosomeLoading", None, 8),
}


def read(task):
    return read_checkpoint(head_checkpoint(task))


def prefix_of(state):
    return (
        "module.sentence_encoder."
        if next(iter(state)).startswith("module.")
        else ("sentence_encoder.")
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_kind_is_known_by_its_keys(task):
    conversion = convert_weights(read(task))
    name, heads, blocks = TASKS[task]
    assert conversion.kind.model_class == name
    assert conversion.config.pair_heads == heads
    assert conversion.config.pair_blocks == blocks
    model = getattr(modeling_ernie_rna, name)(conversion.config)
    model.load_state_dict(conversion.state_dict)  # every weight, and no other
    assert not conversion.initialised


@pytest.mark.parametrize("task", TASKS)
def test_the_tables_are_invertible(task):
    state = read(task).state_dict
    conversion = convert_weights(read(task))
    inverse = to_fairseq(conversion.state_dict, prefix_of(state))
    assert all(torch.equal(weight, state[name]) for name, weight in inverse.items())
    assert set(inverse) | set(conversion.dropped) == set(state)
    assert not set(inverse) & set(conversion.dropped)


@pytest.mark.parametrize("task", TASKS)
def test_with_and_without_module_is_the_same(task):
    checkpoint = read(task)
    state = {key.removeprefix("module."): w for key, w in checkpoint.state_dict.items()}
    bare = convert_weights(replace(checkpoint, state_dict=state))
    state = {f"module.{key}": weight for key, weight in state.items()}
    module = convert_weights(replace(checkpoint, state_dict=state))
    assert bare.state_dict.keys() == module.state_dict.keys()
    assert all(torch.equal(w, module.state_dict[name]) for name, w in bare.state_dict.items())
    assert bare.kind == module.kind


def test_sizes_come_from_the_weights():
    """A head of 24 channels and 3 blocks, half the loading head's."""
    config = {"pair_heads": [5], "pair_channels": 24, "pair_blocks": 3}
    sizes = {"num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 96}
    loading = {"loading_channels": 16, "loading_reduced_size": 8, "loading_blocks": 2}
    for task, name, settings in (
        ("secondary_structure", "ErnieRnaForSecondaryStructure", config),
        ("ribosome_loading", "ErnieRnaForRibosomeLoading", loading),
    ):
        checkpoint = read(task)
        model = getattr(modeling_ernie_rna, name)(
            modeling_ernie_rna.ErnieRnaConfig(**sizes, **settings)
        )
        unused = {key: checkpoint.state_dict[key] for key in convert_weights(checkpoint).dropped}
        state = to_fairseq(model.state_dict(), "module.sentence_encoder.") | unused
        found = convert_weights(replace(checkpoint, state_dict=state)).config
        assert {key: getattr(found, key) for key in settings} == settings


STRUCTURE_REFUSED = {
    "unknown": ({"module.proj.more": torch.ones(1)}, "unknown: module.proj.more"),
    "an absurd block": (
        {"module.proj.resnet.9999.conv2.weight": torch.ones(64, 64, 3, 3)},
        "unknown|missing",
    ),
    "missing": ({"module.proj.final.bias": None}, "missing: proj.final.bias"),
    "a block less a norm": (
        {"module.proj.resnet.3.bn1.running_var": None},
        "missing: proj.resnet.3.bn1.running_var",
    ),
    "misshaped": (
        {"module.conv2.weight": torch.ones(63, 8, 5, 5)},
        r"misshaped: module.conv2.weight \(63, 8, 5, 5\) instead of \(63, 8, 7, 7\)",
    ),
    "two maps": (
        {"module.conv1.weight": torch.ones(8, 2, 7, 7)},
        r"misshaped: module.conv1.weight \(8, 2, 7, 7\) instead of \(8, 1, 7, 7\)",
    ),
    "no encoder layer": (
        {"module.sentence_encoder.sentence_encoder.layers.1.fc1.weight": None},
        "missing: module.sentence_encoder.sentence_encoder.layers.1.fc1.weight",
    ),
}


@pytest.mark.parametrize(("change", "message"), STRUCTURE_REFUSED.values(), ids=STRUCTURE_REFUSED)
def test_strict_both_ways(change, message):
    checkpoint = read("secondary_structure")
    state = {key: w for key, w in (checkpoint.state_dict | change).items() if w is not None}
    with pytest.raises(CheckpointError, match=message):
        convert_weights(replace(checkpoint, state_dict=state))


def test_multimolecules_structure_weights():
    """The names are those of `ErnieRnaForSecondaryStructurePrediction` in multimolecule 0.2.2."""
    ours = convert_weights(read("secondary_structure"))
    rows = [row for row in expand(4) if row.ours in ours.state_dict]
    state = {f"model.{row.multimolecule}": ours.state_dict[row.ours] for row in rows}
    state |= {row.multimolecule: ours.state_dict[row.ours] for row in pair_rows(8)}
    names = ("ss_head.conv1.bias", "ss_head.convnet.blocks.7.norm.num_batches_tracked")
    assert {*names, "ss_head.convnet.projection.weight"} <= state.keys()
    embedding = "model.embeddings.word_embeddings.weight"
    state[embedding] = torch.cat([state[embedding], torch.zeros(1, 48)])  # 26 tokens, in its order
    checkpoint = replace(read("secondary_structure"), state_dict=state, kind="safetensors")
    converted = convert_weights(checkpoint)
    assert converted.naming == "multimolecule"
    assert converted.kind == ours.kind
    for row in pair_rows(8):
        assert torch.equal(converted.state_dict[row.ours], ours.state_dict[row.ours])
    assert not any(name.startswith("lm_head") for name in converted.state_dict)


def test_every_row_has_a_name_of_its_own():
    for rows in (pair_rows(3), loading_rows(6)):
        assert len({row.fairseq for row in rows}) == len({row.ours for row in rows}) == len(rows)


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_says_what_it_holds(tmp_path, task):
    write_folder(convert_weights(read(task)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    name = TASKS[task][0]
    assert config["architectures"] == [name]
    assert config["auto_map"]["AutoModel"] == f"modeling_ernie_rna.{name}"
    encoder = load_model(tmp_path, device="cpu")  # without the head, as for `embed`
    assert type(encoder).__name__ == "ErnieRnaModel"


def test_auto_model_takes_the_head_of_a_folder(tmp_path):
    """The installed classes, without `trust_remote_code`."""
    from transformers import AutoModel

    import ernie_rna  # noqa: F401  # registers the classes

    write_folder(convert_weights(read("closeness")), tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == "ErnieRnaForCloseness"


def test_a_card_names_task_input_and_output():
    card = model_card(convert_weights(read("secondary_structure")))
    assert "| task | secondary structure" in card
    assert "read off it (A-U 2, G-C 3, G-U 0.8)" in card
    assert "attention scores of head 5" in card
    assert "--pairing-scores zero" in card
    zero = model_card(convert_weights(read("secondary_structure"), "zero"))
    assert "of zero everywhere, as the authors' script" in zero
    assert "probability" in model_card(convert_weights(read("closeness")))
    loading = model_card(convert_weights(read("ribosome_loading")))
    assert "5.269799754058842 + 1.3539032306228027 * logit" in loading
    assert "encoder and ribosome loading head" in loading


@pytest.mark.slow
def test_a_head_is_proven_in_a_fresh_process(tmp_path):
    written = convert(head_checkpoint("ribosome_loading"), tmp_path / "out", pairing_scores="zero")
    assert written.verification.tensors == len(written.conversion.state_dict)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pairing_scores"] == "zero"
