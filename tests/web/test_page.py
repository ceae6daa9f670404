"""The page: its elements, its first contents and its errors; no server runs."""

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
    """A page on which every request has the same result."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = tmp_path / "loops.svg"
    picture.write_text("<svg/>")
    result = Result({picture: "20 pairs of <b>"}, [picture], ">a\nACGU\n....")
    requests = Requests({"small": "/here"}, LIMITS, tmp_path)
    monkeypatch.setattr(requests, "run", lambda task, **given: result)
    requests.models["small"] = Description("a small one", 100, 3, 12, True)
    return Page(requests)


def parts(page, kind):
    return [block for block in page.blocks.blocks.values() if isinstance(block, kind)]


def test_all_computations_share_one_queue_and_nothing_is_fetched_or_kept(page):
    events = page.blocks.get_config_file()["dependencies"]
    # Six computations (fold, fold for another drawing or prior, map, substitutions, embeddings), a
    # check for each, and the upload.
    assert sum(event["queue"] for event in events) == 13
    limits = [
        fn.concurrency_limit for fn in page.blocks.fns.values() if fn.concurrency_id == "models"
    ]
    assert limits == [2] * 6
    assert {event["api_visibility"] for event in events} == {"private"}
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
def test_the_rnas_to_choose_are_those_of_the_text(page, text, ids, value):
    choices = page._choices(text, "b")
    assert ([id for _, id in choices.choices], choices.value) == (ids, value)


def test_the_page_opens_with_an_example_and_its_structure_if_folding_succeeds(page):
    assert page.text.value.startswith(">hammerhead ")
    assert page.rna.value == "hammerhead"
    assert parts(page, gradio.Textbox)[1].value == ">a\nACGU\n...."
    results = [type(part).__name__ for part in parts(page, (gradio.HTML, gradio.File))]
    assert results == ["HTML", "File"] * 4
    html = parts(page, gradio.HTML)[0].value
    assert html.count('<img alt="loops: 20 pairs of &lt;b&gt;"') == 1
    assert "<figcaption>20 pairs of &lt;b&gt;</figcaption>" in html
    assert 'tabindex="0"' in html

    page.requests.run = mock.Mock(side_effect=TaskError("too slow"))
    page = Page(page.requests)
    assert page.text.value.startswith(">hammerhead ")
    assert not parts(page, gradio.HTML)[0].value


def test_old_results_are_cleared_before_the_input_is_checked(page):
    checks = [function for function in page.blocks.fns.values() if function.types_generator]
    assert len(checks) == 6
    for check in checks:
        steps = check.fn("?", "small", "a", *["none", "as folded", 1][: len(check.inputs) - 3])
        *text, files = next(steps)
        assert not any(text)
        assert files.visible is False
        with pytest.raises(gradio.Error, match="is not a nucleotide code"):
            next(steps)


def test_the_prior_is_none_unless_it_is_chosen(page):
    (prior,) = (radio for radio in parts(page, gradio.Radio) if radio.label == "Energy prior")
    assert ([value for _, value in prior.choices], prior.value) == (["none", "ViennaRNA"], "none")
    requests = [page._ask_fold(">a\nACGU", "small", "a", value) for _, value in prior.choices]
    assert [request["prior"] for request in requests] == [None, "vienna"]
    # It is an input of fold, of fold for another drawing or prior, of the map, and of their checks.
    assert sum(prior in function.inputs for function in page.blocks.fns.values()) == 8
    # A model without weights for a prior has no such choice.
    models = page.requests.models
    models["small"] = replace(models["small"], has_prior=False)
    assert not Page(page.requests).prior.visible
    with pytest.raises(InputError, match="small has no weights for an energy prior"):
        page._ask_fold(">a\nACGU", "small", "a", "ViennaRNA")


@pytest.mark.parametrize(
    ("layer", "head", "expected"),
    [
        ("as folded", 3, ["map", None, None, "vienna"]),
        (0, "all heads", ["heads", 0, None, None]),
        (2, 7, ["map", 2, 7, None]),
        (None, None, ["map", None, None, None]),
    ],
)
def test_the_choice_of_a_layer_and_a_head_becomes_a_request(page, layer, head, expected):
    request = page._ask_map(">a\nACGU", "small", "a", "ViennaRNA", layer, head)
    assert [request.get(name) for name in ("what", "layer", "head", "prior")] == expected


def test_two_models_with_the_same_name_are_refused():
    for module in ("matplotlib", "pebble", "RNA"):
        pytest.importorskip(module)
    with pytest.raises(ValueError, match=r"two models have the same name \(mini, mini\)"):
        serve(["mini", "mini"])


def test_a_port_in_use_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*in use; --port names another"):
            _check_port("127.0.0.1", port)
