import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForCloseness,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
    ErnieRnaModel,
)

pytestmark = pytest.mark.core


RELEASED = {
    **{"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "vocab_size": 25},
    **{"intermediate_size": 3072, "max_position_embeddings": 1024, "norm_first": False},
    **{"au_pairing_score": 2.0, "gc_pairing_score": 3.0, "gu_pairing_score": 0.8},
    "pair_calibration": None,
}


def test_defaults_are_the_released_model():
    config = ErnieRnaConfig()
    assert RELEASED.items() <= vars(config).items()
    with torch.device("meta"):
        parameters = ErnieRnaModel(config).parameters()
    assert round(sum(parameter.numel() for parameter in parameters) / 1e6) == 86
    for token in ("cls", "pad", "eos", "unk", "mask"):
        assert VOCABULARY[getattr(config, f"{token}_token_id")] == f"<{token}>"
    assert "".join(VOCABULARY[4:9]) == "GAUCN"


def test_round_trip(tmp_path):
    values = {"hidden_size": 96, "norm_first": True, "pair_calibration": [1.1, -4.0]}
    config = ErnieRnaConfig(**values, au_pairing_score=1.5)
    config.save_pretrained(tmp_path)
    loaded = ErnieRnaConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert values.items() <= vars(loaded).items()


def test_heads_may_outnumber_pair_channels_unless_there_is_a_pair_head():
    config = ErnieRnaConfig(hidden_size=1024, num_attention_heads=64, num_hidden_layers=1)
    with torch.device("meta"):
        assert ErnieRnaModel(config).config.num_attention_heads == 64
        message = "more than the 64 maps that come in; got pair_channels=64, pair_heads=None, num_a"
        for kind in (ErnieRnaForPreTraining, ErnieRnaForCloseness, ErnieRnaForSecondaryStructure):
            with pytest.raises(ValueError, match=message):
                kind(config)
        config.pair_heads = [5]
        ErnieRnaForSecondaryStructure(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"hidden_size": 50}, "hidden_size=50, num_attention_heads=12"),
        ({"hidden_size": 51, "num_attention_heads": 3}, "hidden_size=51"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
        ({"num_attention_heads": 1.5}, "num_attention_heads=1.5"),
        ({"intermediate_size": True}, "intermediate_size=True"),
        ({"pairing_hidden_size": 0}, "pairing_hidden_size=0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob=-0.1"),
        ({"activation_dropout": "no"}, "activation_dropout='no'"),
        ({"classifier_dropout": 2}, "classifier_dropout=2"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps=-1e-05"),
        ({"initializer_range": None}, "initializer_range=None"),
        ({"gc_pairing_score": float("nan")}, "gc_pairing_score=nan"),
        ({"norm_first": "yes"}, "norm_first='yes'"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"score_memory": "none"}, "score_memory='none'"),
        ({"mask_token_id": 25}, "mask_token_id=25, vocab_size=25"),
        ({"pad_token_id": None}, "pad_token_id=None"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"pair_calibration": [1.0]}, "pair_calibration=[1.0]"),
        ({"pair_calibration": [0.0, 1.0]}, "pair_calibration=[0.0, 1.0]"),
        ({"pair_calibration": [1.0, float("inf")]}, "pair_calibration=[1.0, inf]"),
        ({"pair_calibration": "line"}, "pair_calibration='line'"),
        ({"pair_heads": [12]}, "pair_heads=[12]"),
        ({"pair_heads": []}, "pair_heads=[]"),
        ({"pair_blocks": 0}, "pair_blocks=0"),
        ({"pair_dropout": 1.0}, "pair_dropout=1.0"),
        ({"pair_positive_weight": -1.0}, "pair_positive_weight=-1.0"),
        ({"loading_scale": "1"}, "loading_scale='1'"),
    ],
)
def test_the_error_names_an_invalid_value(values, message):
    with pytest.raises(ValueError, match="must be") as error:
        ErnieRnaConfig(**values)
    assert message in str(error.value)
