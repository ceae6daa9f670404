"""The pipeline for structures: its results equal `fold`, and it needs no installed package."""

import json

import pytest
import torch
from transformers import pipeline

import ernie_rna
from ernie_rna.model.configuration_ernie_rna import PIPELINE, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.structures.fold import fold
from tests.conftest import ROOT, lively, run_elsewhere

pytestmark = pytest.mark.core
TASK = PIPELINE[0]
RNAS = ["GGGGGAAAACCCCCAU", "GCGCGAUUUUCGCGCA", "GGGcgaaaGCCC", "GGTTNNAAGGAACC"]
HAS_MINI = (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file()


@pytest.fixture
def config(config):
    return ErnieRnaConfig(**{**config.to_dict(), "pair_blocks": 1, "pair_calibration": [2, 1]})


@pytest.fixture(params=[ErnieRnaForSecondaryStructure, ErnieRnaForPreTraining])
def model(config, request):
    """A random model whose logits are far apart, so that it predicts some pairs."""
    model = lively(request.param(config)).eval()
    with torch.no_grad():
        model.pair_head.conv_out.weight *= 8
    return model


def pipe_of(model, **options):
    tokenizer = ErnieRnaTokenizer(model_max_length=256)
    return pipeline(TASK, model=model, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"min_loop": 0, "min_stem": 1}, {"min_stem": 1, "pseudoknots": False}]
)
def test_results_equal_those_of_fold(model, batch_size, options):
    results = pipe_of(model)(RNAS, batch_size=batch_size, **options)
    if isinstance(model, ErnieRnaForPreTraining):  # `fold` takes a model with the pair head alone.
        head = ErnieRnaForSecondaryStructure(model.config).eval()
        head.load_state_dict(model.state_dict(), strict=False)
        model = head
    folds = fold(RNAS, model, matrix="probabilities", **options)
    for result, folded in zip(results, folds, strict=True):
        structure = folded.structure
        assert result["sequence"] == structure.sequence.upper().replace("T", "U")
        assert result["dot_bracket"] == structure.dot_bracket
        assert [(pair["i"], pair["j"]) for pair in result["pairs"]] == structure.pairs
        for pair in result["pairs"]:
            p = folded.matrix[pair["i"], pair["j"]]
            assert pair["probability"] == pytest.approx(p, abs=1e-5)
    assert any(result["pairs"] for result in results) or "min_stem" not in options


def test_generators_no_sequence_and_options_of_the_constructor(model):
    pipe = pipe_of(model, min_stem=1)
    result = pipe(RNAS[0])
    assert result == pipe(RNAS[0], min_stem=1) != pipe(RNAS[0], min_stem=9)
    assert next(iter(pipe(sequence for sequence in RNAS))) == result
    assert pipe([]) == pipe(()) == []
    assert pipe(tuple(RNAS[:1])) == [result]
    assert pipe(RNAS[0], min_loop=None, min_stem=None) == result


@pytest.mark.parametrize(
    ("sequence", "options", "message"),
    [
        ("GGJ", {}, "'J' at position 3 is not a nucleotide code"),
        ("", {}, "a sequence is empty"),
        (None, {}, "a sequence must be a text; got None"),
        ("A" * 300, {}, "300 nt; the model's limit is 254 nt. long='full'"),
        ("A" * 10, {"min_lop": 1}, "there is no argument 'min_lop'; there are long, min_loop"),
        ("GGß", {}, "'ß' at position 3 is not a nucleotide code"),
        ("A" * 10, {"long": "ful"}, "long must be 'error' or 'full'; got 'ful'"),
        ("A" * 10, {"min_loop": -1}, "min_loop must be a whole number of at least 0; got -1"),
        ("A" * 10, {"min_stem": 2.5}, "min_stem must be a whole number of at least 1; got 2.5"),
        ("A" * 10, {"pseudoknots": "no"}, "pseudoknots must be True or False; got 'no'"),
    ],
)
def test_invalid_sequences_and_options_are_refused(config, sequence, options, message):
    pipe = pipe_of(ErnieRnaForSecondaryStructure(config))
    with pytest.raises((ValueError, TypeError), match=message):
        pipe(sequence, **options)
    assert pipe("A" * 300, long="full")["dot_bracket"] == "." * 300


def test_only_models_with_a_pair_head_have_the_pipeline(config, tmp_path):
    with pytest.raises(ValueError, match="no secondary-structure head: it is ErnieRnaForMaskedLM"):
        pipe_of(ErnieRnaForMaskedLM(config))
    for model in (ErnieRnaForMaskedLM(config), ErnieRnaForSecondaryStructure(config).ernie_rna):
        model.save_pretrained(tmp_path)
        assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())


# Fold with the first folder, save the second from it, and fold with that.
FOLD_WITHOUT_LIBRARY = """
import sys
from transformers import pipeline
task, first, second, *rnas = sys.argv[1:]
for folder in (first, second):
    pipe = pipeline(task, model=folder, trust_remote_code=True)
    results = pipe(rnas, batch_size=2, min_stem=1)
    pipe.model.save_pretrained(second)
    pipe.tokenizer.save_pretrained(second)
print([result["dot_bracket"] for result in results])
assert "ernie_rna" not in sys.modules
"""


def test_saved_and_resaved_folders_have_the_pipeline_without_the_library(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    ErnieRnaTokenizer(model_max_length=256).save_pretrained(first)
    saved = json.loads((first / "config.json").read_text())["custom_pipelines"]
    auto = "ForPreTraining" if isinstance(model, ErnieRnaForPreTraining) else ""
    assert saved == {TASK: {"impl": PIPELINE[1], "pt": [f"AutoModel{auto}"], "type": "text"}}
    words = ["-c", FOLD_WITHOUT_LIBRARY, TASK, first, second, *RNAS]
    expected = [folded.structure.dot_bracket for folded in fold(RNAS, first, min_stem=1)]
    assert run_elsewhere(*words, cwd=tmp_path).strip() == str(expected)


@pytest.mark.skipif(not HAS_MINI, reason="this checkout has no mini")
def test_mini_has_the_pipeline_with_the_library():
    pipe = pipeline(TASK, model=str(ernie_rna.mini()))
    assert type(pipe.model) is ErnieRnaForSecondaryStructure
    assert pipe("GGGGAAAACCCC")["dot_bracket"] == "((((....))))"
    assert pipe.model.dtype == torch.float32
