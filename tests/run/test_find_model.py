"""Models are found, and one that cannot be loaded is explained, before torch is imported."""

from pathlib import Path

import huggingface_hub
import pytest

from ernie_rna.data import mini
from ernie_rna.run.find_model import find_model


@pytest.fixture(autouse=True)
def _files_and_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    for folder in ("unconverted", "lora", "model"):
        Path(folder).mkdir()
    for name in ("PRETRAIN.pt", "unconverted/released.pt"):
        Path(name).write_bytes(b"PK")
    for name in ("lora/adapter_config.json", "model/config.json"):
        Path(name).write_text("{}")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("PRETRAIN.pt", ValueError, r"a file.*ernie-rna convert PRETRAIN\.pt PRETRAIN, then -m"),
        ("unconverted", ValueError, r"no config\.json; `ernie-rna convert unconverted/rel"),
        ("lora", ValueError, "lora holds an adapter of PEFT, not a complete model: merge it"),
        ("./NOSUCH", FileNotFoundError, r"there is no folder \./NOSUCH; .*-m mini"),
        ("a/b/c", FileNotFoundError, "there is no folder a/b/c"),
        ("some body", ValueError, "neither a folder here nor a valid Hub id"),
        ("user/name", ConnectionError, r"cannot be reached \(http://127\.0\.0\.1:9: .*refused"),
    ],
)
def test_explains_why_a_model_cannot_be_loaded(model, error, message):
    with pytest.raises(error, match=message):
        find_model(model)


def test_finds_folders_mini_loaded_and_cached_models(monkeypatch):
    assert find_model("model") == find_model(Path("model")) == "model"
    assert find_model("./model") == "./model"
    assert find_model("mini") == str(mini())
    loaded = object()
    assert find_model(loaded) is loaded
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: "config.json")
    assert find_model("user/name") == "user/name"  # In the cache, so the Hub is not needed.


def test_the_variable_that_forbids_the_hub_is_named(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        find_model("user/name")
