"""Arguments of forward that do not exist, and ids and labels out of range."""

import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
    ErnieRnaForSequenceClassification,
    ErnieRnaForTokenClassification,
    ErnieRnaModel,
)

pytestmark = pytest.mark.core
IDS = torch.tensor([[0, 4, 5, 6, 2], [0, 7, 6, 2, 1]])
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def build(kind, **settings):
    torch.manual_seed(0)
    config = ErnieRnaConfig(**SIZES, intermediate_size=32, pair_heads=[0], **settings)
    return kind(config).eval()


@pytest.mark.parametrize("kind", [ErnieRnaModel, ErnieRnaForMaskedLM, ErnieRnaForPreTraining])
def test_a_misspelt_argument_is_refused_with_the_nearest(kind):
    model = build(kind)
    message = f"{kind.__name__} takes no argument 'outputhidden_states'.*'output_hidden_states'"
    with pytest.raises(TypeError, match=message):
        model(IDS, outputhidden_states=True)
    with pytest.raises(TypeError, match="'cu_seq_lens_q': it takes input_ids, attention_mask"):
        model(IDS, cu_seq_lens_q=torch.tensor([0, 5]))


def test_what_libraries_pass_is_let_through():
    types = torch.zeros_like(IDS)
    build(ErnieRnaModel)(IDS, token_type_ids=types, num_items_in_batch=3)
    build(ErnieRnaForMaskedLM)(IDS, token_type_ids=types, task_ids=None)


@pytest.mark.parametrize("value", [-1, -100, 25])
def test_an_id_outside_of_the_vocabulary(value):
    ids = IDS.clone()
    ids[1, 2] = value
    with pytest.raises(ValueError, match=f"input_ids hold {value}; they must be 0 to 24$"):
        build(ErnieRnaModel)(ids)


LABELS = [
    (ErnieRnaForMaskedLM, "labels", IDS, 24),
    (ErnieRnaForTokenClassification, "labels", IDS % 3, 2),
    (ErnieRnaForSequenceClassification, "labels", torch.tensor([0, 2]), 2),
    (ErnieRnaForSecondaryStructure, "labels", torch.zeros(2, 3, 3), 1),
    (ErnieRnaForPreTraining, "labels", IDS, 24),
    (ErnieRnaForPreTraining, "pair_labels", torch.zeros(2, 3, 3), 1),
]


@pytest.mark.parametrize(("kind", "name", "labels", "last"), LABELS)
def test_a_label_out_of_range(kind, name, labels, last):
    model = build(kind, num_labels=3)
    labels = labels.clone()
    labels.view(-1)[0] = -100
    assert model(IDS, **{name: labels}).loss.isfinite()
    for value in (last + 1, -1):
        labels.view(-1)[-1] = value
        message = rf"{name} hold {value}(\.0)?; they must be 0 to {last}, or -100"
        with pytest.raises(ValueError, match=message):
            model(IDS, **{name: labels})
