"""The page as Gradio has it: what it opens with, and errors in our words; no server runs."""

import socket
from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip("gradio")
pytest.importorskip("pebble")

import gradio

from ernie_rna.sequences.fasta import InputError
from ernie_rna.web.page import CACHE, FONTS, Page, _showing_errors
from ernie_rna.web.requests import Description, Requests, Result, TaskError
from ernie_rna.web.server import _check_port, serve
from tests.web.conftest import LIMITS


@pytest.fixture
def page(monkeypatch, tmp_path):
    """A page whose every request gives the same."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = tmp_path / "loops.svg"
    picture.write_text("<svg/>")
    result = Result({picture: "20 pairs of <b>"}, [picture], ">a\nACGU\n....")
    requests = Requests({"small": "/here"}, LIMITS, tmp_path)
    monkeypatch.setattr(requests, "run", lambda task, **given: result)
    requests.models["small"] = Description("a small one", 100, 3, 12, True)
    return Page(requests)


def parts(page, kind):
    return [one for one in page.blocks.blocks.values() if isinstance(one, kind)]


def test_all_that_computes_shares_one_queue_and_nothing_is_fetched_or_kept(page):
    config = page.blocks.get_config_file()
    queued = [one for one in config["dependencies"] if one["queue"]]
    # fold, fold for another drawing or prior, map, substitutions, embeddings; their checks; the
    # upload
    assert len(queued) == 13
    functions = [one for one in page.blocks.fns.values() if one.concurrency_id == "models"]
    assert {one.concurrency_limit for one in functions} == {2}
    assert len(functions) == 6
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    assert not page.blocks.analytics_enabled
    assert gradio.themes.Default(**FONTS)._stylesheets == []
    assert page.blocks.delete_cache == CACHE
    assert sum(CACHE) <= 3600  # seconds


def test_errors_are_shown_without_markup():
    with pytest.raises(gradio.Error) as raised, _showing_errors():
        raise InputError("<b>\nis not a nucleotide code")
    assert raised.value.message == "&lt;b&gt; is not a nucleotide code"
    assert not raised.value.print_exception


@pytest.mark.parametrize(
    ("text", "ids", "value"),
    [(">a\nACGU\n>b\nACGU", ["a", "b"], "b"), (">c\nACGU", ["c"], "c"), ("", [], None)],
)
def test_choices_follow_the_text(page, text, ids, value):
    choices = page._choices(text, "b")
    assert ([id for _, id in choices.choices], choices.value) == (ids, value)


def test_it_opens_with_an_example_which_is_folded_if_it_can_be(page):
    assert page.text.value.startswith(">hammerhead ")
    assert page.rna.value == "hammerhead"
    assert parts(page, gradio.Textbox)[1].value == ">a\nACGU\n...."
    shown = [type(one).__name__ for one in parts(page, (gradio.HTML, gradio.File))]
    assert shown == ["HTML", "File"] * 4
    html = parts(page, gradio.HTML)[0].value
    assert html.count('<img alt="loops: 20 pairs of &lt;b&gt;"') == 1
    assert "<figcaption>20 pairs of &lt;b&gt;</figcaption>" in html
    assert 'tabindex="0"' in html

    page.requests.run = mock.Mock(side_effect=TaskError("too slow"))
    page = Page(page.requests)
    assert page.text.value.startswith(">hammerhead ")
    assert not parts(page, gradio.HTML)[0].value


def test_what_is_shown_is_cleared_before_a_question_is_checked(page):
    checks = [one for one in page.blocks.fns.values() if one.types_generator]
    assert len(checks) == 6
    for one in checks:
        steps = one.fn("?", "small", "a", *["none", "as folded", 1][: len(one.inputs) - 3])
        *text, files = next(steps)
        assert not any(text)
        assert files.visible is False
        with pytest.raises(gradio.Error, match="is not a nucleotide code"):
            next(steps)


def test_the_prior_is_none_unless_it_is_chosen(page):
    (prior,) = (one for one in parts(page, gradio.Radio) if one.label == "Energy prior")
    assert ([value for _, value in prior.choices], prior.value) == (["none", "ViennaRNA"], "none")
    asked = [page._ask_fold(">a\nACGU", "small", "a", value) for _, value in prior.choices]
    assert [one["prior"] for one in asked] == [None, "vienna"]
    functions = [one for one in page.blocks.fns.values() if prior in one.inputs]
    assert len(functions) == 8  # fold, for another drawing or prior, and the map; their checks
    # Without weights for it there is no choice.
    models = page.requests.models
    models["small"] = replace(models["small"], has_prior=False)
    assert not Page(page.requests).prior.visible
    with pytest.raises(InputError, match="small has no weights for an energy prior"):
        page._ask_fold(">a\nACGU", "small", "a", "ViennaRNA")


@pytest.mark.parametrize(
    ("layer", "head", "asked"),
    [
        ("as folded", 3, ["map", None, None, "vienna"]),
        (0, "all heads", ["heads", 0, None, None]),
        (2, 7, ["map", 2, 7, None]),
        (None, None, ["map", None, None, None]),
    ],
)
def test_maps_that_can_be_chosen(page, layer, head, asked):
    found = page._ask_map(">a\nACGU", "small", "a", "ViennaRNA", layer, head)
    assert [found.get(name) for name in ("what", "layer", "head", "prior")] == asked


def test_two_models_of_one_name():
    for module in ("matplotlib", "pebble", "RNA"):
        pytest.importorskip(module)
    with pytest.raises(ValueError, match=r"two models have the same name \(mini, mini\)"):
        serve(["mini", "mini"])


def test_a_port_in_use_is_showing_errors():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*in use; --port names another"):
            _check_port("127.0.0.1", port)
