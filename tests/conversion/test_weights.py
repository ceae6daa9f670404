"""The name table, strict both ways; sizes and settings; and the weights, against golden values."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ernie_rna.conversion.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from ernie_rna.conversion.names import (
    EMBEDDING,
    FAIRSEQ,
    LM_BIAS,
    MULTIMOLECULE,
    ORIGIN,
    TABLE,
    VOCABULARIES,
    Naming,
)
from ernie_rna.conversion.weights import (
    CHECKPOINT,
    RANDOM,
    Conversion,
    convert_weights,
    rename,
    weights_origin,
)
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from tests.golden_folder import GOLDEN, head_checkpoint

pytestmark = pytest.mark.core

ARGS, CFG = GOLDEN / "tiny_fairseq_args.pt", GOLDEN / "tiny_fairseq_cfg.pt"
CHECKPOINTS = sorted(GOLDEN.glob("*.pt"))
TASKS = {
    "secondary_structure": ("ErnieRnaForSecondaryStructure", [5], 8),
    "closeness": ("ErnieRnaForCloseness", None, 16),
    "ribosome_loading": ("ErnieRnaForRibosomeLoading", None, 6),
}


READ = read_checkpoint(ARGS)


def fairseq(changes: dict | None = None, args: dict | None = None) -> Checkpoint:
    """The golden checkpoint with keys replaced, added or (None) taken away."""
    checkpoint = READ
    state = {**checkpoint.state_dict, **(changes or {})}
    state = {key: weight for key, weight in state.items() if weight is not None}
    return replace(checkpoint, state_dict=state, args={**checkpoint.args, **(args or {})})


@pytest.fixture(scope="module")
def converted() -> Conversion:
    return convert_weights(read_checkpoint(ARGS))


def read(task: str) -> Checkpoint:
    return read_checkpoint(head_checkpoint(task))


def their_names(
    state: dict, naming: Naming = FAIRSEQ, prefix: str = "encoder.", blocks: int = 0
) -> dict:
    """The inverse of the conversion: weights under the names of a family."""
    layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("ernie_rna.layers."))
    table = {ours: naming.whole(name, prefix) for name, ours in naming.rows(layers, blocks)}
    return {rename(ours, table): weight for ours, weight in state.items()}


# The table


@pytest.mark.parametrize("column", [0, 1, 2], ids=["ours", "fairseq", "multimolecule"])
def test_each_name_stands_once_in_its_column(column):
    names = [row[column] for row in TABLE if row[column] != "-"]
    assert len(set(names)) == len(names)
    assert all(len(row) == 3 for row in TABLE)


def test_the_table_is_the_model(converted):
    """Each module with weights has a row, and each row a module."""
    states = {"ernie_rna.": converted.state_dict, "lm_head.": converted.state_dict}
    states |= {
        "pair_head.": convert_weights(read("closeness")).state_dict,
        "loading_head.": convert_weights(read("ribosome_loading")).state_dict,
    }
    for start, state in states.items():
        blocks = 16 if start == "pair_head." else 6
        rows = {ours for _, ours in FAIRSEQ.rows(4, blocks) if ours.startswith(start)}
        rows = {"lm_head.decoder" if row == LM_BIAS else row for row in rows}
        modules = {name.rpartition(".")[0] for name in state if name.startswith(start)}
        # Every other block of the loading head has a shortcut.
        assert modules == {row for row in rows if row in modules or ".shortcut" not in row}


@pytest.mark.parametrize("prefix", FAIRSEQ.prefixes, ids=lambda prefix: prefix or "none")
def test_the_table_is_invertible(converted, prefix):
    state = their_names(converted.state_dict, prefix=prefix)
    again = convert_weights(replace(read_checkpoint(ARGS), state_dict=state))
    assert again.dropped == {}
    assert list(again.state_dict) == list(converted.state_dict)
    for name, weight in converted.state_dict.items():
        assert torch.equal(again.state_dict[name], weight), name


def test_the_inverse_is_the_authors_file_but_for_what_was_dropped(converted):
    original = read_checkpoint(ARGS).state_dict
    state = their_names(converted.state_dict)
    assert state.keys() == original.keys() - converted.dropped.keys()
    assert all(torch.equal(state[name], original[name]) for name in state)


# What the golden checkpoints become


def test_both_golden_checkpoints_are_the_same_weights(converted):
    """Those of which tests/golden compares all outputs with the authors'."""
    other = convert_weights(read_checkpoint(CFG)).state_dict
    assert other.keys() == converted.state_dict.keys()
    assert all(torch.equal(other[name], weight) for name, weight in converted.state_dict.items())


