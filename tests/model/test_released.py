"""The authors' released checkpoint, for whoever has it.

    ERNIE_RNA_CHECKPOINT=ERNIE-RNA_pretrain.pt python -m pytest -m checkpoint

ERNIE_RNA_CLS_EMBEDDING names their published cls_embedding.npy, to be compared as well.
"""

import os

import pytest

from ernie_rna.convert.export import convert
from ernie_rna.parity.models import Models, belongs_to
from ernie_rna.parity.published import compare_with_published

CHECKPOINT = os.environ.get("ERNIE_RNA_CHECKPOINT")
CLS_EMBEDDING = os.environ.get("ERNIE_RNA_CLS_EMBEDDING")

pytestmark = [
    pytest.mark.checkpoint,
    pytest.mark.skipif(CHECKPOINT is None, reason="needs the released checkpoint"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert(CHECKPOINT, tmp_path_factory.mktemp("released") / "ERNIE-RNA").path


def test_it_is_converted_to_the_bit(folder):
    assert belongs_to(folder, CHECKPOINT)


@pytest.mark.skipif(CLS_EMBEDDING is None, reason="needs the published embeddings")
def test_the_published_embeddings(folder):
    differences = compare_with_published(Models(folder), CLS_EMBEDDING)
    assert not any(difference.missed for difference in differences)
