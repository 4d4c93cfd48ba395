"""What long commands say first, and how they count."""

import io
import json
import sys

import pytest

from experiments import progress, record

NAMES = ("a", "b", "c")


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """The last result of a command, with the seconds of two of its stages."""
    monkeypatch.setattr(record, "into", tmp_path)
    before = {"a": 30.0, "b": 90.0, "old": 1000.0}
    (tmp_path / "net.json").write_text(json.dumps({"runs": [], "stages": before}))


def test_it_says_what_comes_and_how_long_it_took_before_anything_begins(timed, capsys):
    took: dict[str, float] = {}
    found = progress.stages("net", "a network between two processes", NAMES, took)

    assert next(found) == "a"
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "exp-net: a network between two processes"
    assert second == (
        "exp-net: 3 stages, about 3 minutes, by the last result, 1 of them by a guess: a; b; c"
    )
    assert third == "exp-net: a ... (1 of 3, about 3 minutes left)"
    assert list(found) == ["b", "c"] and list(took) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[-1] == ("exp-net: c ... (3 of 3, about 60 s left)")


def test_what_nobody_timed_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LATEST", tmp_path)
    monkeypatch.setattr(record, "into", tmp_path)

    assert list(progress.stages("never-recorded", "something", NAMES, {})) == list(NAMES)
    said = capsys.readouterr().err
    assert "nobody has recorded" in said and "left" not in said


def test_a_terminal_gets_a_bar_that_moves_with_stages(timed, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)

    assert list(progress.stages("net", "a network", NAMES, {})) == list(NAMES)
    shown = screen.getvalue()
    for part in (" 17 %", " 67 %", "100 %"):  # 30, 120 and 180 of 180 seconds
        assert part in shown
    assert "..." not in shown and " left" in shown
