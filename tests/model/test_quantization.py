"""Quantised models: the products of the encoder become int8 or 4 bit, the pairing maps never.

torchao and bitsandbytes are tried where they are installed.
"""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

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
    plain = [
        module
        for name, module in model.named_modules()
        if name.startswith("layers.")
        and type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
    ]
    return LAYERS - len(plain)


def test_quantize_dynamic(model, batch):
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    assert replaced(quantized) == LAYERS
    assert cosine(model, quantized, batch) > 0.99


@pytest.mark.parametrize("name", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao(model, batch, name, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    quantized = copy.deepcopy(model)
    quantization.quantize_(quantized, getattr(quantization, name)())
    assert replaced(quantized) == LAYERS
    assert cosine(model, quantized, batch) > 0.99
    torch.save(quantized.state_dict(), tmp_path / "model.pt")
    again = copy.deepcopy(model)
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=False), assign=True)
    assert cosine(quantized, again, batch) > 1 - 1e-6


@pytest.mark.parametrize(("bits", "least"), [(8, 0.99), (4, 0.9)])
def test_bitsandbytes(model, batch, bits, least):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    quantized = AutoModel.from_pretrained(
        ernie_rna.mini(), quantization_config=config, device_map="cpu"
    )
    assert replaced(quantized) >= 24
    assert cosine(model, quantized, batch) > least


def test_lora_on_a_quantised_model_trains_a_step(batch):
    pytest.importorskip("bitsandbytes")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    quantized = AutoModelForSequenceClassification.from_pretrained(
        ernie_rna.mini(),
        # The head is new, and peft trains a copy of it.
        quantization_config=BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_skip_modules=["classifier"]
        ),
        device_map="cpu",
        num_labels=2,
    )
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


def test_lora_on_all_layers_leaves_the_pairing_maps(model):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules="all-linear")
    adapted = peft.get_peft_model(copy.deepcopy(model), lora)
    names = [name for name, _ in adapted.named_modules() if name.endswith("lora_A")]
    assert len(names) == LAYERS
    assert not any("twod_proj" in name for name in names)
