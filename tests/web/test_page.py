"""The page as Gradio has it: no connections elsewhere, and errors in our words."""

import pytest

pytest.importorskip("gradio")

import gradio

from ernie_rna.sequences.fasta import InputError
from ernie_rna.web.page import _Page
from ernie_rna.web.style import FONTS, shown
from ernie_rna.web.tasks import Result


@pytest.fixture
def page(desk):
    return _Page(desk, at_once=2)


def test_all_that_computes_shares_one_queue(page):
    config = page.blocks.get_config_file()
    queued = [one for one in config["dependencies"] if one["queue"]]
    # fold, draw, draw another, map, substitutions, embeddings; four checks, and the upload
    assert len(queued) == 11
    functions = [one for one in page.blocks.fns.values() if one.concurrency_id == "models"]
    assert {one.concurrency_limit for one in functions} == {2}
    assert len(functions) == 6


def test_nothing_is_fetched_from_elsewhere(page):
    assert not page.blocks.analytics_enabled
    theme = gradio.themes.Default(**FONTS)
    assert theme._stylesheets == []


def test_errors_are_shown_without_markup(page):
    def fails():
        raise InputError("<b>\nis no nucleotide code")

    with pytest.raises(gradio.Error) as raised:
        page._said(fails)()
    assert raised.value.message == "&lt;b&gt; is no nucleotide code"
    assert not raised.value.print_exception


def test_choices_follow_the_text(page):
    choices = page._choices(">a\nACGU\n>b\nACGU", "b")
    assert ([value for _, value in choices.choices], choices.value) == (["a", "b"], "b")
    assert page._choices(">c\nACGU", "b").value == "c"
    assert page._choices("", "b").value is None


def test_pictures_say_what_they_show(tmp_path):
    picture = tmp_path / "a.svg"
    picture.write_text("<svg/>")
    (html,) = shown(Result('"<one>"', [picture, tmp_path / "b.npz"]), "loops")
    assert 'alt="loops: &quot;&lt;one&gt;&quot;"' in html
    assert 'tabindex="0"' in html
