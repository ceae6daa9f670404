"""Outputs, batches, inputs, losses and weights. tests/golden compares values with the authors'."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from ernie_rna.model.layers_ernie_rna import pairing_table, sinusoidal_positions
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
    ErnieRnaForSequenceClassification,
    ErnieRnaForTokenClassification,
    ErnieRnaModel,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from tests.model.small_models import small_model

pytestmark = pytest.mark.core
SEQUENCES = ["AUGCAUGCAUGC", "GGGGCCCCGGGGAUAUAUNN", "AUG<mask>AUG", "G"]
IDS = torch.tensor([[0, 4, 5, 6, 2], [0, 7, 6, 2, 1]])


def batch_of(sequences, side="right"):
    return ErnieRnaTokenizer(padding_side=side)(sequences, padding=True, return_tensors="pt")


@pytest.fixture
def batch():
    return batch_of(SEQUENCES)


def test_outputs_and_shapes(model, batch):
    """Optional outputs are returned only if they are requested."""
    flags = ("hidden_states", "attentions", "attention_biases")
    encoder = ErnieRnaModel(model.config).eval()
    output = encoder(**batch, **{f"output_{flag}": True for flag in flags})
    size, seq = batch.input_ids.shape
    assert output.last_hidden_state.shape == (size, seq, 48)
    assert output.pooler_output.shape == (size, 48)
    assert [len(output[flag]) for flag in flags] == [4, 3, 4]
    for scores in (*output.attention_biases, *output.attentions):
        assert scores.shape == (size, 12, seq, seq)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    torch.testing.assert_close(output.attentions[-1].sum(-1), torch.ones(size, 12, seq))
    assert list(model.ernie_rna(**batch)) == ["last_hidden_state"]
    assert list(model(**batch)) == ["logits"]
    model.config.output_hidden_states = True
    options = {"labels": batch.input_ids, "output_attention_biases": True}
    output, as_tuple = model(**batch, **options), model(**batch, **options, return_dict=False)
    assert list(output) == ["loss", "logits", "hidden_states", "attention_biases"]
    assert type(as_tuple) is tuple
    assert all(map(torch.equal, as_tuple[:2], (output.loss, output.logits)))
    assert [len(of_layers) for of_layers in as_tuple[2:]] == [4, 4]


def test_layer_norm_first(config):
    """Equals a layer written out as in the paper's figure; the golden models have it last."""
    config.norm_first = True
    model = ErnieRnaModel(config).eval()
    with torch.no_grad():
        output = model(IDS[:1], output_hidden_states=True, output_attention_biases=True)
        x, layer = output.hidden_states[0], model.layers[0]
        normed = layer.self_attn_layer_norm(x)
        options = {"carry": False, "in_place": False, "output_attentions": False}
        y = x + layer.self_attn(normed, output.attention_biases[:1], **options)[0]
        expected = y + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(y))))
    assert torch.equal(output.hidden_states[1], expected)
    means = output.last_hidden_state.mean(-1)
    assert torch.allclose(means, torch.zeros_like(means), atol=1e-6)  # normalised at the end


ON_EACH_PATH = pytest.mark.parametrize(
    ("attention", "memory"), list(itertools.product(("eager", "sdpa"), ("carry", "recompute")))
)


