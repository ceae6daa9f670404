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


@pytest.mark.checkpoint
@pytest.mark.skipif(CHECKPOINT is None, reason="needs the released checkpoint")
def test_it_is_converted_to_the_bit_and_gives_the_published_embeddings(tmp_path):
    folder = ernie_rna.convert(CHECKPOINT, tmp_path / "ERNIE-RNA").path
    assert has_weights_of(folder, CHECKPOINT)
    if CLS_EMBEDDING is None:
        pytest.skip("needs the published embeddings")
    differences = compare_with_published(folder, CLS_EMBEDDING)
    assert all((differences[case] <= PUBLISHED_BAR).all() for case in ("eager", "sdpa"))
