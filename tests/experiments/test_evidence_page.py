"""The page of evidence is made of the rows that tests recorded, and of nothing else."""

import json
import os
import pathlib
import subprocess
import sys

import evidence as rows_of_evidence
import pytest

from experiments import evidence, record

COMMITTED = record.RESULTS


def test_the_page_is_the_report_of_the_committed_rows():
    tree = json.loads((COMMITTED / "evidence.json").read_text())

    assert evidence.PAGE.read_text() == evidence.report(tree)


def test_every_kind_that_tests_record_has_a_section():
    kinds = set(rows_of_evidence.KINDS)

    assert kinds == set(evidence.SUITES) == set(evidence._ABOUT)


def test_rows_are_written_where_they_are_asked_for_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.delenv("PQJAX_EVIDENCE", raising=False)
    rows_of_evidence.record("fuzz", "frames", "held")
    monkeypatch.setenv("PQJAX_EVIDENCE", str(tmp_path))

    rows_of_evidence.record("fuzz", "frames", "held", inputs=7)
    with pytest.raises(ValueError, match="evidence is of one of"):
        rows_of_evidence.record("gossip", "frames", "held")

    assert [path.name for path in tmp_path.iterdir()] == ["fuzz.jsonl"]
    expected = {"kind": "fuzz", "case": "frames", "outcome": "held", "inputs": 7}
    assert evidence.collected(tmp_path, "fuzz") == [expected]


def test_rows_of_several_processes_never_mix(tmp_path):
    program = "import evidence, sys\n"
    program += (
        "for i in range(200): evidence.record('service', f'{sys.argv[1]} {i}', 'held', x='x' * 300)"
    )
    tests = pathlib.Path(rows_of_evidence.__file__).parent
    made = [
        subprocess.Popen(
            [sys.executable, "-c", program, name],
            env={**os.environ, "PQJAX_EVIDENCE": str(tmp_path), "PYTHONPATH": str(tests)},
        )
        for name in "ab"
    ]

    assert [process.wait() for process in made] == [0, 0]
    assert len(evidence.collected(tmp_path, "service")) == 400


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "LATEST", tmp_path / "latest")
    return tmp_path / "results"


def fault(group, case, outcome="survived", seconds=1.0, limit_s=0.0):
    about = {"group": group, "client": "PeerGone", "server": "done"}
    return {"case": case, "outcome": outcome, **about, "seconds": seconds, "limit_s": limit_s}


def folder_of(path, kind, rows):
    path.mkdir()
    (path / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_that_are_given_are_added_and_take_the_place_of_their_cases(results, tmp_path):
    first = folder_of(tmp_path / "1", "fuzz", [{"case": "plan", "outcome": "held", "inputs": 10}])
    again = folder_of(tmp_path / "2", "fuzz", [{"case": "plan", "outcome": "held", "inputs": 90}])
    others = [fault("cut", "before a/b: x", seconds=2.5, limit_s=2.0), fault("cut", "c", "failed")]
    faults = folder_of(tmp_path / "3", "faults", others)

    for folder in (first, again, faults):
        assert evidence.main(["--record", "--only", "none", "--rows", folder]) == 0

    text = (results / "evidence.md").read_text()
    found = [(row["kind"], row["case"]) for row in record.read("evidence")["runs"]]
    assert found == [("faults", "before a/b: x"), ("faults", "c"), ("fuzz", "plan")]
    assert "90" in text and "1 of 2 cases survived" in text and "came 0.5 s after it" in text
    assert "failed: 1, survived: 1" in text


def test_kinds_that_another_checkout_has_run_are_taken_whole(results, tmp_path, capsys):
    mine = folder_of(tmp_path / "1", "fuzz", [{"case": "plan", "outcome": "held"}])
    old = folder_of(tmp_path / "2", "statistics", [{"case": "shares", "outcome": "nothing seen"}])
    ran = {"statistics": {"commit": "1234567", "seconds": 60.0, "passed": True}}
    theirs = {"runs": [{"kind": "statistics", "case": "views", "outcome": "nothing seen"},
                       {"kind": "fuzz", "case": "model", "outcome": "held"}]}  # fmt: skip
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"config": {"kinds": ran}, **theirs}))
    evidence.main(["--record", "--only", "none", "--rows", mine, "--rows", old])

    assert evidence.main(["--record", "--only", "none", "--kinds", str(path)]) == 0

    tree = record.read("evidence")
    assert [row["case"] for row in tree["runs"]] == ["plan", "views"]
    assert tree["config"]["kinds"] == ran and "1234567" in (results / "evidence.md").read_text()
    path.write_text("[]")
    capsys.readouterr()
    assert evidence.main(["--record", "--only", "none", "--kinds", str(path)]) == 1
    assert "is no result of evidence" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "no row", '["case"]'])
def test_a_folder_without_rows_is_one_line_and_status_one(content, results, tmp_path, capsys):
    (tmp_path / "fuzz.jsonl").write_text(content)

    assert evidence.main(["--only", "none", "--rows", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
