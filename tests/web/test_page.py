"""The page as Gradio has it: no connections elsewhere, and errors in our words."""

from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

import gradio

from ernie_rna.sequences.fasta import InputError
from ernie_rna.web.page import CACHE, FONTS, Page
from ernie_rna.web.pool import TaskError
from ernie_rna.web.requests import Requests
from ernie_rna.web.tasks import Description, Result
from tests.web.conftest import LIMITS


@pytest.fixture
def page(monkeypatch, tmp_path):
    """A page whose every request gives the same."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = tmp_path / "loops.svg"
    picture.write_text("<svg/>")
    result = Result({picture: "20 pairs of <b>"}, [picture], ">a\nACGU\n....")
    pool = SimpleNamespace(run=lambda task, **given: result)
    models = {"small": Description("a small one", 100, 3, 12)}
    return Page(Requests(pool, models, LIMITS, tmp_path))


def test_all_that_computes_shares_one_queue(page):
    config = page.blocks.get_config_file()
    queued = [one for one in config["dependencies"] if one["queue"]]
    # fold, fold for another drawing, map, substitutions, embeddings; their checks; the upload
    assert len(queued) == 11
    functions = [one for one in page.blocks.fns.values() if one.concurrency_id == "models"]
    assert {one.concurrency_limit for one in functions} == {2}
    assert len(functions) == 5
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}


def test_nothing_is_fetched_from_elsewhere(page):
    assert not page.blocks.analytics_enabled
    theme = gradio.themes.Default(**FONTS)
    assert theme._stylesheets == []


def test_files_are_gone_after_an_hour(page):
    assert page.blocks.delete_cache == CACHE
    assert sum(CACHE) <= 3600


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


def parts(page, kind):
    return [one for one in page.blocks.blocks.values() if isinstance(one, kind)]


def test_it_opens_with_an_example_folded_and_drawn(page):
    assert page.text.value.startswith(">tRNA-Phe ")
    assert page.rna.value == "tRNA-Phe"
    assert parts(page, gradio.Textbox)[1].value == ">a\nACGU\n...."
    assert parts(page, gradio.HTML)[0].value.count("<img alt=") == 1


def test_it_opens_where_the_example_cannot_be_folded(page, monkeypatch):
    def fails(*given, **more):
        raise TaskError("too slow")

    page.requests.pool.run = fails
    page = Page(page.requests)
    assert page.text.value.startswith(">tRNA-Phe ")
    assert not parts(page, gradio.HTML)[0].value


def test_what_is_shown_is_cleared_where_there_is_no_answer(page):
    functions = page.blocks.fns.values()
    failures = [one for one in functions if one.trigger_only_on_failure]
    answers = [one for one in functions if one.concurrency_id == "models"]
    for one in answers:
        clearing = [clear for clear in failures if clear.outputs == one.outputs]
        assert len(clearing) % 2 == 0
        cleared = clearing[0].fn()
        assert cleared[0] == ""
        assert cleared[1].visible is False


def test_maps_that_can_be_chosen(page):
    def ask(*choice):
        asked = page._ask_map(">a\nACGU", "small", "a", *choice)
        return {name: asked.get(name) for name in ("what", "layer", "head")}

    assert ask("as folded", 3) == {"what": "map", "layer": None, "head": None}
    assert ask(0, "all heads") == {"what": "heads", "layer": 0, "head": None}
    assert ask(2, 7) == {"what": "map", "layer": 2, "head": 7}


def test_pictures_say_what_they_show(page):
    html = parts(page, gradio.HTML)[0].value
    assert 'alt="loops: 20 pairs of &lt;b&gt;"' in html
    assert "<figcaption>20 pairs of &lt;b&gt;</figcaption>" in html
    assert 'tabindex="0"' in html
