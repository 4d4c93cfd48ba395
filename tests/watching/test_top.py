"""`pqjax top`: columns that fit, rates since the last look, and nothing that steers a terminal."""

import argparse

import pytest

from pqjax.cli.top import _heading, _sessions, table
from pqjax.cli.watch import add_options, watching
from pqjax.errors import PeerGone

ROW = {
    "client": "127.0.0.1:1",
    "owner": "127.0.0.1",
    "model": "net",
    "doing": "idle",
    "prepared": 0,
}


def state(**changes):
    row = ROW | {"seconds": 10.0, "sent_bytes": 30_000_000, "received_bytes": 5_000_000} | changes
    return {"sessions": [row], "models": ["net"], "workers": [{}, {}], "stored": 4, "version": "1"}


def test_rates_are_since_the_last_look_and_of_a_new_session_since_it_began():
    (session,) = _sessions(state(), "here")

    first = table([session], {}, 1.0)[1].split()
    second = table([session], {session: (10_000_000, 4_000_000)}, 2.0)[1].split()

    assert first == ["127.0.0.1:1", "net", "10", "30.00", "5.00", "3.00", "0.50", "idle"]
    assert second[5:7] == ["10.00", "0.50"]


def test_sessions_of_two_workers_are_two():
    (one,), (two,) = (_sessions(state(worker=worker), "here") for worker in (1, 2))

    assert one != two and table([two], {one: (0, 0)}, 1.0)[1].split()[5] == "3.00"


def test_columns_line_up():
    rows = [
        *_sessions(state(), "here"),
        *_sessions(state(client="[::1]:65535", model="m" * 30), "here"),
    ]

    head, one, two = table(rows, {}, 1.0)

    assert one.index("idle") == two.index("idle") == head.index("does")


def test_nothing_in_a_state_steers_the_terminal():
    nasty = "\x1b[2J\nfake\u202e" + "a" * 9999
    (session,) = _sessions(state(client=nasty, model=nasty, doing=nasty), "here")

    lines = table([session], {}, 1.0) + [_heading(state() | {"models": [nasty], "version": nasty})]

    assert all(line.isprintable() and len(line) < 2000 for line in lines)


def test_the_heading_says_what_the_server_has():
    heading = _heading(state() | {"ready": False})

    for words in ("sessions: 1", "stopping", "models: net", "workers: 2", "preparations stored: 4"):
        assert words in heading


@pytest.mark.parametrize("wrong", [{"client": 3}, {"seconds": "3"}, {"sent_bytes": None}])
def test_a_state_of_something_else_is_refused(wrong):
    with pytest.raises(PeerGone, match="as no pqjax server does"):
        _sessions(state(**wrong), "here")


def test_the_options_make_what_they_ask_for(capsys):
    made = argparse.ArgumentParser()
    add_options(made)

    watch = watching(made.parse_args(["--log", "json", "--metrics", "127.0.0.1:0"]))
    with watch.door(lambda: {"sessions": []}, lambda: True):
        watch.events.noted("127.0.0.1:1", "a note")
    with watching(made.parse_args([])).door(lambda: {}, lambda: True):
        pass

    watched, noted = capsys.readouterr().err.splitlines()
    assert '"event": "watched", "address": "127.0.0.1:' in watched and '"text": "a note"' in noted
    with pytest.raises(SystemExit):
        made.parse_args(["--log", "xml"])
    capsys.readouterr()