@ON_EACH_PATH
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_a_sequence_is_the_same_alone_and_in_any_batch(config, attention, memory, side, norm_first):
    """The largest measured difference is 1.3e-6, in float32 with hidden states of about 1."""
    config.update({"norm_first": norm_first, "score_memory": memory})
    model, batch = ErnieRnaModel(config).eval(), batch_of(SEQUENCES, side)
    model.set_attn_implementation(attention)
    together = model(**batch, output_hidden_states=True)
    for row, sequence in enumerate(SEQUENCES):
        alone = model(**batch_of([sequence]), output_hidden_states=True)
        real = batch.attention_mask[row].bool()
        in_batch = [together.pooler_output[row]]
        in_batch += [states[row, real] for states in together.hidden_states]
        expected = [alone.pooler_output[0], *(states[0] for states in alone.hidden_states)]
        torch.testing.assert_close(in_batch, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_biases_and_attentions_are_the_same_in_a_batch(model, side):
    batch = batch_of(SEQUENCES, side)
    flags = {"output_attentions": True, "output_attention_biases": True}
    together, alone = model(**batch, **flags), model(**batch_of(SEQUENCES[2:3]), **flags)
    real = batch.attention_mask[2].bool()
    for name in ("attentions", "attention_biases"):
        in_batch = [values[2][:, real][..., real] for values in together[name]]
        expected = [values[0] for values in alone[name]]
        torch.testing.assert_close(in_batch, expected, atol=5e-6, rtol=0)
    assert together.attention_biases[0][2][..., ~real].eq(-torch.inf).all()


@ON_EACH_PATH
@pytest.mark.parametrize("train", [False, True])
def test_a_row_without_real_tokens_is_finite(model, attention, memory, train):
    model.set_attn_implementation(attention)
    model.config.score_memory = memory
    ids = torch.tensor([[0, 4, 5, 2], [1, 1, 1, 1]])
    output = model.train(train)(ids, labels=torch.where(ids == 1, -100, ids))
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_mask_and_positions_are_read_from_the_ids(model, batch):
    logits, (size, seq) = model(**batch).logits, batch.input_ids.shape
    assert torch.equal(model(batch.input_ids).logits, logits)
    position_ids = torch.arange(2, seq + 2).expand(size, seq)
    unpadded = batch.attention_mask.all(1)
    by_ids = model(**batch, position_ids=position_ids).logits
    assert torch.equal(by_ids[unpadded], logits[unpadded])
    shifted = model(**batch, position_ids=position_ids + 5).logits
    assert not torch.allclose(shifted[unpadded], logits[unpadded])
    longer_than_pretrained = torch.full((1, model.config.max_position_embeddings + 50), 4)
    assert model(longer_than_pretrained).logits.isfinite().all()


def test_the_position_embedding_of_padding_is_zero():
    assert not sinusoidal_positions(torch.tensor([[1, 2]]), 8, padding=1)[0, 0].any()


def test_inputs_embeds_with_pairing_scores(model, batch):
    embeds, ids = model.get_input_embeddings()(batch.input_ids), batch.input_ids
    scores = pairing_table(model.config, embeds.device)[ids[:, :, None], ids[:, None, :]]
    by_embeds = model(
        inputs_embeds=embeds, attention_mask=batch.attention_mask, pairing_scores=scores
    )
    torch.testing.assert_close(by_embeds.logits, model(**batch).logits, atol=2e-5, rtol=0)
    without_mask = model(inputs_embeds=embeds[:1], pairing_scores=scores[:1])
    assert without_mask.logits[:, batch.attention_mask[0].bool()].isfinite().all()


ONES = torch.ones(2, 5).long()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "got neither"),
        ({"input_ids": ONES, "inputs_embeds": torch.ones(2, 5, 48)}, "both"),
        ({"inputs_embeds": torch.ones(2, 5, 48)}, "give pairing_scores"),
        ({"input_ids": "AUGC"}, r"tokenizer\(sequences, .*got str"),
        ({"input_ids": [[1, 5, 2]]}, "got list"),
        ({"input_ids": torch.tensor([1, 5, 2])}, r"got \(3,\)"),
        ({"input_ids": torch.ones(2, 0).long()}, r"at least one token; got the shape \(2, 0\)"),
        (
            {"input_ids": ONES, "attention_mask": torch.ones(2, 4)},
            r"attention_mask must be \(batch, seq\) = \(2, 5\); got \(2, 4\)",
        ),
        ({"input_ids": ONES, "attention_mask": torch.ones(2, 1, 5, 5)}, r"got \(2, 1, 5, 5\)"),
        (
            {"input_ids": ONES, "pairing_scores": torch.ones(5, 5)},
            r"pairing_scores must be \(batch, seq, seq\) = \(2, 5, 5\); got \(5, 5\)",
        ),
        ({"input_ids": ONES * -1}, "input_ids hold -1; they must be 0 to 24$"),
        ({"input_ids": ONES * -100}, "input_ids hold -100; they must be 0 to 24$"),
        ({"input_ids": ONES * 25}, "input_ids hold 25; they must be 0 to 24$"),
    ],
)
def test_the_error_names_an_invalid_input(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs)


