"""The tables of names, which are strict both ways; sizes and settings; MultiMolecule's weights."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import ones

from ernie_rna.conversion.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from ernie_rna.conversion.names import (
    EMBEDDING,
    FAIRSEQ,
    LM_BIAS,
    MULTIMOLECULE,
    ORIGIN,
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
from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from tests.golden_folder import GOLDEN, head_checkpoint

pytestmark = pytest.mark.core

ARGS, CFG = GOLDEN / "tiny_fairseq_args.pt", GOLDEN / "tiny_fairseq_cfg.pt"
# The authors' files, with the prefix of most of their keys.
SOURCES = {
    "fairseq": "encoder.",
    "secondary_structure": "module.sentence_encoder.",
    "closeness": "sentence_encoder.",
    "ribosome_loading": "module.sentence_encoder.",
}


@cache
def source(name: str) -> Checkpoint:
    """A checkpoint of the authors, or "multimolecule", their pretrained one in its names."""
    if name == "multimolecule":
        return multimolecule(theirs(converted("fairseq")))
    return read_checkpoint(ARGS if name == "fairseq" else head_checkpoint(name))


@cache
def converted(name: str) -> Conversion:
    return convert_weights(source(name))


def changed(checkpoint: Checkpoint, changes: dict) -> Checkpoint:
    """The checkpoint with weights replaced, added or, if None, removed, and other settings."""
    state, args = dict(checkpoint.state_dict), dict(checkpoint.args or {})
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            (state if torch.is_tensor(value) else args)[name] = value
    return replace(checkpoint, state_dict=state, args=args)


def blocks_of(conversion: Conversion) -> int:
    return getattr(conversion.config, conversion.kind.blocks) if conversion.kind else 0


def their_names(
    state: dict, naming: Naming = FAIRSEQ, prefix: str = "encoder.", blocks: int = 0
) -> dict:
    """The inverse of the conversion: our weights under the names of another library."""
    layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("ernie_rna.layers."))
    table = {ours: naming.full_name(name, prefix) for name, ours in naming.rows(layers, blocks)}
    return {rename(ours, table): weight for ours, weight in state.items()}


def assert_same(weights: dict, expected: dict) -> None:
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


# The table


@pytest.mark.parametrize(("name", "file_prefix"), SOURCES.items())
@pytest.mark.parametrize("prefix", FAIRSEQ.prefixes, ids=lambda prefix: prefix or "none")
def test_the_table_is_invertible(name, file_prefix, prefix):
    """The inverse returns the authors' file without the dropped weights."""
    expected, original = converted(name), source(name).state_dict
    state = their_names(expected.state_dict, prefix=prefix, blocks=blocks_of(expected))
    if prefix == file_prefix:
        kept = original.keys() - expected.dropped.keys()
        assert_same(state, {key: original[key] for key in kept})
    again = convert_weights(replace(source(name), state_dict=state))
    assert (again.dropped, again.kind) == ({}, expected.kind)
    assert list(again.state_dict) == list(expected.state_dict)
    assert_same(again.state_dict, expected.state_dict)


# Sizes, settings and dtypes