def test_configuration_of_the_golden_checkpoint(converted):
    expected = {
        "vocab_size": 25,
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "intermediate_size": 96,
        "pairing_hidden_size": 6,
        "max_position_embeddings": 256,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "activation_dropout": 0.0,
        "norm_first": False,
    }
    assert {name: getattr(converted.config, name) for name in expected} == expected


def test_rates_come_from_the_settings():
    settings = {"dropout": 0.3, "attention_dropout": 0.2, "act_dropout": 0.05, "max_positions": 77}
    config = convert_weights(fairseq(args=settings)).config
    assert config.hidden_dropout_prob == 0.3
    assert config.attention_probs_dropout_prob == 0.2
    assert config.activation_dropout == 0.05
    assert config.max_position_embeddings == 77


def test_without_settings_the_defaults_stand():
    config = convert_weights(replace(fairseq(), args=None)).config
    assert (config.max_position_embeddings, config.hidden_dropout_prob) == (1024, 0.1)


@pytest.mark.parametrize(
    ("path", "dropped"),
    [
        (ARGS, {"segment_embeddings": "never used", "sentence_projection": "does not use"}),
        (CFG, {"_float_tensor": "positions are computed"}),
    ],
)
def test_what_is_dropped_has_its_reason(path, dropped):
    found = convert_weights(read_checkpoint(path)).dropped
    for part, reason in dropped.items():
        (key,) = (key for key in found if part in key)
        assert reason in found[key]


@pytest.mark.parametrize(
    ("dtype", "note"),
    [(torch.float16, "exactly"), (torch.bfloat16, "exactly"), (torch.float64, "rounded")],
)
def test_weights_become_float32(converted, dtype, note):
    state = {key: weight.to(dtype) for key, weight in fairseq().state_dict.items()}
    conversion = convert_weights(replace(fairseq(), state_dict=state))
    assert {weight.dtype for weight in conversion.state_dict.values()} == {torch.float32}
    assert len(conversion.notes) == 1
    assert str(dtype) in conversion.notes[0]
    assert note in conversion.notes[0]
    name = "ernie_rna.layers.1.fc2.weight"
    assert torch.equal(conversion.state_dict[name], converted.state_dict[name].to(dtype).float())


def test_weights_are_copies():
    checkpoint = fairseq()
    conversion = convert_weights(checkpoint)
    conversion.state_dict[EMBEDDING].zero_()
    assert checkpoint.state_dict["encoder.sentence_encoder.embed_tokens.weight"].any()


# Strict both ways


def mismatch(key: str, shape: str, expected: str) -> str:
    return rf"size mismatch for {key}: .*\(\[{shape}\]\) from checkpoint, .*\(\[{expected}\]\)"


