"""Fixtures for tests of structures."""

import contextlib
import importlib.util
import json

import numpy as np
import pytest
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.run.parts import Part
from ernie_rna.structures.formats.by_extension import format_ct
from tests.conftest import lively
from tests.golden_folder import GOLDEN

needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)
NAMES = ("trna_arg", "rrna_5s")


@pytest.fixture(scope="session")
def heads():
    """Tensors that the authors' code computed for NAMES, under the keys KIND.NAME.TENSOR."""
    return load_file(GOLDEN / "tiny_heads_expected.safetensors")


@pytest.fixture
def rnas(sequences):
    """All golden sequences except those with characters that are not allowed in FASTA."""
    return {name: text for name, text in sequences.items() if name not in ("mlm", "unknown")}


@pytest.fixture
def check_golden(heads, rnas):
    """A function that compares structures of `rnas` and their contacts with the authors'."""

    def check(folds, kind, tolerance):
        folds = {folded.id: folded for folded in folds}
        assert list(folds) == list(rnas)
        texts = json.loads((GOLDEN / "tiny_structures.json").read_text())
        for name in NAMES:
            contact = heads[f"{kind}.{name}.contact"].numpy()
            np.testing.assert_allclose(folds[name].matrix, contact, rtol=0, atol=tolerance)
            assert format_ct(folds[name].structure) == texts[f"{kind}.{name}"]

    return check


@pytest.fixture(params=["scores", "head"])
def folding_model(config, request):
    """An encoder, of which `fold` uses the attention scores, and a model with a structure head."""
    if request.param == "scores":
        return lively(ErnieRnaModel(config, add_pooling_layer=False)).eval()
    settings = {**config.to_dict(), "pair_blocks": 1, "pair_calibration": [0.5, -1.0]}
    return lively(ErnieRnaForSecondaryStructure(ErnieRnaConfig(**settings))).eval()


def random_rnas(*lengths):
    """Random sequences of different lengths n by their ids, which are r and n."""
    generator = np.random.default_rng(0)
    return {f"r{n}": "".join(generator.choice(list("ACGU"), n)) for n in lengths}


@pytest.fixture
def killed_after(monkeypatch):
    """A context that interrupts a run, as a kill would, after `count` chunks are stored."""

    @contextlib.contextmanager
    def killed(count):
        put, stored = Part.put, []

        def put_or_die(*arguments):
            if len(stored) == count:
                raise KeyboardInterrupt
            stored.append(arguments)
            put(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Part, "put", put_or_die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return killed