SIZES = {
    **{"vocab_size": 25, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 12},
    **{"intermediate_size": 96, "pairing_hidden_size": 6, "norm_first": False},
}
THEIR_SIZES = {"vocab_size": 28, "hidden_size": 48, "num_hidden_layers": 4}
RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "activation_dropout": 0.0}


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("fairseq", {}, {"max_position_embeddings": 256, **RATES}),
        ("fairseq", None, {"max_position_embeddings": 1024, **RATES}),
        ("multimolecule", {"model_type": "ernierna", **THEIR_SIZES}, RATES),
        ("fairseq", {"dropout": 0.3}, {"hidden_dropout_prob": 0.3}),
        ("fairseq", {"attention_dropout": 0.2}, {"attention_probs_dropout_prob": 0.2}),
        ("fairseq", {"act_dropout": 0.05}, {"activation_dropout": 0.05}),
        ("fairseq", {"max_positions": 77}, {"max_position_embeddings": 77}),
        ("multimolecule", {"hidden_dropout": 0.25}, {"hidden_dropout_prob": 0.25}),
        ("multimolecule", {"attention_dropout": 0.15}, {"attention_probs_dropout_prob": 0.15}),
        ("multimolecule", {"layer_norm_eps": 1e-6}, {"layer_norm_eps": 1e-6}),
        ("multimolecule", {"pairwise_alpha": 0.7}, {"gu_pairing_score": 0.7}),
        ("multimolecule", {"max_position_embeddings": 1026}, {"max_position_embeddings": 1024}),
    ],
)
def test_sizes_come_from_the_weights_and_rates_from_the_settings(name, settings, expected):
    checkpoint = replace(source(name), args=None)
    if settings is not None:
        checkpoint = changed(source(name), settings)
    config = convert_weights(checkpoint).config
    assert {**SIZES, **expected}.items() <= config.to_dict().items()


LOADING = {"loading_channels": 16, "loading_reduced_size": 8, "loading_blocks": 2}
STRUCTURE = {"pair_heads": [5], "pair_channels": 24, "pair_blocks": 3}


@pytest.mark.parametrize(
    ("task", "settings"), [("secondary_structure", STRUCTURE), ("ribosome_loading", LOADING)]
)
def test_sizes_of_a_head_come_from_the_weights(task, settings):
    sizes = {"num_hidden_layers": 4, "hidden_size": 48, "intermediate_size": 96}
    model = type(converted(task).model)(ErnieRnaConfig(**sizes, **settings))
    blocks = settings.get("pair_blocks") or settings["loading_blocks"]
    state = their_names(model.state_dict(), prefix=SOURCES[task], blocks=blocks)
    config = convert_weights(replace(source(task), state_dict=state)).config
    assert {key: getattr(config, key) for key in settings} == settings


def test_every_dropped_weight_has_its_reason():
    dropped = {**converted("fairseq").dropped, **convert_weights(read_checkpoint(CFG)).dropped}
    reasons = {"segment_embeddings": "never used", "sentence_projection": "does not use"}
    for part, reason in {**reasons, "_float_tensor": "positions are computed"}.items():
        assert {reason in why for key, why in dropped.items() if part in key} == {True}


@pytest.mark.parametrize(
    ("dtype", "note"),
    [(torch.float16, "exactly"), (torch.bfloat16, "exactly"), (torch.float64, "rounded")],
)
def test_weights_are_copied_as_float32(dtype, note):
    state = {key: weight.to(dtype) for key, weight in source("fairseq").state_dict.items()}
    conversion = convert_weights(replace(source("fairseq"), state_dict=state))
    assert {weight.dtype for weight in conversion.state_dict.values()} == {torch.float32}
    assert len(conversion.notes) == 1
    assert f"weights in {dtype} were converted to float32 ({note})" in conversion.notes[0]
    expected = converted("fairseq").state_dict.items()
    assert_same(conversion.state_dict, {name: w.to(dtype).float() for name, w in expected})
    convert_weights(source("fairseq")).state_dict[EMBEDDING].zero_()
    assert source("fairseq").state_dict[EMBED].any()


# Strict both ways


def mismatch(key: str, shape: str, expected: str) -> str:
    return rf"size mismatch for {key}: .*\(\[{shape}\]\) from checkpoint, .*\(\[{expected}\]\)"


FC1 = "encoder.sentence_encoder.layers.2.fc1.weight"
EMBED = "encoder.sentence_encoder.embed_tokens.weight"
BIAS = "encoder.lm_output_learned_bias"
SEVEN_HEADS = {
    "encoder.twod_proj.linear2.weight": ones(7, 6),
    "encoder.twod_proj.linear2.bias": ones(7),
}
THEIR_SEVEN_HEADS = {
    "model.pairwise_bias_proj.dense2.weight": ones(7, 6),
    "model.pairwise_bias_proj.dense2.bias": ones(7),
}
CONV1 = "module.conv1.weight"
LAST_NORM = "module.proj.resnet.3.bn1.running_var"
THEIR_EMBEDDING = "model.embeddings.word_embeddings.weight"
THEIR_BIAS = "model.encoder.layer.1.output.dense.bias"