FC1 = "encoder.sentence_encoder.layers.2.fc1.weight"
EMBED = "encoder.sentence_encoder.embed_tokens.weight"
BIAS = "encoder.lm_output_learned_bias"
REFUSED = {
    "unknown": ({"encoder.adapter.weight": torch.ones(1)}, ["unknown: encoder.adapter.weight$"]),
    "outside the prefix": ({"decoder.x": torch.ones(1)}, ["unknown: decoder.x"]),
    "a head beside a pretrained model": (
        {"conv1.weight": torch.ones(1)},
        ['Unexpected key.*"conv1.w'],
    ),
    "a name without its prefix": ({"layer_norm.weight": torch.ones(48)}, ["unknown: layer_norm"]),
    "an odd layer": (
        {FC1.replace(".2.", ".02."): torch.ones(96, 48)},
        [r"unknown: .*layers\.02\.fc1"],
    ),
    "an absurd layer": (
        {FC1.replace(".2.", ".999999."): torch.ones(96, 48)},
        [r"unknown: .*layers\.999999\.fc1"],
    ),
    "a longer number": (
        {FC1.replace(".2.", f".{'9' * 5000}."): torch.ones(96, 48)},
        [r"unknown: .*layers\.9999999"],
    ),
    "missing": ({FC1: None}, [f'^.*: Missing key.*: "{FC1}"[.]$']),
    "misshaped": ({FC1: torch.ones(96, 47)}, [mismatch(FC1, "96, 47", "96, 48")]),
    "transposed": ({FC1: torch.ones(48, 96)}, [mismatch(FC1, "48, 96", "96, 48")]),
    "of other dimensions": ({FC1: torch.ones(96)}, [mismatch(FC1, "96", "96, 48")]),
    "a scalar embedding": ({EMBED: torch.tensor(1.0)}, [mismatch(EMBED, "", "25, 48")]),
    "another vocabulary": (
        {EMBED: torch.ones(33, 48), BIAS: torch.ones(33)},
        [mismatch(EMBED, "33, 48", "25, 48"), mismatch(BIAS, "33", "25")],
    ),
    "whole numbers": ({FC1: torch.ones(96, 48, dtype=torch.int64)}, [f"{FC1} .torch.int64"]),
    "all at once": (
        {FC1: None, BIAS: torch.ones(24)},
        [f'Missing key.*"{FC1}"', mismatch(BIAS, "24", "25")],
    ),
    "two models": (
        {"sentence_encoder.embed_tokens.weight": torch.ones(25, 48)},
        ["holds 2 models"],
    ),
}


@pytest.mark.parametrize(("changes", "messages"), REFUSED.values(), ids=REFUSED)
def test_a_key_that_does_not_fit_is_named(changes, messages):
    for message in messages:
        with pytest.raises(CheckpointError, match=message) as error:
            convert_weights(fairseq(changes))
        assert str(error.value).startswith(f"{ARGS}: ")
        assert "\n" not in str(error.value)


def test_no_key_may_be_missing_but_the_dropped(converted):
    for key in converted.source.state_dict:
        if key in converted.dropped:
            convert_weights(fairseq({key: None}))
        else:
            with pytest.raises(CheckpointError, match=key.removeprefix("encoder.")):
                convert_weights(fairseq({key: None}))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"bert.embeddings.weight": torch.ones(1)}, "not a model of ERNIE-RNA: .*bert.embeddings"),
        ({}, "not a model of ERNIE-RNA"),
        ({EMBEDDING: torch.ones(25, 48)}, "converted already"),
        ({f"_orig_mod.{EMBED}": torch.ones(25, 48)}, "behind a known prefix"),
    ],
)
def test_other_models_are_refused(state, message):
    with pytest.raises(CheckpointError, match=message):
        convert_weights(replace(fairseq(), state_dict=state))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"encoder_layers": 12}, "encoder_layers=12, by the weights 4"),
        ({"encoder_embed_dim": 768}, "encoder_embed_dim=768, by the weights 48"),
        ({"encoder_ffn_embed_dim": 95}, "encoder_ffn_embed_dim=95, by the weights 96"),
        ({"encoder_attention_heads": 8}, "encoder_attention_heads=8, by the weights 12"),
        ({"activation_fn": "relu"}, "activation_fn='relu' instead of 'gelu'"),
        ({"encoder_learned_pos": True}, "encoder_learned_pos=True instead of False"),
        ({"max_positions": 0}, "max_position_embeddings.*0"),
        ({"dropout": 1.5}, "hidden_dropout_prob.*1.5"),
        ({"dropout": "high"}, "hidden_dropout_prob.*high"),
        ({"encoder_layers": 1, "encoder_embed_dim": 2}, "encoder_embed_dim=2.*encoder_layers=1"),
        ({"encoder_layers": 1, "activation_fn": "relu"}, "encoder_layers=1.*activation_fn='relu'"),
    ],
)
def test_settings_that_disagree_are_refused(args, message):
    with pytest.raises(CheckpointError, match=message):
        convert_weights(fairseq(args=args))


def test_heads_that_do_not_divide_the_width_are_refused():
    changes = {
        "encoder.twod_proj.linear2.weight": torch.ones(7, 6),
        "encoder.twod_proj.linear2.bias": torch.ones(7),
    }
    with pytest.raises(CheckpointError, match="num_attention_heads=7"):
        convert_weights(replace(fairseq(changes), args=None))


# MultiMolecule