@pytest.mark.parametrize("kind", [ErnieRnaModel, ErnieRnaForMaskedLM, ErnieRnaForPreTraining])
def test_unknown_arguments_are_refused(config, kind):
    model = kind(config)
    message = f"{kind.__name__} takes no argument 'outputhidden_states'.*'output_hidden_states'"
    with pytest.raises(TypeError, match=message):
        model(IDS, outputhidden_states=True)
    with pytest.raises(TypeError, match="'cu_seq_lens_q': it takes input_ids, attention_mask"):
        model(IDS, cu_seq_lens_q=torch.tensor([0, 5]))
    # Other libraries pass these.
    model(IDS, token_type_ids=torch.zeros_like(IDS), num_items_in_batch=3, task_ids=None)


@pytest.mark.parametrize("kind", [ErnieRnaForMaskedLM, ErnieRnaForTokenClassification])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_losses_of_tokens_are_float32(config, batch, kind, dtype):
    config.num_labels = 5
    model = kind(config).eval().to(dtype)
    labels = torch.where(batch.attention_mask == 1, batch.input_ids % 5, -100)
    output = model(**batch, labels=labels)
    choices = 25 if kind is ErnieRnaForMaskedLM else 5
    assert output.logits.shape == (*batch.input_ids.shape, choices)
    assert output.logits.dtype == dtype
    expected = F.cross_entropy(output.logits.float().flatten(0, 1), labels.flatten())
    assert torch.equal(output.loss, expected)
    # Gradient accumulation: the losses of two halves, divided by all labels, add up.
    count = (labels != -100).sum()
    losses = [
        model(batch.input_ids[rows], labels=labels[rows], num_items_in_batch=count).loss
        for rows in (slice(0, 2), slice(2, 4))
    ]
    tolerance = {"rtol": 1e-6 if dtype == torch.float32 else 1e-3, "atol": 1e-5}
    torch.testing.assert_close(sum(losses), output.loss, **tolerance)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "resolved"),
    [
        (None, 1, torch.tensor([0.5, -1.0]), "regression"),
        ("regression", 1, torch.tensor([[0.5], [-1.0]]), "regression"),
        ("regression", 3, torch.randn(2, 3), "regression"),
        (None, 3, torch.tensor([0, 2]), "single_label_classification"),
        ("single_label_classification", 3, torch.tensor([0, 2]), "single_label_classification"),
        (None, 3, torch.tensor([[0.0, 1, 1], [1, 0, 0]]), "multi_label_classification"),
        (None, 3, torch.tensor([[0, 1, 1], [1, 0, 0]]), "multi_label_classification"),
    ],
)
def test_sequence_classification(config, problem_type, num_labels, labels, resolved):
    config.num_labels, config.problem_type = num_labels, problem_type
    model = ErnieRnaForSequenceClassification(config).eval()
    output = model(**batch_of(["AUGC", "GG"]), labels=labels)
    if resolved == "regression":
        expected = F.mse_loss(output.logits, labels.view(2, -1))
    elif resolved == "multi_label_classification":
        expected = F.binary_cross_entropy_with_logits(output.logits, labels.float())
    else:
        expected = F.cross_entropy(output.logits, labels)
    assert output.logits.shape == (2, num_labels)
    assert torch.equal(output.loss, expected)
    # A pipeline of the saved folder reads how to interpret the logits from this field.
    assert model.config.problem_type == resolved
    if resolved == "regression":
        message = rf"regression must be .* = \(2, {num_labels}\); got \(3,\)"
        with pytest.raises(ValueError, match=message):
            model(IDS, labels=torch.ones(3))