# For each checkpoint: changes of its weights or settings, and patterns of the error message.
WRONG = {
    "fairseq": [
        ({"encoder.adapter.weight": ones(1)}, ["unknown: encoder.adapter.weight$"]),
        ({"conv1.weight": ones(1)}, ['Unexpected key.*"conv1.w']),
        ({"layer_norm.weight": ones(48)}, ["unknown: layer_norm"]),
        ({FC1.replace(".2.", ".02."): ones(96, 48)}, [r"unknown: .*layers\.02\.fc1"]),
        ({FC1.replace(".2.", ".999999."): ones(96, 48)}, [r"unknown: .*layers\.999999\.fc1"]),
        ({FC1.replace(".2.", f".{'9' * 5000}."): ones(1)}, [r"unknown: .*layers\.9999999"]),
        ({FC1: None}, [f'^.*: Missing key.*: "{FC1}"[.]$']),
        ({FC1: ones(96, 47)}, [mismatch(FC1, "96, 47", "96, 48")]),
        ({FC1: ones(96)}, [mismatch(FC1, "96", "96, 48")]),
        ({FC1: ones(96, 48, dtype=torch.int64)}, [f"{FC1} .torch.int64"]),
        ({EMBED: torch.tensor(1.0)}, [mismatch(EMBED, "", "25, 48")]),
        ({EMBED: ones(33, 48)}, [mismatch(EMBED, "33, 48", "25, 48")]),
        ({FC1: None, BIAS: ones(24)}, [f'Missing key.*"{FC1}"', mismatch(BIAS, "24", "25")]),
        (SEVEN_HEADS, ["encoder_attention_heads=12, by the weights 7"]),
        ({"sentence_encoder.embed_tokens.weight": ones(25, 48)}, ["holds 2 models"]),
        ({"encoder_layers": 12}, ["encoder_layers=12, by the weights 4"]),
        ({"encoder_embed_dim": 768}, ["encoder_embed_dim=768, by the weights 48"]),
        ({"encoder_ffn_embed_dim": 95}, ["encoder_ffn_embed_dim=95, by the weights 96"]),
        ({"encoder_attention_heads": 8}, ["encoder_attention_heads=8, by the weights 12"]),
        ({"activation_fn": "relu"}, ["activation_fn='relu' instead of 'gelu'"]),
        ({"encoder_learned_pos": True}, ["encoder_learned_pos=True instead of False"]),
        ({"max_positions": 0}, ["max_position_embeddings.*0"]),
        ({"dropout": 1.5}, ["hidden_dropout_prob.*1.5"]),
        ({"dropout": "high"}, ["hidden_dropout_prob.*high"]),
        ({"encoder_layers": 1, "activation_fn": "relu"}, ["encoder_layers=1.*activation_fn='rel"]),
    ],
    "secondary_structure": [
        ({"module.proj.more": ones(1)}, ["unknown: module.proj.more"]),
        ({"module.proj.resnet.9999.conv2.weight": ones(64, 64, 3, 3)}, ["resnet.9999|Missing key"]),
        ({"module.proj.final.bias": None}, ['Missing key.*: "module.proj.final.bias"[.]$']),
        ({LAST_NORM: None}, [f'Missing key.*: "{LAST_NORM}"[.]$']),
        ({CONV1: ones(8, 2, 7, 7)}, [mismatch(CONV1, "8, 2, 7, 7", "8, 12, 7, 7")]),
        (
            {CONV1: ones(8, 12, 7, 7), "module.proj.final.weight": ones(1, 12, 3, 3)},
            ["invalid sizes or settings: pair_channels must be more than .* got pair_channels=12"],
        ),
    ],
    "multimolecule": [
        ({"model.x": ones(1)}, ["unknown: model.x$"]),
        ({"x_head.weight": ones(1)}, ["unknown: x_head.weight$"]),
        ({THEIR_BIAS: None}, [f'Missing key.*: "{THEIR_BIAS}"[.]$']),
        ({"model.pooler.dense.bias": None}, ['Missing key.*: "model.pooler.dense.bias"[.]$']),
        (
            {"lm_head.decoder.weight": ones(28, 48)},
            [f"equal but differ: .*decoder.w.* {THEIR_EMBEDDING}"],
        ),
        ({THEIR_EMBEDDING: ones(27, 48)}, ["has 27 tokens, but those of MultiM.* have 26 or 28"]),
        (THEIR_SEVEN_HEADS, ["invalid sizes or settings: .*num_attention_heads=7"]),
        ({"lm_head.bias": ones(26)}, [r"misshaped: lm_head.bias \(26,\)"]),
        ({THEIR_EMBEDDING: torch.tensor(1.0)}, ["its vocabulary has 0 tokens"]),
        ({"vocab_size": 26}, ["vocab_size=26, by the weights 28"]),
        ({"num_attention_heads": 3}, ["num_attention_heads=3, by the weights 12"]),
        ({"model_type": "rnafm"}, ["model_type='rnafm' instead of 'ernierna'"]),
        ({"position_embedding_type": "absolute"}, ["position_embedding_type='absolute'"]),
        ({"hidden_act": "relu"}, ["hidden_act='relu'"]),
        ({"max_position_embeddings": 2}, ["max_position_embeddings.*0"]),
        ({"max_position_embeddings": "many"}, ["invalid sizes or settings: "]),
    ],
}
OTHER_MODELS = [
    ({"bert.embeddings.weight": ones(1)}, "not a model of ERNIE-RNA: .*bert.embeddings"),
    ({}, "not a model of ERNIE-RNA"),
    ({EMBEDDING: ones(25, 48)}, "already converted"),
    ({f"_orig_mod.{EMBED}": ones(25, 48)}, "after a known prefix"),
]