def theirs(conversion: Conversion, size: int = 28, prefix: str = "model.") -> dict:
    """A conversion's weights as MultiMolecule would hold them."""
    vocabulary = VOCABULARIES[size]
    draw = torch.Generator().manual_seed(1)
    state = {}
    for ours, weight in conversion.state_dict.items():
        if ours in (EMBEDDING, LM_BIAS):
            rows = torch.randn(size, *weight.shape[1:], generator=draw)
            for token, source in ORIGIN.items():  # the last filler stays in the row of <null>
                rows[vocabulary.index(source)] = weight[VOCABULARY.index(token)]
            weight = rows
        state[ours] = weight
    return their_names(state, MULTIMOLECULE, prefix, conversion.config.pair_blocks)


def write_theirs(folder: Path, state: dict, config: dict | None = None, vocabulary=None) -> Path:
    save_file(state, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if vocabulary is not None:
        (folder / "vocab.txt").write_text("\n".join(vocabulary))
    return folder


def renamed(state: dict, new_names: dict[str, str]) -> dict:
    for old, new in new_names.items():
        state = {key.replace(old, new): weight for key, weight in state.items()}
    return state


def assert_came_back(conversion: Conversion, converted: Conversion) -> None:
    """All weights as they were, and the lost fillers as the kept one."""
    lost = [VOCABULARY.index("madeupword0000"), VOCABULARY.index("madeupword0001")]
    for name, weight in converted.state_dict.items():
        found = conversion.state_dict[name]
        if name in (EMBEDDING, LM_BIAS):
            kept = [index for index in range(25) if index not in lost]
            assert torch.equal(found[kept], weight[kept]), name
            for index in lost:
                assert torch.equal(found[index], weight[VOCABULARY.index("madeupword0002")])
        else:
            assert torch.equal(found, weight), name


@pytest.mark.parametrize("size", [26, 28])
@pytest.mark.parametrize("prefix", ["model.", "ernierna."])
@pytest.mark.parametrize(
    "projection", [{}, {"_proj.dense1.": "_proj.0.", "_proj.dense2.": "_proj.2."}]
)
def test_multimolecule_comes_back(tmp_path, converted, size, prefix, projection):
    """Its releases differ in the prefix, the vocabulary and the names of the projection."""
    state = renamed(theirs(converted, size, prefix), projection)
    state[f"{prefix}embeddings.token_type_embeddings.weight"] = torch.zeros(2, 48)
    conversion = convert_weights(read_checkpoint(write_theirs(tmp_path, state)))
    assert conversion.naming is MULTIMOLECULE
    assert_came_back(conversion, converted)
    for name in (EMBEDDING, LM_BIAS):
        for token in ("madeupword0000", "madeupword0001"):
            assert "copy of madeupword0002" in conversion.initialised[f"{name}[{token}]"]
    assert len(conversion.initialised) == 4
    unknown = set(VOCABULARIES[size]) - set(ORIGIN.values())
    key = f"{prefix}embeddings.word_embeddings.weight"
    assert {f"{key}[{token}]" for token in unknown} <= conversion.dropped.keys()
    assert len(conversion.dropped) == 2 * len(unknown) + 1


def test_multimolecule_order_is_that_of_its_vocabulary_file(tmp_path, converted):
    state = theirs(converted)
    order = list(reversed(range(28)))
    for name in ("model.embeddings.word_embeddings.weight", "lm_head.bias"):
        state[name] = state[name][order].contiguous()
    vocabulary = [VOCABULARIES[28][index] for index in order]
    folder = write_theirs(tmp_path, state, vocabulary=vocabulary)
    assert_came_back(convert_weights(read_checkpoint(folder)), converted)


def test_multimolecule_vocabulary_file_of_another_release_is_passed_over(tmp_path, converted):
    folder = write_theirs(tmp_path, theirs(converted), vocabulary=VOCABULARIES[26])
    assert_came_back(convert_weights(read_checkpoint(folder)), converted)


def test_multimolecule_settings(tmp_path, converted):
    config = {
        "model_type": "ernierna",
        "vocab_size": 28,
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "max_position_embeddings": 1026,
        "hidden_dropout": 0.25,
        "attention_dropout": 0.15,
        "layer_norm_eps": 1e-6,
        "pairwise_alpha": 0.7,
    }
    folder = write_theirs(tmp_path, theirs(converted), config)
    found = convert_weights(read_checkpoint(folder)).config
    assert found.max_position_embeddings == 1024
    assert found.hidden_dropout_prob == 0.25
    assert found.attention_probs_dropout_prob == 0.15
    assert found.layer_norm_eps == 1e-6
    assert found.gu_pairing_score == 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 26}, "28 tokens, but its settings vocab_size=26"),
        ({"num_attention_heads": 3}, "num_attention_heads=3, by the weights 12"),
        ({"model_type": "rnafm"}, "model_type='rnafm' instead of 'ernierna'"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type='absolute'"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"max_position_embeddings": 2}, "max_position_embeddings.*0"),
        ({"max_position_embeddings": "many"}, "sizes or settings that fit no model"),
    ],
)
def test_multimolecule_settings_that_disagree_are_refused(tmp_path, converted, change, message):
    folder = write_theirs(tmp_path, theirs(converted), change)
    with pytest.raises(CheckpointError, match=message):
        convert_weights(read_checkpoint(folder))


