import copy

import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import pairing_table, sinusoidal_positions
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForSequenceClassification,
    ErnieRnaForTokenClassification,
    ErnieRnaModel,
)

pytestmark = pytest.mark.core
SEQUENCES = ["AUGCAUGCAUGC", "GGGGCCCCGGGGAUAUAUNN", "AUG<mask>AUG", "G"]


def batch_of(tokenizer, sequences, side="right"):
    tokenizer.padding_side = side
    batch = tokenizer(sequences, padding=True, return_tensors="pt")
    tokenizer.padding_side = "right"
    return batch


def test_pairing_table(config, golden, sequences):
    table = pairing_table(config, torch.device("cpu"))
    for name in sequences:
        ids = golden[f"{name}.input_ids"]
        assert torch.equal(table[ids][:, ids], golden[f"{name}.pairing_scores"]), name


def test_positions_count_real_tokens_and_padding_is_zero():
    table = sinusoidal_positions(torch.tensor([[1, 2, 3, 2000]]), 8, padding=1)[0]
    assert not table[0].any()
    # f_0 = 1 and f_3 = 1 / 10000: position 3 by hand.
    expected = torch.tensor([3.0, 3e-4]).sin(), torch.tensor([3.0, 3e-4]).cos()
    assert torch.allclose(table[2, [0, 3]], expected[0])
    assert torch.allclose(table[2, [4, 7]], expected[1])
    assert table[3].isfinite().all()


def test_outputs_and_shapes(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    flags = ("hidden_states", "attentions", "attention_biases")
    encoder = ErnieRnaModel(model.config).eval()
    output = encoder(**batch, **{f"output_{flag}": True for flag in flags})
    size, seq = batch.input_ids.shape
    assert output.last_hidden_state.shape == (size, seq, 48)
    assert output.pooler_output.shape == (size, 48)
    assert [len(output[flag]) for flag in flags] == [4, 3, 4]
    assert all(bias.shape == (size, 12, seq, seq) for bias in output.attention_biases)
    assert all(weights.shape == (size, 12, seq, seq) for weights in output.attentions)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    sums = output.attentions[-1].sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums))


