"""Files that appear whole: whoever else writes there, and whatever has a name like theirs."""

import contextlib

import pytest

from ernie_rna.run.outputs import replacing


def test_of_two_writers_the_last_one_is_there_whole(tmp_path):
    path = tmp_path / "out.tsv"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as fast:
            fast.write_text("fast")
        assert path.read_text() == "fast"
        with slow.open("a") as file:
            file.write("er")
    assert path.read_text() == "slower"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_a_like_name_is_left_alone(tmp_path):
    others = {tmp_path / "out.tsv.tmp", tmp_path / ".out.tsv.tmp"}
    for other in others:
        other.write_text("mine")
    with contextlib.suppress(ZeroDivisionError), replacing(tmp_path / "out.tsv") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert set(tmp_path.iterdir()) == others
    with replacing(tmp_path / "out.tsv") as path:
        path.write_text("whole")
    assert {other.read_text() for other in others} == {"mine"}
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "out.tsv"}


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(tmp_path, there):
    target = tmp_path / "folder" / "target.tsv"
    target.parent.mkdir()
    if there:
        target.write_text("before")
    link = tmp_path / "link.tsv"
    link.symlink_to(target)
    with replacing(link) as path:
        path.write_text("after")
    assert link.is_symlink()
    assert target.read_text() == "after"
