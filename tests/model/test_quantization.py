"""Quantization turns the encoder's products into int8 or 4 bit, but not the pairing maps.

torchao and bitsandbytes are tested if they are installed.
"""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BitsAndBytesConfig

import ernie_rna
from ernie_rna.model.layers_ernie_rna import ErnieRnaPairingMap

SEQUENCES = ["GGGGAAAACCCCAUGCUUAGC", "AUGCAUGC", "GGGAAACCC"]
PRODUCTS = 36  # in mini: six in each of six layers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return AutoModel.from_pretrained(ernie_rna.mini()).eval()


@pytest.fixture(scope="module")
def batch() -> dict:
    return ernie_rna.ErnieRnaTokenizer()(SEQUENCES, return_tensors="pt", padding=True)


@torch.no_grad()
def lowest_cosine(model: nn.Module, other: nn.Module, batch: dict) -> float:
    """The lowest cosine between the hidden states of two models at a real token."""
    real = batch["attention_mask"].bool()
    states = (m(**batch).last_hidden_state.float()[real] for m in (model, other))
    return torch.cosine_similarity(*states, dim=-1).min().item()


def count_quantized(model: nn.Module) -> int:
    """The number of quantized products, after a check that the pairing maps are float32."""
    maps = [module for module in model.modules() if isinstance(module, ErnieRnaPairingMap)]
    assert [pairing_map.weight.dtype for pairing_map in maps] == [torch.float32] * 2
    linear = [module for module in model.layers.modules() if type(module) is nn.Linear]
    return PRODUCTS - sum(type(module.weight) is nn.Parameter for module in linear)


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
    assert count_quantized(quantized) == PRODUCTS
    assert lowest_cosine(model, quantized, batch) > 0.99
    if name != "dynamic":
        torch.save(quantized.state_dict(), tmp_path / "model.pt")
        state, loaded = torch.load(tmp_path / "model.pt", weights_only=False), copy.deepcopy(model)
        loaded.load_state_dict(state, assign=True)
        assert lowest_cosine(quantized, loaded, batch) > 1 - 1e-6


@pytest.mark.parametrize(("bits", "min_cosine"), [(8, 0.99), (4, 0.9)])
def test_bitsandbytes(model, batch, bits, min_cosine):
    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    quantized = AutoModel.from_pretrained(
        ernie_rna.mini(), quantization_config=config, device_map="cpu"
    )
    assert count_quantized(quantized) >= 24
    assert lowest_cosine(model, quantized, batch) > min_cosine


def test_lora_on_a_quantized_model_trains_a_step(batch):
    pytest.importorskip("bitsandbytes")
    peft = pytest.importorskip("peft")
    # The head is new and stays in float32; peft trains a copy of it.
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
