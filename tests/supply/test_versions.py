"""What `make test-versions` and `make audit` are made of; they take minutes, and a network."""

import json
import pathlib
import re
import sys
import tomllib

import audit
import evidence
import pytest
import versions

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
OPTIONAL = PROJECT["optional-dependencies"]
REPORT = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><skipped message="needs CIFAR"/></testcase>
<testcase name="d"><skipped message="collection skipped">could not import 'onnx'</skipped></testcase>
<testcase name="e"><failure message="wrong"/></testcase>
<testcase name="f"><error message="no"/></testcase>
</testsuite></testsuites>"""


def test_every_package_that_is_depended_on_is_called_by_a_test_that_is_there():
    named = [*PROJECT["dependencies"], *(x for extra in versions.EXTRAS for x in OPTIONAL[extra])]

    assert {versions.name_of(x) for x in named} == set(versions.HELD)
    assert {*versions.EXTRAS, *versions.LEFT_OUT, "dev"} == set(OPTIONAL)
    for path in versions.chosen():
        assert (ROOT / path).exists(), path


def test_what_is_installed_has_bounds_below_and_names_no_extra_of_this_project():
    wanted = versions.requirements(PROJECT)

    assert all(">=" in each for each in wanted)
    assert {"jax", "onnx", "pytest"} <= {versions.name_of(x) for x in wanted}
    assert not {"pqjax", "ruff", "pyright", "ray"} & {versions.name_of(x) for x in wanted}


def test_every_bound_above_says_why():
    for line in TEXT.splitlines():
        if re.search(r'"[\w\[\]-]+[^"]*<[^"]*"', line) and "--" not in line:
            assert re.search(r'",?\s+# .{10}', line), line


def test_a_test_that_was_skipped_for_want_of_a_package_is_told_from_others(tmp_path):
    (tmp_path / "tests.xml").write_text(REPORT)

    found = versions.counted(tmp_path / "tests.xml")

    assert found == {"passed": 2, "failed": 2, "skipped": 2, "wanting": 1}


def test_an_audit_tells_what_is_known_and_what_was_not_looked_up():
    vulnerable = {
        "name": "a",
        "version": "1",
        "vulns": [{"id": "CVE-1", "fix_versions": ["2", "3"]}],
    }
    rest = [{"name": "b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "not there"}]
    rest += [{"name": "pqjax", "skip_reason": "not there"}]

    found, looked, skipped = audit.told(json.dumps({"dependencies": [vulnerable, *rest]}))

    assert (found, looked, skipped) == (["a 1: CVE-1, mended in 2, 3"], 2, ["c"])


def test_an_audit_without_its_tool_or_an_answer_is_none(tmp_path, monkeypatch):
    tool = tmp_path / "pip-audit"
    tool.write_text("#!/bin/sh\necho 'no route to the service' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    with pytest.raises(audit.Unasked, match="no route to the service"):
        audit.asked(str(tmp_path), "pypi")


def test_rows_of_evidence_are_lines_of_the_kinds_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PQJAX_EVIDENCE", str(tmp_path / "rows"))

    evidence.record("versions", "lowest", "passed", seconds=1.5)
    evidence.record("versions", "newest", "failed")

    lines = (tmp_path / "rows" / "versions.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["lowest", "newest"]
    with pytest.raises(ValueError, match="got 'others'"):
        evidence.record("others", "a", "b")


def test_an_audit_that_looked_nothing_up_is_none(monkeypatch, capsys):
    unknown = json.dumps({"dependencies": [{"name": "a", "skip_reason": "not there"}]})
    monkeypatch.setattr(audit, "asked", lambda folder, service: unknown)
    monkeypatch.setattr("sys.argv", ["audit.py", sys.executable])

    assert audit.main() == 2
    assert "NOTHING WAS AUDITED" in capsys.readouterr().err