def changed(state: dict, changes: dict) -> dict:
    state = {**state, **changes}
    return {key: weight for key, weight in state.items() if weight is not None}


THEIR_EMBEDDING = "model.embeddings.word_embeddings.weight"
THEIR_REFUSED = {
    "unknown": ({"model.x": torch.ones(1)}, "unknown: model.x$"),
    "unknown outside": ({"x_head.weight": torch.ones(1)}, "unknown: x_head.weight$"),
    "missing": (
        {"model.encoder.layer.1.output.dense.bias": None},
        'Missing key.*: "model.encoder.layer.1.output.dense.bias"[.]$',
    ),
    "half an LM head": ({"lm_head.bias": None}, 'Missing key.*: "lm_head.bias"[.]$'),
    "half a pooler": (
        {"model.pooler.dense.bias": None},
        'Missing key.*: "model.pooler.dense.bias"[.]$',
    ),
    "another decoder": (
        {"lm_head.decoder.weight": torch.ones(28, 48)},
        "differ but must be equal: lm_head.decoder.weight and model.embeddings.word_emb",
    ),
    "no vocabulary": (
        {THEIR_EMBEDDING: torch.ones(27, 48), "lm_head.bias": torch.ones(27)},
        "its vocabulary has 27 tokens, and those of MultiMolecule have 26 or 28",
    ),
    "two vocabularies": ({"lm_head.bias": torch.ones(26)}, r"misshaped: lm_head.bias \(26,\)"),
    "scalar": ({THEIR_EMBEDDING: torch.tensor(1.0)}, "its vocabulary has 0 tokens"),
}


@pytest.mark.parametrize(("changes", "message"), THEIR_REFUSED.values(), ids=THEIR_REFUSED)
def test_multimolecule_is_read_strictly(tmp_path, converted, changes, message):
    folder = write_theirs(tmp_path, changed(theirs(converted), changes))
    with pytest.raises(CheckpointError, match=message):
        convert_weights(read_checkpoint(folder))


def test_multimolecule_vocabulary_file_without_a_token_is_refused(tmp_path, converted):
    vocabulary = ["?" if token == "I" else token for token in VOCABULARIES[28]]
    folder = write_theirs(tmp_path, theirs(converted), vocabulary=vocabulary)
    with pytest.raises(CheckpointError, match=r"its vocab\.txt lacks I$"):
        convert_weights(read_checkpoint(folder))


def test_multimolecule_copies_of_tied_weights_are_dropped(tmp_path, converted):
    state = theirs(converted)
    state["lm_head.decoder.weight"] = state[THEIR_EMBEDDING].clone()
    state["lm_head.decoder.bias"] = state["lm_head.bias"].clone()
    conversion = convert_weights(read_checkpoint(write_theirs(tmp_path, state)))
    assert_came_back(conversion, converted)
    copies = {key for key, reason in conversion.dropped.items() if "a copy of" in reason}
    assert len(copies) == 2


