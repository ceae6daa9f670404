"""The fixture for a full disk, shared with the tests of runs."""

from tests.run.conftest import file_limit  # noqa: F401