def test_sequence_classification_reads_cls_with_padding_on_either_side(config):
    model = ErnieRnaForSequenceClassification(config).eval()
    left, right = (model(**batch_of(SEQUENCES, side)).logits for side in ("left", "right"))
    torch.testing.assert_close(left, right, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "name", "labels", "last"),
    [
        (ErnieRnaForMaskedLM, "labels", IDS, 24),
        (ErnieRnaForTokenClassification, "labels", IDS % 3, 2),
        (ErnieRnaForSequenceClassification, "labels", torch.tensor([0, 2]), 2),
        (ErnieRnaForSecondaryStructure, "labels", torch.zeros(2, 3, 3), 1),
        (ErnieRnaForPreTraining, "labels", IDS, 24),
        (ErnieRnaForPreTraining, "pair_labels", torch.zeros(2, 3, 3), 1),
    ],
)
def test_the_error_names_labels_out_of_range(kind, name, labels, last):
    model = small_model(16, 2, 1, kind, num_labels=3, pair_heads=[0])
    labels = labels.clone()
    labels.view(-1)[0] = -100
    assert model(IDS, **{name: labels}).loss.isfinite()
    for value in (last + 1, -1, *([0.5 + last] if labels.is_floating_point() else [])):
        labels.view(-1)[-1] = value
        message = rf"{name} hold {value}(\.0)?; they must be 0 to {last}, or -100"
        with pytest.raises(ValueError, match=message):
            model(IDS, **{name: labels})


@pytest.mark.parametrize("value", [5.0, -100.0, -0.5, float("nan")])
def test_labels_of_several_classes_are_0_to_1(config, value):
    config.num_labels, config.problem_type = 2, "multi_label_classification"
    model = ErnieRnaForSequenceClassification(config)
    assert model(IDS[:1], labels=torch.tensor([[1.0, 0.3]])).loss > 0
    with pytest.raises(ValueError, match=f"labels hold {value}; they must be 0 to 1$"):
        model(IDS[:1], labels=torch.tensor([[1.0, value]]))


def test_new_weights_and_casting(config):
    """Casting to half precision leaves the pairing projection in float32; double() widens it."""
    model = ErnieRnaForMaskedLM(config)
    dense, projection = model.ernie_rna.layers[0].fc1, model.ernie_rna.twod_proj.linear1
    assert dense.weight.std().item() == pytest.approx(config.initializer_range, rel=0.1)
    assert not dense.bias.any()
    assert model.ernie_rna.emb_layer_norm.weight.eq(1).all()
    weight = projection.weight.clone()
    for cast in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to(torch.bfloat16)):
        assert torch.equal(cast(copy.deepcopy(model)).ernie_rna.twod_proj.linear1.weight, weight)
    assert model.double().ernie_rna.twod_proj.linear1.weight.dtype == torch.float64


def test_lora_on_all_layers_skips_the_pairing_maps(model, batch):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    with torch.no_grad():
        plain = model(**batch).logits
        wrapped = peft.get_peft_model(model, lora).eval()
        adapted = wrapped(**batch).logits
        names = [name for name, _ in wrapped.named_modules() if name.endswith("lora_A")]
        merged = wrapped.merge_and_unload()(**batch).logits
    assert len(names) == 6 * 3 + 1  # six products in each layer, and the dense one of the LM head
    assert not any("twod_proj" in name for name in names)
    assert not torch.allclose(adapted, plain)
    torch.testing.assert_close(adapted, merged, atol=2e-5, rtol=0)
