"""Quantised models: the products of the encoder become int8 or 4 bit, the pairing maps never.

torchao and bitsandbytes are tried where they are installed.
"""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BitsAndBytesConfig

import ernie_rna
from ernie_rna.model.layers_ernie_rna import ErnieRnaPairingMap

SEQUENCES = ["GGGGAAAACCCCAUGCUUAGC", "AUGCAUGC", "GGGAAACCC"]
LAYERS = 36  # of mini: six products in each of six layers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return AutoModel.from_pretrained(ernie_rna.mini()).eval()


@pytest.fixture(scope="module")
def batch() -> dict:
    return ernie_rna.ErnieRnaTokenizer()(SEQUENCES, return_tensors="pt", padding=True)


@torch.no_grad()
def cosine(model: nn.Module, other: nn.Module, batch: dict) -> float:
    """The least cosine of the hidden states of real tokens under two models."""
    states = [each(**batch).last_hidden_state.float() for each in (model, other)]
    real = batch["attention_mask"].bool()
    return torch.cosine_similarity(*(state[real] for state in states), dim=-1).min().item()


def replaced(model: nn.Module) -> int:
    """How many products are no plain layers any more; the pairing maps must still be float32."""
    maps = [module for module in model.modules() if isinstance(module, ErnieRnaPairingMap)]
    assert len(maps) == 2
    assert all(one.weight.dtype == torch.float32 for one in maps)
    linear = [module for module in model.layers.modules() if type(module) is nn.Linear]
    return LAYERS - sum(type(module.weight) is nn.Parameter for module in linear)


@pytest.mark.parametrize(
    "name", ["dynamic", "Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]
)
def test_quantized_in_place(model, batch, name, tmp_path):
    quantized = copy.deepcopy(model)
    if name == "dynamic":
        quantized = torch.ao.quantization.quantize_dynamic(quantized, {nn.Linear})
    else:
        torchao = pytest.importorskip("torchao.quantization")
        torchao.quantize_(quantized, getattr(torchao, name)())
    assert replaced(quantized) == LAYERS
    assert cosine(model, quantized, batch) > 0.99
    if name != "dynamic":
        torch.save(quantized.state_dict(), tmp_path / "model.pt")
        again, state = copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)
        again.load_state_dict(state, assign=True)
        assert cosine(quantized, again, batch) > 1 - 1e-6


@pytest.mark.parametrize(("bits", "least"), [(8, 0.99), (4, 0.9)])
def test_bitsandbytes(model, batch, bits, least):
    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    quantized = AutoModel.from_pretrained(
        ernie_rna.mini(), quantization_config=config, device_map="cpu"
    )
    assert replaced(quantized) >= 24
    assert cosine(model, quantized, batch) > least


def test_lora_on_a_quantised_model_trains_a_step(batch):
    pytest.importorskip("bitsandbytes")
    peft = pytest.importorskip("peft")
    # The head is new, and peft trains a copy of it.
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["classifier"])
    options = {"quantization_config": config, "device_map": "cpu", "num_labels": 2}
    quantized = AutoModelForSequenceClassification.from_pretrained(ernie_rna.mini(), **options)
    quantized = peft.prepare_model_for_kbit_training(quantized)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear")
    trained = peft.get_peft_model(quantized, lora)
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.005)
    losses = []
    for _ in range(2):
        loss = trained(**batch, labels=torch.tensor([0, 1, 0])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
