"""The version matrix: how results are read and shown; nothing is installed here."""

import pytest

from scripts import check_versions
from scripts.check_versions import InstallError, Result, format_row, read_report

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_skipped"><skipped/></testcase>
<testcase classname="tests.test_a" name="test_bad"><failure/></testcase>
<testcase classname="tests.test_b" name="test_broken"><error/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(check_versions, "ROOT", tmp_path)
    monkeypatch.setattr(check_versions, "COMPAT", tmp_path / ".compat")


@pytest.fixture
def checked(monkeypatch):
    """The versions that were checked; 5.0.0 fails."""
    seen = []

    def check(transformers, torch, torch_index, tests):
        seen.append((transformers, torch))
        assert tests == ["-m", "core and not slow"]
        return Result(passed=2, failed=int(transformers == "5.0.0"))

    monkeypatch.setattr(check_versions, "check", check)
    return seen


def test_reports_are_counted(tmp_path):
    path, log = tmp_path / "report.xml", tmp_path / "report.log"
    path.write_text(REPORT)
    result = read_report(path, log, 2.0)
    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)
    assert result.failures == ("tests.test_a::test_bad", "tests.test_b::test_broken")
    assert not result.good


def test_what_did_not_run_is_no_success(tmp_path):
    path, log = tmp_path / "report.xml", tmp_path / "report.log"
    assert "did not finish: see report.log" in read_report(path, log, 0.0).problem
    path.write_text("<testsuites/>")
    assert "no test ran" in read_report(path, log, 0.0).problem
    assert not Result(skipped=3).good


def test_rows_name_what_failed():
    row = format_row("5.0.0", "2.13.0", Result(1, 1, failures=("tests.test_a::test_bad",)))
    assert row.split() == ["5.0.0", "2.13.0", "1", "1", "0", "0", "tests.test_a::test_bad"]
    assert "not installed" in format_row("9.9.9", "2.13.0", Result(problem="not installed: no"))


def test_a_failure_ends_the_run(checked):
    assert check_versions.main(["--versions", "4.41.2:2.4.1", "5.0.0", "5.23.0"]) == 1
    assert checked == [("4.41.2", "2.4.1"), ("5.0.0", check_versions.TORCH)]


def test_all_versions_run_if_asked(checked):
    assert check_versions.main(["--keep-going", "--versions", "5.0.0", "5.23.0"]) == 1
    assert [transformers for transformers, _ in checked] == ["5.0.0", "5.23.0"]
    assert check_versions.main(["--versions", "5.23.0"]) == 0


def test_the_default_covers_the_promised_range(checked):
    versions = [version.partition(":") for version in check_versions.VERSIONS]
    assert versions[0][0] == "4.41.2"
    assert {"5.0.0", "5.3.0", "5.23.0"} <= {transformers for transformers, _, _ in versions}
    assert "2.4.1" in {torch for _, _, torch in versions}


def test_what_cannot_be_installed_is_a_problem(monkeypatch):
    def refuse(*arguments):
        raise InstallError("ERROR: No matching distribution found for transformers==9.9.9")

    monkeypatch.setattr(check_versions, "install", refuse)
    result = check_versions.check("9.9.9", "2.13.0", None, [])
    assert "No matching distribution" in result.problem
    assert not result.good