@pytest.mark.parametrize(
    ("name", "changes", "messages"), [(name, *case) for name in WRONG for case in WRONG[name]]
)
def test_wrong_weights_and_settings_are_named(name, changes, messages):
    assert_refused(changed(source(name), changes), messages)


@pytest.mark.parametrize(("state", "message"), OTHER_MODELS)
def test_other_models_are_refused(state, message):
    assert_refused(replace(source("fairseq"), state_dict=state), [message])


def assert_refused(checkpoint: Checkpoint, messages: list[str]) -> None:
    with pytest.raises(CheckpointError) as error:
        convert_weights(checkpoint)
    for message in messages:
        assert error.match(message)
    assert str(error.value).startswith(f"{checkpoint.path}: ")
    assert "\n" not in str(error.value)


def test_only_dropped_keys_may_be_missing():
    conversion = converted("fairseq")
    for key in conversion.source.state_dict:
        if ".layers.1." in key or ".layers.2." in key:
            continue  # Layers 0 and 3 have the same rows of the table.
        checkpoint = changed(conversion.source, {key: None})
        if key in conversion.dropped:
            convert_weights(checkpoint)
        else:
            assert_refused(checkpoint, [key.removeprefix("encoder.")])


# MultiMolecule


def theirs(conversion: Conversion, size: int = 28, prefix: str = "model.") -> dict:
    """A conversion's weights in the names and the vocabulary of MultiMolecule."""
    vocabulary = VOCABULARIES[size]
    draw = torch.Generator().manual_seed(1)
    state = {}
    for ours, weight in conversion.state_dict.items():
        if ours in (EMBEDDING, LM_BIAS):
            rows = torch.randn(size, *weight.shape[1:], generator=draw)
            for token, origin in ORIGIN.items():  # The last of three fillers stays, as <null>.
                rows[vocabulary.index(origin)] = weight[VOCABULARY.index(token)]
            weight = rows
        state[ours] = weight
    return their_names(state, MULTIMOLECULE, prefix, conversion.config.pair_blocks)


