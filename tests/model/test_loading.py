"""Models are loaded as users load them: from a folder, by the Auto classes."""

import warnings
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
from transformers.dynamic_module_utils import get_relative_imports

import ernie_rna  # noqa: F401  # registers the Auto classes
from ernie_rna.model.configuration_ernie_rna import AUTO_MAP, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForRibosomeLoading,
    ErnieRnaForSecondaryStructure,
    ErnieRnaForSequenceClassification,
    ErnieRnaModel,
)
from tests.conftest import ROOT

pytestmark = pytest.mark.core


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> Path:
    """A folder like a converted one: the encoder with its pooler, and the LM head."""
    encoder = ErnieRnaModel(model.config)
    state = {f"ernie_rna.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state |= model.state_dict()
    del state["lm_head.decoder.weight"]
    model.save_pretrained(tmp_path / "model", state_dict=state)
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path, **options) -> ErnieRnaModel:
    return AutoModel.from_pretrained(folder, trust_remote_code=True, **options)


def test_a_model_from_a_configuration_is_saved_as_random(config, tmp_path):
    assert type(AutoModel.from_config(config)) is ErnieRnaModel
    new = ErnieRnaForMaskedLM._from_config(config)
    assert config.weights_origin is None
    new.save_pretrained(tmp_path)
    assert ErnieRnaForMaskedLM.from_pretrained(tmp_path).config.weights_origin == "random"


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(
    "head", ["", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"]
)
def test_every_auto_class_loads(head, remote, folder, tokenizer, model):
    auto = getattr(transformers, f"AutoModel{head}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = auto.from_pretrained(folder, trust_remote_code=remote).eval()
    assert type(loaded).__name__ == f"ErnieRna{head or 'Model'}"
    assert isinstance(loaded, ErnieRnaModel) or remote or head
    assert loaded.config._attn_implementation == "sdpa"
    batch = tokenizer(["AUGCAUGC", "GGGG"], return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = loaded(**batch, output_hidden_states=True).hidden_states[-1]
        expected = model(**batch, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(hidden, expected)
    if auto is AutoModelForMaskedLM:
        assert loaded.lm_head.decoder.weight is loaded.ernie_rna.embed_tokens.weight
        tokens = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)
        assert tokens("ACGT").input_ids == [0, 5, 7, 4, 6, 2]
        best = pipeline("fill-mask", model=loaded, tokenizer=tokens)("AUG<mask>AUG")[0]
        assert best["sequence"] == "AUG" + best["token_str"] + "AUG"


@pytest.mark.parametrize("repository", ["", "user/repo--"])
def test_automodel_finds_what_is_saved(config, tmp_path, repository):
    """Whatever the folder or the repository held that a model was loaded from."""
    config.pair_heads = [0]
    plain = ErnieRnaForMaskedLM, ErnieRnaForSequenceClassification
    heads = ErnieRnaForRibosomeLoading, ErnieRnaForSecondaryStructure
    for kind in (heads[0], plain[0], heads[1], heads[1], plain[1], heads[0]):
        kind(config).save_pretrained(tmp_path)
        config = ErnieRnaConfig.from_pretrained(tmp_path)
        found = kind if kind in heads else ErnieRnaModel
        assert config.auto_map["AutoModel"] == f"modeling_ernie_rna.{found.__name__}"
        assert config.auto_map == {**AUTO_MAP, "AutoModel": config.auto_map["AutoModel"]}
        config.auto_map = {name: repository + place for name, place in config.auto_map.items()}
    others = {"AutoModel": "theirs.Model", "AutoTokenizer": ["theirs.Tokenizer", None]}
    config.auto_map |= others
    config.architectures = ["Model"]
    config.save_pretrained(tmp_path)
    assert ErnieRnaConfig.from_pretrained(tmp_path).auto_map == {**AUTO_MAP, **others}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pairing_projection_stays_float32(folder, dtype):
    model = load(folder, torch_dtype=dtype)  # `dtype=` came with transformers 4.56.
    assert model.dtype == dtype
    exact = load(folder).twod_proj
    for name, weight in model.twod_proj.named_parameters():
        assert torch.equal(weight, exact.get_parameter(name)), name


@pytest.mark.parametrize(
    ("name", "runs"), [("eager", "eager"), ("sdpa", "sdpa"), ("flash_attention_2", "eager")]
)
def test_attention_by_keyword_and_by_setter(folder, name, runs):
    assert load(folder, attn_implementation=name).config._attn_implementation == runs
    loaded = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    loaded.set_attn_implementation(name)
    configs = [loaded.config, *(layer.self_attn.config for layer in loaded.ernie_rna.layers)]
    assert {config._attn_implementation for config in configs} == {runs}


@pytest.mark.parametrize("name", ["flex_attention", "flash_attention_3", "math"])
def test_the_error_for_another_attention_names_the_three(folder, name):
    known = r"'sdpa'.*'eager'.*'flash_attention_2'"
    with pytest.raises(ValueError, match=known):
        load(folder, attn_implementation=name)
    model = load(folder)
    with pytest.raises(ValueError, match=known):
        model.set_attn_implementation(name)


def test_score_memory_keyword(folder):
    assert load(folder, score_memory="recompute").config.score_memory == "recompute"
    with pytest.raises(ValueError, match="score_memory='never'"):
        load(folder, score_memory="never")


def test_entry_files_import_directly_what_their_imports_need():
    """transformers up to 5.5 downloads only the files that an entry file imports itself."""
    imports = {path.stem: set(get_relative_imports(path)) for path in ROOT.glob("*_ernie_rna.py")}
    for kind in ("configuration", "modeling", "pipeline", "tokenization"):
        entry = f"{kind}_ernie_rna"
        needed = set().union(*(imports[name] for name in imports[entry]))
        assert needed <= imports[entry] | {entry}
