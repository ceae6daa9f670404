"""The authors' released checkpoint, for whoever has it.

    ERNIE_RNA_CHECKPOINT=ERNIE-RNA_pretrain.pt python -m pytest -m checkpoint

ERNIE_RNA_CLS_EMBEDDING names their published cls_embedding.npy, to be compared as well.
"""

import os

import pytest

import ernie_rna
from ernie_rna.verify import PUBLISHED_BAR, compare_with_published, has_weights_of

CHECKPOINT = os.environ.get("ERNIE_RNA_CHECKPOINT")
CLS_EMBEDDING = os.environ.get("ERNIE_RNA_CLS_EMBEDDING")

pytestmark = [
    pytest.mark.checkpoint,
    pytest.mark.skipif(CHECKPOINT is None, reason="needs the released checkpoint"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ernie_rna.convert(CHECKPOINT, tmp_path_factory.mktemp("released") / "ERNIE-RNA").path


def test_it_is_converted_to_the_bit(folder):
    assert has_weights_of(folder, CHECKPOINT)


@pytest.mark.skipif(CLS_EMBEDDING is None, reason="needs the published embeddings")
def test_the_published_embeddings(folder):
    differences = compare_with_published(folder, CLS_EMBEDDING)
    assert all((differences[case] <= PUBLISHED_BAR).all() for case in ("eager", "sdpa"))