def test_plain_call_returns_only_what_is_asked_for(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    assert list(model(**batch)) == ["logits"]
    assert list(model.ernie_rna(**batch)) == ["last_hidden_state"]


def test_return_dict_false_gives_the_same_in_a_tuple(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    flags = {"output_hidden_states": True, "output_attention_biases": True}
    output = model(**batch, labels=batch.input_ids, **flags)
    loss, logits, hidden_states, biases = model(
        **batch, labels=batch.input_ids, return_dict=False, **flags
    )
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
    assert len(hidden_states) == len(biases) == 4


def test_flags_in_the_config(model, tokenizer):
    model.config.output_hidden_states = True
    assert model(**batch_of(tokenizer, SEQUENCES)).hidden_states is not None


@pytest.mark.parametrize("norm_first", [False, True])
def test_layer_norm_stands_where_the_config_says(config, norm_first):
    config.norm_first = norm_first
    model = ErnieRnaModel(config).eval()
    assert (model.layer_norm is not None) == norm_first
    ids = torch.tensor([[0, 4, 5, 6, 7, 2]])
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
        first, second = output.hidden_states[1], model.layers[0]
        x, bias = output.hidden_states[0], model(ids, output_attention_biases=True)
        bias = bias.attention_biases[0]
        # The block written out, as in the two papers' figures.
        options = {"carry": False, "in_place": False, "output_attentions": False}
        if norm_first:
            y = x + second.self_attn(second.self_attn_layer_norm(x), (bias,), **options)[0]
            normed = second.final_layer_norm(y)
            expected = y + second.fc2(torch.nn.functional.gelu(second.fc1(normed)))
        else:
            y = second.self_attn_layer_norm(x + second.self_attn(x, (bias,), **options)[0])
            fed = second.fc2(torch.nn.functional.gelu(second.fc1(y)))
            expected = second.final_layer_norm(y + fed)
    assert torch.equal(first, expected)
    norm = output.last_hidden_state.mean(-1)
    assert torch.allclose(norm, torch.zeros_like(norm), atol=1e-6)  # normalised at the end


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("score_memory", ["carry", "recompute"])
def test_a_sequence_is_the_same_alone_and_in_any_batch(
    config, tokenizer, attention, side, norm_first, score_memory
):
    """Measured: 1.3e-6 at worst, in float32 and hidden states of about 1."""
    config.norm_first, config.score_memory = norm_first, score_memory
    model = ErnieRnaModel(config).eval()
    model.set_attn_implementation(attention)
    batch = batch_of(tokenizer, SEQUENCES, side)
    with torch.no_grad():
        together = model(**batch, output_hidden_states=True)
        for row, sequence in enumerate(SEQUENCES):
            alone = model(**batch_of(tokenizer, [sequence]), output_hidden_states=True)
            keep = batch.attention_mask[row].bool()
            for one, many in zip(alone.hidden_states, together.hidden_states, strict=True):
                torch.testing.assert_close(many[row, keep], one[0], atol=2e-6, rtol=0)
            pooled = together.pooler_output[row], alone.pooler_output[0]
            torch.testing.assert_close(*pooled, atol=2e-6, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_biases_and_attentions_are_the_same_in_a_batch(model, tokenizer, side):
    batch = batch_of(tokenizer, SEQUENCES, side)
    flags = {"output_attentions": True, "output_attention_biases": True}
    with torch.no_grad():
        together = model(**batch, **flags)
        alone = model(**batch_of(tokenizer, SEQUENCES[2:3]), **flags)
    keep = batch.attention_mask[2].bool()
    for name in ("attentions", "attention_biases"):
        for one, many in zip(alone[name], together[name], strict=True):
            torch.testing.assert_close(many[2][:, keep][..., keep], one[0], atol=5e-6, rtol=0)
    assert together.attention_biases[0][2][..., ~keep].eq(-torch.inf).all()


def test_mask_is_read_from_the_padding_id(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    assert torch.equal(model(batch.input_ids).logits, model(**batch).logits)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("score_memory", ["carry", "recompute"])
@pytest.mark.parametrize("train", [False, True])
def test_a_row_without_real_tokens_is_finite(model, attention, score_memory, train):
    model.set_attn_implementation(attention)
    model.config.score_memory = score_memory
    ids = torch.tensor([[0, 4, 5, 2], [1, 1, 1, 1]])
    output = model.train(train)(ids, labels=torch.where(ids == 1, -100, ids))
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_position_ids(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES[:1])
    seq = batch.input_ids.shape[1]
    counted = torch.arange(2, seq + 2)[None]
    assert torch.equal(model(**batch, position_ids=counted).logits, model(**batch).logits)
    shifted = model(**batch, position_ids=counted + 5).logits
    assert not torch.allclose(shifted, model(**batch).logits)


def test_positions_grow_past_the_pretrained_length(model):
    ids = torch.full((1, model.config.max_position_embeddings + 50), 4)
    assert model(ids).logits.isfinite().all()


def test_inputs_embeds_with_pairing_scores(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    embeds = model.get_input_embeddings()(batch.input_ids)
    scores = pairing_table(model.config, embeds.device)[
        batch.input_ids[:, :, None], batch.input_ids[:, None, :]
    ]
    by_embeds = model(
        inputs_embeds=embeds, attention_mask=batch.attention_mask, pairing_scores=scores
    )
    torch.testing.assert_close(by_embeds.logits, model(**batch).logits, atol=2e-5, rtol=0)
    ones = model(inputs_embeds=embeds[:1], pairing_scores=scores[:1])
    keep = batch.attention_mask[0].bool()
    assert ones.logits[:, keep].isfinite().all()


def test_pairing_scores_replace_those_of_the_ids(model, golden):
    ids = golden["pretrain_mask.input_ids"][None]
    scores = golden["pretrain_mask.pairing_scores"][None]
    assert not torch.allclose(model(ids, pairing_scores=scores).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "got neither"),
        ({"input_ids": torch.ones(2, 5).long(), "inputs_embeds": torch.ones(2, 5, 48)}, "both"),
        ({"inputs_embeds": torch.ones(2, 5, 48)}, "give pairing_scores"),
        ({"input_ids": "AUGC"}, r"tokenizer\(sequences, .*got str"),
        ({"input_ids": [[1, 5, 2]]}, "got list"),
        ({"input_ids": torch.tensor([1, 5, 2])}, r"got \(3,\)"),
        ({"input_ids": torch.ones(2, 0).long()}, r"at least one token; got the shape \(2, 0\)"),
        (
            {"input_ids": torch.ones(2, 5).long(), "attention_mask": torch.ones(2, 4)},
            r"attention_mask must be \(batch, seq\) = \(2, 5\); got \(2, 4\)",
        ),
        (
            {"input_ids": torch.ones(2, 5).long(), "attention_mask": torch.ones(2, 1, 5, 5)},
            r"got \(2, 1, 5, 5\)",
        ),
        (
            {"input_ids": torch.ones(2, 5).long(), "pairing_scores": torch.ones(5, 5)},
            r"pairing_scores must be \(batch, seq, seq\) = \(2, 5, 5\); got \(5, 5\)",
        ),
    ],
)
def test_bad_inputs_are_named(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_masked_lm_loss(model, tokenizer):
    batch = batch_of(tokenizer, SEQUENCES)
    labels = torch.where(batch.attention_mask == 1, batch.input_ids, -100)
    output = model(**batch, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    assert torch.equal(output.loss, expected)
    # Accumulated gradients: two halves, divided by all labels, are the whole.
    count = (labels != -100).sum()
    halves = [
        model(
            **{k: v[rows] for k, v in batch.items()}, labels=labels[rows], num_items_in_batch=count
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(half.loss for half in halves), output.loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32(model, tokenizer, dtype):
    batch = batch_of(tokenizer, SEQUENCES)
    output = model.to(dtype)(**batch, labels=batch.input_ids)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "kept"),
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
def test_sequence_classification(config, tokenizer, problem_type, num_labels, labels, kept):
    config.num_labels, config.problem_type = num_labels, problem_type
    model = ErnieRnaForSequenceClassification(config).eval()
    batch = batch_of(tokenizer, ["AUGC", "GG"])
    output = model(**batch, labels=labels)
    losses = torch.nn.functional
    if labels.ndim == 1 and num_labels > 1:
        expected = losses.cross_entropy(output.logits, labels)
    elif kept == "multi_label_classification":
        expected = losses.binary_cross_entropy_with_logits(output.logits, labels.float())
    else:
        expected = losses.mse_loss(output.logits, labels.view(2, -1))
    assert output.logits.shape == (2, num_labels)
    assert torch.equal(output.loss, expected)
    # As with transformers' own models: a pipeline of the saved folder reads the logits by it.
    assert model.config.problem_type == kept


def test_sequence_classification_reads_cls_however_padded(config, tokenizer):
    model = ErnieRnaForSequenceClassification(config).eval()
    left, right = (
        model(**batch_of(tokenizer, SEQUENCES, side)).logits for side in ("left", "right")
    )
    torch.testing.assert_close(left, right, atol=2e-6, rtol=0)


def test_sequence_classification_names_labels_of_a_wrong_shape(config, tokenizer):
    config.num_labels = 1
    model = ErnieRnaForSequenceClassification(config)
    with pytest.raises(ValueError, match=r"regression must be .* = \(2, 1\); got \(3,\)"):
        model(**batch_of(tokenizer, ["AUGC", "GG"]), labels=torch.ones(3))


def test_token_classification(config, tokenizer):
    config.num_labels = 5
    model = ErnieRnaForTokenClassification(config).eval()
    batch = batch_of(tokenizer, SEQUENCES)
    labels = torch.where(batch.attention_mask == 1, batch.input_ids % 5, -100)
    output = model(**batch, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    assert output.logits.shape == (*batch.input_ids.shape, 5)
    assert torch.equal(output.loss, expected)


def test_casting_keeps_the_pairing_projection_and_double_widens_it(model):
    weight = model.ernie_rna.twod_proj.linear1.weight
    for cast in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to(torch.bfloat16)):
        assert torch.equal(cast(copy.deepcopy(model)).ernie_rna.twod_proj.linear1.weight, weight)
    assert copy.deepcopy(model).double().ernie_rna.twod_proj.linear1.weight.dtype == torch.float64


def test_new_weights(config):
    model = ErnieRnaForMaskedLM(config)
    dense = model.ernie_rna.layers[0].fc1
    assert dense.weight.std().item() == pytest.approx(config.initializer_range, rel=0.1)
    assert not dense.bias.any()
    assert model.ernie_rna.emb_layer_norm.weight.eq(1).all()


def test_default_model_has_86_million_parameters():
    with torch.device("meta"):
        model = ErnieRnaModel(ErnieRnaConfig())
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 86


def test_lora_reaches_the_attention(model, tokenizer):
    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False
    )
    batch = batch_of(tokenizer, SEQUENCES)
    with torch.no_grad():
        plain = model(**batch).logits
        wrapped = peft.get_peft_model(model, options).eval()
        adapted = wrapped(**batch).logits
        merged = wrapped.merge_and_unload()(**batch).logits
    assert not torch.allclose(adapted, plain)
    torch.testing.assert_close(adapted, merged, atol=2e-5, rtol=0)