def multimolecule(state: dict, vocabulary: list[str] | None = None) -> Checkpoint:
    """A checkpoint as `read_checkpoint` returns it for a safetensors file."""
    return Checkpoint(ARGS, ARGS.name, "safetensors", state, None, vocabulary, "0" * 64)


def assert_restored(conversion: Conversion) -> None:
    """The weights must equal the original ones, and the lost fillers the one that was kept."""
    expected = dict(converted("fairseq").state_dict)
    for name in (EMBEDDING, LM_BIAS):
        rows = expected[name].clone()
        for lost in ("madeupword0000", "madeupword0001"):
            rows[VOCABULARY.index(lost)] = rows[VOCABULARY.index("madeupword0002")]
        expected[name] = rows
    assert_same(conversion.state_dict, expected)


@pytest.mark.parametrize("size", [26, 28])
@pytest.mark.parametrize("prefix", ["model.", "ernierna."])
@pytest.mark.parametrize("projection", [["dense1", "dense2"], ["0", "2"]], ids=str)
def test_multimolecules_weights_are_converted(size, prefix, projection):
    """Its releases differ in the vocabulary, the prefix and the names of the projection."""
    state = theirs(converted("fairseq"), size, prefix)
    for number, name in enumerate(projection, 1):
        old, new = f"_proj.dense{number}.", f"_proj.{name}."
        state = {key.replace(old, new): weight for key, weight in state.items()}
    key = f"{prefix}embeddings.word_embeddings.weight"
    copies = {"lm_head.decoder.weight": key, "lm_head.decoder.bias": "lm_head.bias"}
    state |= {copy: state[name].clone() for copy, name in copies.items()}  # tied weights
    state[f"{prefix}embeddings.token_type_embeddings.weight"] = torch.zeros(2, 48)
    conversion = convert_weights(multimolecule(state))
    assert conversion.naming is MULTIMOLECULE
    assert_restored(conversion)
    assert {copy: f"a copy of {name}" for copy, name in copies.items()}.items() <= (
        conversion.dropped.items()
    )
    for name in (EMBEDDING, LM_BIAS):
        for token in ("madeupword0000", "madeupword0001"):
            assert "copy of madeupword0002" in conversion.initialised[f"{name}[{token}]"]
    assert len(conversion.initialised) == 4
    unknown = set(VOCABULARIES[size]) - set(ORIGIN.values())
    assert {f"{key}[{token}]" for token in unknown} <= conversion.dropped.keys()
    assert len(conversion.dropped) == 2 * len(unknown) + 3


def test_multimolecules_vocabulary_file_gives_the_order_of_its_tokens():
    """A file of another size belongs to another release and is ignored."""
    state = theirs(converted("fairseq"))
    assert_restored(convert_weights(multimolecule(state, VOCABULARIES[26])))
    for name in (THEIR_EMBEDDING, "lm_head.bias"):
        state[name] = state[name].flip(0)
    assert_restored(convert_weights(multimolecule(state, VOCABULARIES[28][::-1])))
    lacking = ["?" if token == "I" else token for token in VOCABULARIES[28]]
    assert_refused(multimolecule(state, lacking), [r"its vocab\.txt lacks I$"])