@pytest.mark.parametrize("base", [True, False], ids=["base model", "with another head"])
def test_what_multimolecule_lacks_is_made_by_a_rule_and_named(tmp_path, converted, base):
    """A base model holds no LM head and no prefix; a fine-tuned one may hold no pooler."""
    state = theirs(converted, prefix="" if base else "model.")
    state = {key: weight for key, weight in state.items() if not key.startswith("lm_head.")}
    if not base:
        state = {key: weight for key, weight in state.items() if ".pooler." not in key}
        state["token_head.decoder.weight"] = torch.ones(2, 48)
    conversion = convert_weights(read_checkpoint(write_theirs(tmp_path, state)))
    again = convert_weights(read_checkpoint(tmp_path))
    made = {name for name in conversion.initialised if "[" not in name}
    expected = {name for name in converted.state_dict if name.startswith("lm_head.")}
    expected |= set() if base else {n for n in converted.state_dict if ".pooler." in n}
    assert made == expected
    assert conversion.state_dict.keys() == converted.state_dict.keys()
    for name in made:
        weight = conversion.state_dict[name]
        assert torch.equal(weight, again.state_dict[name])  # the rule draws the same each time
        assert "seed 0" in conversion.initialised[name]
        if name.endswith("bias"):
            assert not weight.any()
        elif "layer_norm" in name:
            assert (weight == 1).all()
        else:
            assert 0.015 < weight.std() < 0.025


# The authors' fine-tuned models


@pytest.mark.parametrize("task", TASKS)
def test_a_kind_is_known_by_its_keys(task):
    conversion = convert_weights(read(task))
    name, heads, blocks = TASKS[task]
    assert type(conversion.model).__name__ == conversion.kind.model_class == name
    assert conversion.config.pair_heads == heads
    assert getattr(conversion.config, conversion.kind.blocks) == blocks
    model = getattr(modeling_ernie_rna, name)(conversion.config)
    model.load_state_dict(conversion.state_dict)  # every weight, and no other
    assert not conversion.initialised


