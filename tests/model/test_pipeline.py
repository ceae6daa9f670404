"""The pipeline for structures: what `fold` gives, from a folder with nothing of ours installed."""

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
    """Random logits that are far apart, so that some stand out."""
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
def test_it_gives_what_fold_gives(model, batch_size, options):
    found = pipe_of(model)(RNAS, batch_size=batch_size, **options)
    if isinstance(model, ErnieRnaForPreTraining):  # The command loads the one head of a folder.
        head = ErnieRnaForSecondaryStructure(model.config).eval()
        head.load_state_dict(model.state_dict(), strict=False)
        model = head
    folds = fold(RNAS, model, matrix="probabilities", **options)
    for one, expected in zip(found, folds, strict=True):
        structure = expected.structure
        assert one["sequence"] == structure.sequence.upper().replace("T", "U")
        assert one["dot_bracket"] == structure.dot_bracket
        assert [(pair["i"], pair["j"]) for pair in one["pairs"]] == structure.pairs
        for pair in one["pairs"]:
            p = expected.matrix[pair["i"], pair["j"]]
            assert pair["probability"] == pytest.approx(p, abs=1e-5)
    assert any(one["pairs"] for one in found) or "min_stem" not in options


def test_generators_no_sequence_and_settings_of_the_constructor(model):
    pipe = pipe_of(model, min_stem=1)
    alone = pipe(RNAS[0])
    assert alone == pipe(RNAS[0], min_stem=1) != pipe(RNAS[0], min_stem=9)
    assert next(iter(pipe(text for text in RNAS))) == alone
    assert pipe([]) == pipe(()) == []
    assert pipe(tuple(RNAS[:1])) == [alone]
    assert pipe(RNAS[0], min_loop=None, min_stem=None) == alone


@pytest.mark.parametrize(
    ("text", "options", "message"),
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
def test_what_is_refused(config, text, options, message):
    pipe = pipe_of(ErnieRnaForSecondaryStructure(config))
    with pytest.raises((ValueError, TypeError), match=message):
        pipe(text, **options)
    assert pipe("A" * 300, long="full")["dot_bracket"] == "." * 300


def test_only_a_head_for_pairs_has_it(config, tmp_path):
    with pytest.raises(ValueError, match="no secondary-structure head: it is ErnieRnaForMaskedLM"):
        pipe_of(ErnieRnaForMaskedLM(config))
    for model in (ErnieRnaForMaskedLM(config), ErnieRnaForSecondaryStructure(config).ernie_rna):
        model.save_pretrained(tmp_path)
        assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())


FOREIGN = """
import sys
from transformers import pipeline
for turn in range(2):
    pipe = pipeline(sys.argv[1], model=sys.argv[2 + turn], trust_remote_code=True)
    found = pipe(sys.argv[4:], batch_size=2, min_stem=1)
    pipe.model.save_pretrained(sys.argv[3])
    pipe.tokenizer.save_pretrained(sys.argv[3])
print([one["dot_bracket"] for one in found])
assert "ernie_rna" not in sys.modules
"""


def test_a_saved_folder_has_it_without_the_library_and_so_has_what_is_saved_from_that(
    model, tmp_path
):
    first = tmp_path / "first"
    for one in (model, ErnieRnaTokenizer(model_max_length=256)):
        one.save_pretrained(first)
    saved = json.loads((first / "config.json").read_text())["custom_pipelines"]
    auto = "ForPreTraining" if isinstance(model, ErnieRnaForPreTraining) else ""
    assert saved == {TASK: {"impl": PIPELINE[1], "pt": [f"AutoModel{auto}"], "type": "text"}}
    found = run_elsewhere("-c", FOREIGN, TASK, first, tmp_path / "second", *RNAS, cwd=tmp_path)
    expected = [one.structure.dot_bracket for one in fold(RNAS, first, min_stem=1)]
    assert found.strip() == str(expected)


@pytest.mark.skipif(not HAS_MINI, reason="this checkout has no mini")
def test_mini_has_it_by_the_library():
    pipe = pipeline(TASK, model=str(ernie_rna.mini()))
    assert type(pipe.model) is ErnieRnaForSecondaryStructure
    assert pipe("GGGGAAAACCCC")["dot_bracket"] == "((((....))))"
    assert pipe.model.dtype == torch.float32