@pytest.mark.parametrize("base", [True, False], ids=["base model", "with another head"])
def test_weights_that_multimolecule_lacks_are_initialised_and_named(base):
    """A base model has no LM head and no prefix; a fine-tuned one may also have no pooler."""
    expected = converted("fairseq").state_dict
    state = theirs(converted("fairseq"), prefix="" if base else "model.")
    lacking = ("lm_head.",) if base else ("lm_head.", "model.pooler.")
    state = {key: weight for key, weight in state.items() if not key.startswith(lacking)}
    if not base:
        state["token_head.decoder.weight"] = ones(2, 48)
    conversion, again = (convert_weights(multimolecule(state)) for _ in range(2))
    made = {name for name in conversion.initialised if "[" not in name}
    lacking = ("lm_head.",) if base else ("lm_head.", "ernie_rna.pooler.")
    assert made == {name for name in expected if name.startswith(lacking)}
    assert conversion.state_dict.keys() == expected.keys()
    for name in made:
        weight = conversion.state_dict[name]
        assert torch.equal(weight, again.state_dict[name])  # The seed is fixed.
        assert "seed 0" in conversion.initialised[name]
        if name.endswith("bias"):
            assert not weight.any()
        elif "layer_norm" in name:
            assert (weight == 1).all()
        else:
            assert 0.015 < weight.std() < 0.025


def test_multimolecules_structure_model_is_converted():
    """The names are those of `ErnieRnaForSecondaryStructurePrediction` in multimolecule 0.2.2."""
    ours = converted("secondary_structure")
    state = theirs(ours, 26)
    names = ("ss_head.conv1.bias", "ss_head.convnet.blocks.7.norm.num_batches_tracked")
    assert {*names, "ss_head.convnet.projection.weight"} <= state.keys()
    conversion = convert_weights(multimolecule(state))
    assert (conversion.naming, conversion.kind) == (MULTIMOLECULE, ours.kind)
    for name, weight in ours.state_dict.items():
        assert name == EMBEDDING or torch.equal(conversion.state_dict[name], weight)
    assert not any(name.startswith("lm_head") for name in conversion.state_dict)


# Whether weights have been trained


def test_a_new_model_counts_as_random_until_a_training_step(config):
    def state() -> dict:
        return {n: w.detach() for n, w in model.state_dict().items()}

    model = ErnieRnaForMaskedLM(config)
    assert weights_origin(state()) == RANDOM
    ids = torch.tensor([[VOCABULARY.index(token) for token in ("<cls>", "A", "U", "<eos>")]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert weights_origin(state()) == CHECKPOINT


def test_the_origin_of_weights_does_not_depend_on_the_fillers():
    """MultiMolecule keeps only one of the three fillers."""
    state = converted("fairseq").state_dict
    embedding = state[EMBEDDING].clone()
    embedding[VOCABULARY.index("madeupword0000")] += 1
    assert weights_origin({**state, EMBEDDING: embedding}) == RANDOM
    embedding[VOCABULARY.index("G")] += 1
    assert weights_origin({**state, EMBEDDING: embedding}) == CHECKPOINT


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
def test_hidden_states_equal_those_of_multimolecule(tmp_path, tokenizer, name):
    multimolecule = pytest.importorskip("multimolecule")
    modeling = pytest.importorskip("multimolecule.models.ernierna.modeling_ernierna")
    config = multimolecule.ErnieRnaConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=12, intermediate_size=96
    )
    model = getattr(modeling, name)(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=draw)
    their_tokenizer = multimolecule.RnaTokenizer()
    model.save_pretrained(tmp_path)
    their_tokenizer.save_pretrained(tmp_path)
    conversion = convert_weights(read_checkpoint(tmp_path))
    ours = ErnieRnaForMaskedLM(conversion.config).eval()
    missing = ours.load_state_dict(conversion.state_dict, strict=False).missing_keys
    assert all(key.startswith("lm_head.") for key in missing)  # Some classes have no LM head.
    pairs = ((ours, tokenizer), (getattr(model, "model", model), their_tokenizer))
    for sequence in ("GGGAAACCCUUUACGUACGU", "A", "ACGUNRYSWKMBDHVIX"):
        found, expected = (
            encoder(**tokenize(sequence, return_tensors="pt"), output_hidden_states=True)
            for encoder, tokenize in pairs
        )
        assert len(expected.hidden_states) == 4
        assert expected.hidden_states[-1].std() > 0.1
        torch.testing.assert_close(found.hidden_states, expected.hidden_states, atol=1e-5, rtol=0)
