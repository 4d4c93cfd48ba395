"""Sessions that are watched: what logs, metrics, the door and `pqjax top` say is what happened."""

import base64
import contextlib
import datetime
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from peers import ended, silent
from serving import GRAPH, HEARING, ROOT, WEIGHTS, X, command_here
from watched import Gate, Watched, across, samples, value

import pqjax
from pqjax.cli import main
from pqjax.engine.store import Store
from pqjax.errors import AddressError, InputError, SessionEnded
from pqjax.planner.plan import REVEAL_LAYER
from pqjax.watching import Door, Log, Metrics, Sinks
from pqjax.wire.address import parse_address
from pqjax.wire.trace import PHASES

TRUE = pqjax.reference(GRAPH, WEIGHTS, X)
HOSTILE = b"\x1b[2J\r\n2026 127.0.0.1:1 session began\n\xe2\x80\xae" * 9


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Two sessions that end well, one that does not, one that fails in the server, and a stranger."""
    store = Store(tmp_path_factory.mktemp("store"))
    found = Watched(store=store)
    with found.running():
        for count in (2, 1):
            with pqjax.connect(found.address, deadline_s=60.0) as session:
                for _ in range(count):
                    np.testing.assert_array_equal(session.infer(X).output, TRUE)
        with pytest.raises(KeyError), pqjax.connect(found.address, deadline_s=60.0) as session:
            session.infer(X)
            session.prepare()
            raise KeyError("of its own")
        with silent(found.address) as stranger:
            stranger.sendall(HOSTILE)
            assert ended(stranger, 10.0)
        found.truth.wait(ends=3, refusals=1)
        found.scraped = found.samples()
        found.told = [found.ask(path)[1] for path in ("/state", "/metrics", "/health")]
    return found


def test_metrics_are_what_the_traces_say(watched):
    now = watched.scraped
    traces = [trace for _, trace, _ in watched.truth.ends if trace is not None]
    assert len(traces) == 2

    for phase in PHASES:
        for at, direction in enumerate(("sent", "received")):
            true = sum(trace.bytes(phase)[at] for trace in traces)
            labels = {"model": "model", "phase": phase, "direction": direction}
            assert value(now, "phase_bytes_total", **labels) == true, (phase, direction)
    asked = sum(e.layer == REVEAL_LAYER for trace in traces for e in trace.entries)
    assert asked == 3
    assert value(now, "answers_total", model="model") == asked + 1  # that of the one that left
    ended = {(dict(at[1:])["result"], dict(at[1:])["reason"]): n for at, n in now.items()
             if at[0] == "pqjax_sessions_ended_total"}  # fmt: skip
    assert ended == {("fine", ""): 2, ("SessionEnded", "left"): 1}
    assert value(now, "sessions", model="model") == 0


def test_bytes_are_those_of_the_connections_however_they_ended(watched):
    for direction in ("sent", "received"):
        true = sum(visit.state[f"{direction}_bytes"] for visit, _, _ in watched.truth.ends)
        found = value(watched.scraped, "bytes_total", model="model", direction=direction)
        assert found == true > 0
        by_phase = {
            at: n for at, n in watched.scraped.items() if at[0] == "pqjax_phase_bytes_total"
        }
        of_phases = sum(n for at, n in by_phase.items() if ("direction", direction) in at)
        assert 0 < of_phases < found  # of two sessions of three, and no greetings


def test_seconds_of_phases_are_those_the_server_tells(watched):
    assert {phase for phase, _, _ in watched.truth.phases} == {"setup", "offline", "online"}
    for name in ("setup", "offline", "online"):
        true = [seconds for phase, seconds, _ in watched.truth.phases if phase == name]
        labels = {"model": "model", "phase": name}
        assert value(watched.scraped, "phase_seconds_count", **labels) == len(true)
        found = value(watched.scraped, "phase_seconds_sum", **labels)
        assert found == pytest.approx(sum(true), rel=1e-9)


def test_refusals_memory_and_what_runs_are_there(watched):
    now = watched.scraped
    (refusal,) = (at for at in now if at[0] == "pqjax_refusals_total")

    assert now[refusal] == 1
    assert refusal[1:] == (("reason", type(watched.truth.refusals[0][1]).__name__),)
    assert value(now, "resident_bytes", process="server") > 1 << 20
    (build,) = (dict(at[1:]) for at in now if at[0] == "pqjax_build_info")
    assert build["version"] == pqjax.__version__


def test_no_label_is_what_a_client_chose(watched):
    clients = {visit.client for visit, _, _ in watched.truth.ends} | {watched.truth.refusals[0][0]}
    owners = {visit.owner for visit, _, _ in watched.truth.ends}
    labels = {pair for at in watched.scraped for pair in at[1:]}

    assert not {text for _, text in labels} & (clients | owners)
    assert {name for name, _ in labels} == {
        "model", "result", "reason", "phase", "direction", "process", "le", "version", "protocol", "jax",
    }  # fmt: skip


def test_json_lines_say_what_happened(watched):
    lines = [json.loads(line) for line in watched.json_lines]
    kinds = [line["event"] for line in lines]
    ends = [line for line in lines if line["event"] == "ended"]

    assert kinds.count("began") == 3 and kinds.count("refused") == 1
    assert kinds.count("done") == len(watched.truth.phases)
    assert [line["session"] for line in ends] == [1, 2, 3]
    assert [line["answers"] for line in ends] == [2, 1, 1]
    for line, (visit, trace, _) in zip(ends, watched.truth.ends, strict=True):
        assert line["client"] == visit.client and line["sent_bytes"] == visit.state["sent_bytes"]
        if trace is not None:
            assert line["phases"]["online"]["sent_bytes"] == trace.bytes("online")[0]
    assert ends[2]["error"]["type"] == "SessionEnded" and ends[2]["error"]["reason"] == "left"
    for line in lines:
        assert datetime.datetime.fromisoformat(line["time"]).tzinfo is not None


def test_lines_of_text_say_when_who_and_what(watched):
    said = [line.split(" ", 2) for line in watched.lines]

    assert all(datetime.datetime.fromisoformat(when).tzinfo is not None for when, _, _ in said)
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", client) for _, client, _ in said)
    whats = [what for _, _, what in said]
    assert whats.count("session began: model") == 3
    sent, received = (
        watched.truth.ends[0][0].state[f"{way}_bytes"] for way in ("sent", "received")
    )
    assert f"session ended: 2 inferences, {sent} bytes out, {received} in" in whats
    assert sum(what.startswith("connection refused: ") for what in whats) == 1


def test_what_a_stranger_sends_steers_no_terminal_and_adds_no_line(watched):
    said = [*watched.lines, *watched.json_lines]

    assert any("connection refused" in line and "x1b[2J" in line for line in watched.lines)
    assert all(line.isprintable() and len(line) < 2000 for line in said)
    assert sum("session began" in line and "refused" not in line for line in watched.lines) == 3


def runs(values):
    """How parts of an array would look if they were told: as numbers, or as bytes."""
    flat = np.asarray(values).reshape(-1)[:64]
    for begin in range(0, len(flat) - 5, 6):
        part = flat[begin : begin + 6]
        if len(set(part.tolist())) > 2:  # not what occurs by itself
            yield str(part.tolist())[1:-1]
            yield json.dumps(part.tolist(), separators=(",", ":"))[1:-1]
            yield str(part)[1:-1].strip()
            for kind in (np.int64, np.int8):
                yield part.astype(kind).tobytes().hex()


def canaries(store):
    """What nobody may be told: input, weights, keys."""
    found = [text for values in (X, *WEIGHTS.values()) for text in runs(values)]
    key = (store / "key").read_bytes()
    return [*found, key.hex(), key.hex()[:16], base64.b64encode(key).decode(), repr(key)[2:-1]]


def told(watched):
    """Everything that anybody was told."""
    records = [json.dumps(record) for record in watched.records]
    return "\n".join([*records, *watched.lines, *watched.json_lines, *watched.told])


def test_nobody_is_told_a_secret(watched):
    secrets, text = canaries(watched.server._store.folder), told(watched)

    assert len(secrets) > 50
    assert [secret for secret in secrets if secret in text] == []
    planted = text + str(X.reshape(-1)[:64].tolist())
    assert any(secret in planted for secret in secrets)


def test_an_internal_error_is_told_by_its_type_alone():
    def fail(where, done, steps):
        raise KeyError("a weight is 0x5ec4e7")

    failing = Watched(progress=fail)
    with failing.running(), pytest.raises(SessionEnded):
        with pqjax.connect(failing.address, deadline_s=60.0) as session:
            session.infer(X)
    failing.truth.wait(ends=1)
    failing.told = []

    assert "internal error in this session: KeyError" in failing.lines[-1]
    assert "5ec4e7" not in told(failing)


def test_a_workers_records_across_a_pipe_make_the_same_of_every_sink(watched):
    lines, json_lines, metrics = [], [], Metrics()
    sinks = Sinks(metrics, Log(lines.append), Log(json_lines.append, "json"))

    for record in across(watched.records, worker=2):
        sinks(record)

    assert lines == watched.lines
    assert [json.loads(x) | {"worker": 2} for x in watched.json_lines] == list(
        map(json.loads, json_lines)
    )
    ours, theirs = samples(metrics.text({}).decode()), watched.scraped
    measured = ("pqjax_resident_bytes",)
    assert {
        at: n for at, n in ours.items() if at[0] not in measured and "created" not in at[0]
    } == {at: n for at, n in theirs.items() if at[0] not in measured and "created" not in at[0]}


def test_a_session_is_seen_while_it_runs_and_health_turns_when_the_server_stops(capsys):
    gate = Gate("online")
    live = Watched(progress=gate)
    with live.running(), contextlib.ExitStack() as undo:
        undo.callback(gate.open.set)
        assert live.ask("/health") == (200, '{"status": "ready"}')
        session = pqjax.connect(live.address, deadline_s=60.0)
        asking = threading.Thread(target=session.infer, args=(X,))
        asking.start()
        assert gate.reached.wait(60)

        now = live.samples()
        assert value(now, "sessions", model="model") == 1
        assert value(now, "phase_seconds_count", model="model", phase="offline") == 1
        assert value(now, "answers_total", model="model") == 0
        assert value(now, "bytes_total", model="model", direction="sent") > 0
        (seen,) = json.loads(live.ask("/state")[1])["sessions"]
        assert seen["doing"].startswith("online") and seen["sent_bytes"] > 0

        assert main(["top", live.door, "--once"]) == 0
        heading, head, row = capsys.readouterr().out.splitlines()
        assert "sessions: 1" in heading and "stopping" not in heading
        assert head.split()[:2] == ["client", "model"] and row.split()[:2] == [
            seen["client"],
            "model",
        ]
        assert f"{seen['sent_bytes'] / 1e6:.2f}" in row.split() and "online" in row
        assert main(["top", live.door, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sessions"][0]["client"] == seen["client"]

        live.server.stop()
        assert live.ask("/health") == (503, '{"status": "stopping"}')
        assert main(["top", live.door, "--once"]) == 0
        assert "stopping" in capsys.readouterr().out.splitlines()[0]
        gate.open.set()
        asking.join(60)
        live.truth.wait(ends=1)
        assert value(live.samples(), "sessions", model="model") == 0
    stopping = [record for record in live.records if record["event"] == "stopping"]
    assert [each["client"] for each in stopping[0]["sessions"]] == [seen["client"]]
    assert any("stopping: nobody is let in any more" in line for line in live.lines)
    assert any("at work: online" in line for line in live.lines)


def test_the_table_is_drawn_anew_until_it_is_interrupted(idle):
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", HEARING, "top", idle.door]
    watching = subprocess.Popen(program, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    drawn = b""
    while drawn.count(b"\x1b[H\x1b[J") < 3:
        drawn += os.read(ours, 4096)
    watching.send_signal(signal.SIGINT)

    assert watching.communicate(timeout=30)[1] == b"" and watching.returncode == 0
    assert drawn.count(b"sessions: 0, models: model") >= 2
    os.close(ours)


@pytest.fixture(scope="module")
def idle():
    with Watched().running() as found:
        yield found


def test_the_door_has_three_pages_to_read_and_no_others(idle):
    assert idle.ask("/")[0] == idle.ask("/state/x")[0] == idle.ask("/../etc/passwd")[0] == 404
    assert idle.ask("/health?from=here")[0] == 200
    assert idle.ask("/health", "HEAD") == (200, "")
    assert idle.ask("/health", "POST")[0] == idle.ask("/metrics", "DELETE")[0] == 501


def test_who_asks_slowly_is_dropped_for_who_comes_later(idle, capsys):
    waiting = [socket.create_connection(parse_address(idle.door), 30) for _ in range(20)]
    for each in waiting:
        each.sendall(b"GET /hea")

    assert idle.ask("/health")[0] == 200
    assert ended(waiting[0], 10.0)
    waiting[-1].sendall(b"lth HTTP/1.0\r\n\r\n")
    assert waiting[-1].recv(12) == b"HTTP/1.0 200"
    for each in waiting:
        each.close()
    assert capsys.readouterr().err == ""


def test_a_state_that_cannot_be_told_is_an_error_of_that_page_alone(capsys):
    broken = Watched()
    broken.state = lambda: {"sessions": 1 // 0}
    with broken.running():
        assert broken.ask("/state") == (500, "internal error\n")
        assert broken.ask("/health")[0] == 200
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_port_that_is_taken_or_a_missing_package_is_one_clear_line(idle, monkeypatch):
    with pytest.raises(AddressError, match="in use by another process; .* with --metrics"):
        Door(idle.door, dict, lambda: True, idle.metrics)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InputError, match=r"pip install 'pqjax\[watch\]'"):
        Metrics()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"sessions": 3}', b'{"sessions": [{"client": 3}]}', b"{}"]
)
def test_something_else_at_the_door_is_one_clear_line_of_top(content):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            with other.accept()[0] as sock:
                sock.recv(4096)
                head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(content)}\r\n\r\n"
                sock.sendall(head.encode() + content)

        thread = threading.Thread(target=answer)
        thread.start()
        done = command_here("top", f"127.0.0.1:{other.getsockname()[1]}", "--once")
        thread.join(30)

    assert done.returncode == 1 and "answers as no pqjax server does" in done.stderr
    assert done.stderr.count("\n") == 1