@pytest.mark.parametrize("task", TASKS)
def test_the_heads_tables_are_invertible(task):
    state = read(task).state_dict
    conversion = convert_weights(read(task))
    blocks = getattr(conversion.config, conversion.kind.blocks)
    prefix = "module." * next(iter(state)).startswith("module.") + "sentence_encoder."
    inverse = their_names(conversion.state_dict, prefix=prefix, blocks=blocks)
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
    assert bare.kind is module.kind


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("secondary_structure", {"pair_heads": [5], "pair_channels": 24, "pair_blocks": 3}),
        (
            "ribosome_loading",
            {"loading_channels": 16, "loading_reduced_size": 8, "loading_blocks": 2},
        ),
    ],
)
def test_sizes_of_a_head_come_from_the_weights(task, settings):
    sizes = {"num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 96}
    model = getattr(modeling_ernie_rna, TASKS[task][0])(ErnieRnaConfig(**sizes, **settings))
    blocks = settings.get("pair_blocks") or settings["loading_blocks"]
    state = their_names(model.state_dict(), prefix="module.sentence_encoder.", blocks=blocks)
    found = convert_weights(replace(read(task), state_dict=state)).config
    assert {key: getattr(found, key) for key in settings} == settings


STRUCTURE_REFUSED = {
    "unknown": ({"module.proj.more": torch.ones(1)}, "unknown: module.proj.more"),
    "an absurd block": (
        {"module.proj.resnet.9999.conv2.weight": torch.ones(64, 64, 3, 3)},
        r"unknown: module\.proj\.resnet\.9999|Missing key",
    ),
    "missing": ({"module.proj.final.bias": None}, 'Missing key.*: "module.proj.final.bias"[.]$'),
    "a block less a norm": (
        {"module.proj.resnet.3.bn1.running_var": None},
        'Missing key.*: "module.proj.resnet.3.bn1.running_var"[.]$',
    ),
    "misshaped": (
        {"module.conv2.weight": torch.ones(63, 8, 5, 5)},
        mismatch("module.conv2.weight", "63, 8, 5, 5", "63, 8, 7, 7"),
    ),
    "two maps": (
        {"module.conv1.weight": torch.ones(8, 2, 7, 7)},
        mismatch("module.conv1.weight", "8, 2, 7, 7", "8, 12, 7, 7"),
    ),
    "as many maps as channels": (
        {
            "module.conv1.weight": torch.ones(8, 12, 7, 7),
            "module.proj.final.weight": torch.ones(1, 12, 3, 3),
        },
        "fit no model: pair_channels must be more than the 12 maps .* got pair_channels=12",
    ),
    "no encoder layer": (
        {"module.sentence_encoder.sentence_encoder.layers.1.fc1.weight": None},
        'Missing key.*: "module.sentence_encoder.sentence_encoder.layers.1.fc1.weight"[.]$',
    ),
}


@pytest.mark.parametrize(("change", "message"), STRUCTURE_REFUSED.values(), ids=STRUCTURE_REFUSED)
def test_heads_are_read_strictly(change, message):
    checkpoint = read("secondary_structure")
    with pytest.raises(CheckpointError, match=message):
        convert_weights(replace(checkpoint, state_dict=changed(checkpoint.state_dict, change)))


def test_multimolecules_structure_weights():
    """The names are those of `ErnieRnaForSecondaryStructurePrediction` in multimolecule 0.2.2."""
    ours = convert_weights(read("secondary_structure"))
    state = theirs(ours, 26)
    names = ("ss_head.conv1.bias", "ss_head.convnet.blocks.7.norm.num_batches_tracked")
    assert {*names, "ss_head.convnet.projection.weight"} <= state.keys()
    checkpoint = replace(read("secondary_structure"), state_dict=state, kind="safetensors")
    found = convert_weights(checkpoint)
    assert (found.naming, found.kind) == (MULTIMOLECULE, ours.kind)
    for name, weight in ours.state_dict.items():
        assert name == EMBEDDING or torch.equal(found.state_dict[name], weight)
    assert not any(name.startswith("lm_head") for name in found.state_dict)


# Whether weights were ever trained


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_the_golden_checkpoints_are_random(path):
    assert convert_weights(read_checkpoint(path)).config.weights_origin == RANDOM


def test_a_new_model_is_random_until_it_takes_a_step(config):
    def state() -> dict:
        return {n: w.detach() for n, w in model.state_dict().items()}

    model = ErnieRnaForMaskedLM(config)
    assert weights_origin(state()) == RANDOM
    ids = torch.tensor([[VOCABULARY.index(token) for token in ("<cls>", "A", "U", "<eos>")]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert weights_origin(state()) == CHECKPOINT


def test_a_digest_is_of_the_letters_alone(converted):
    """MultiMolecule keeps one filler of three."""
    embedding = converted.state_dict[EMBEDDING].clone()
    embedding[VOCABULARY.index("madeupword0000")] += 1
    assert weights_origin({**converted.state_dict, EMBEDDING: embedding}) == RANDOM
    embedding[VOCABULARY.index("G")] += 1
    assert weights_origin({**converted.state_dict, EMBEDDING: embedding}) == CHECKPOINT


@pytest.mark.slow  # importing multimolecule alone takes 15 s
@pytest.mark.parametrize(
    "name",
    [
        "ErnieRnaForPreTraining",
        "ErnieRnaForMaskedLM",
        "ErnieRnaModel",
        "ErnieRnaForSequencePrediction",
        "ErnieRnaForSecondaryStructurePrediction",
    ],
)
def test_hidden_states_are_those_of_multimolecule(tmp_path, name):
    multimolecule = pytest.importorskip("multimolecule")
    modeling = pytest.importorskip("multimolecule.models.ernierna.modeling_ernierna")
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

    config = multimolecule.ErnieRnaConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=12, intermediate_size=96
    )
    model = getattr(modeling, name)(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=draw)
    model.save_pretrained(tmp_path)
    their_tokenizer = multimolecule.RnaTokenizer()
    their_tokenizer.save_pretrained(tmp_path)
    conversion = convert_weights(read_checkpoint(tmp_path))
    ours = ErnieRnaForMaskedLM(conversion.config).eval()
    missing = ours.load_state_dict(conversion.state_dict, strict=False).missing_keys
    assert all(key.startswith("lm_head.") for key in missing)  # The encoder has none.
    for sequence in ("GGGAAACCCUUUACGUACGU", "A", "ACGUNRYSWKMBDHVIX"):
        with torch.no_grad():
            expected = getattr(model, "model", model)(
                **their_tokenizer(sequence, return_tensors="pt"), output_hidden_states=True
            ).hidden_states
            found = ours(
                **ErnieRnaTokenizer()(sequence, return_tensors="pt"), output_hidden_states=True
            ).hidden_states
        assert len(found) == len(expected) == 4
        assert expected[-1].std() > 0.1
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
