"""Prints what became of the inputs once the long run has ended."""

import pytest

from tests.fuzz.campaign import Outcome, table

_OUTCOMES: list[Outcome] = []


@pytest.fixture
def outcomes() -> list[Outcome]:
    """Takes what a campaign has found; the table of all is printed at the end."""
    return _OUTCOMES


def pytest_terminal_summary(terminalreporter):
    if _OUTCOMES:
        terminalreporter.write_line(table(_OUTCOMES))
