"""A full disk, as tests of runs have it."""

from tests.run.conftest import file_limit  # noqa: F401
