"""Sessions speak: whoever ends one says why, and a server that stops lets finish what is half done."""

import contextlib
import datetime
import gc
import queue
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from peers import ended, silent
from serving import GRAPH, PLAN, WEIGHTS, Ends, X, answers, command_here, served_process, serving

import pqjax
from pqjax.engine.events import All, Events
from pqjax.errors import DeadlineExceeded, HandshakeError, PeerGone, PqjaxError, SessionEnded
from pqjax.wire.listener import Listener

TRUE = pqjax.reference(GRAPH, WEIGHTS, X)


def reason(call):
    """Why the other party ended the session, as the exception of this call says it."""
    with pytest.raises(SessionEnded) as caught:
        call()
    return caught.value.reason


class Gate:
    """A progress that stops in the first layer of a phase until it is opened."""

    def __init__(self, phase):
        self.phase, self.reached, self.open = phase, threading.Event(), threading.Event()

    def __call__(self, where, done, steps):
        if where.startswith(self.phase):
            self.reached.set()
            assert self.open.wait(60)


class Stops(Events):
    """Puts whom a server waits for into a queue."""

    def __init__(self, stops):
        self.stops = stops

    def stopping(self, *what):
        self.stops.put(what)


@contextlib.contextmanager
def running(**options):
    """A server in a thread: itself, its thread, how sessions ended, and whom it waited for."""
    ends, stops = queue.Queue(), queue.Queue()
    events = All(Ends(ends), Stops(stops))
    server = pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0", events=events, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server, thread, ends, stops
    finally:
        server.close()
        thread.join(30)
        assert not thread.is_alive()


def rests(server, count):
    """Waits until so many sessions rest: a client may be done a moment before its server."""
    for _ in range(3000):
        doing = [visit.doing for visit in list(server._visits.values())]
        if sum(text.startswith("idle") for text in doing) == count:
            return
        time.sleep(0.01)
    raise AssertionError(doing)


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError, "left"), (KeyboardInterrupt, "interrupted")]
)
def test_a_client_that_fails_or_is_interrupted_says_so(error, said):
    def fail(where, done, steps):
        raise error("of its own")

    with serving() as (address, ends):
        with pytest.raises(error), pqjax.connect(address, progress=fail) as session:
            session.infer(X)
        first = ends.get(timeout=30)
        with pytest.raises(error), pqjax.connect(address):
            raise error("between two calls")
        second = ends.get(timeout=30)
        answers(address)

    assert isinstance(first, SessionEnded) and first.reason == said
    assert isinstance(second, SessionEnded) and second.reason == said


def test_a_session_that_is_dropped_without_closing_says_so():
    with serving(most_clients=1) as (address, ends):
        np.testing.assert_array_equal(pqjax.connect(address).infer(X).output, TRUE)
        gc.collect()
        error = ends.get(timeout=30)
        answers(address)

    assert isinstance(error, SessionEnded) and error.reason == "left"


def test_a_client_that_refuses_the_plan_says_so(monkeypatch):
    def refuse(document, deadline_s):
        raise pqjax.PqjaxError("no such plan here")

    monkeypatch.setattr("pqjax.engine.client.read_plan", refuse)
    with serving() as (address, ends):
        with pytest.raises(PqjaxError, match="no such plan"):
            pqjax.connect(address)
        error = ends.get(timeout=30)

    assert isinstance(error, SessionEnded) and error.reason == "refused"


def test_a_client_that_asks_for_what_there_is_not_is_told():
    with serving() as (address, ends):
        session = pqjax.connect(address)
        session._party.messenger.send(np.array([77], np.uint8), 8)
        ends.get(timeout=30)

        assert reason(lambda: session.infer(X)) == "drift"


def test_a_client_hears_of_an_internal_error_but_not_what_it_was():
    def fail(where, done, steps):
        raise KeyError("the server's secret")

    with serving(progress=fail) as (address, _):
        with pytest.raises(SessionEnded, match="an internal error") as caught:
            answers(address)

    assert caught.value.reason == "fault" and "secret" not in str(caught.value)


def test_a_stalled_client_is_told_of_the_deadline():
    gate = Gate("offline")
    with serving(deadline_s=1.0) as (address, ends), ThreadPoolExecutor(1) as pool:
        session = pqjax.connect(address, deadline_s=60.0, progress=gate)
        asked = pool.submit(session.prepare)
        error = ends.get(timeout=30)
        gate.open.set()

        assert isinstance(error, DeadlineExceeded)
        assert reason(lambda: asked.result(30)) == "slow"


def test_signs_of_life_change_nothing_that_is_measured(monkeypatch):
    for module in ("tcp", "channel"):
        monkeypatch.setattr(f"pqjax.wire.{module}.ALIVE_S", 0.1)
    with serving() as (address, ends):
        with pqjax.connect(address) as session:
            session.prepare()
            threading.Event().wait(0.6)
            result = session.infer(X)
            whole = session.trace
        trace = ends.get(timeout=30)

    np.testing.assert_array_equal(result.output, TRUE)
    assert PLAN.differences(result.trace, 1) == PLAN.differences(trace, 0) == []
    assert whole.alive_bytes[0] > 0 and trace.alive_bytes[1] > 0


def test_a_server_that_closes_tells_its_clients():
    with running() as (server, thread, ends, _):
        idle = pqjax.connect(server.address)
        server.close()
        thread.join(30)

        assert not thread.is_alive()
        assert reason(lambda: idle.infer(X)) == "closing"
        assert "the server is closing" in str(ends.get(timeout=30))


def test_a_server_that_stops_lets_finish_what_is_half_done_and_nothing_else():
    gate = Gate("online")
    with running(progress=gate) as (server, thread, ends, stops), ThreadPoolExecutor(1) as pool:
        busy, idle = pqjax.connect(server.address), pqjax.connect(server.address)
        asked = pool.submit(busy.infer, X)
        assert gate.reached.wait(30)
        rests(server, 1)

        server.stop()
        (visit,), seconds = stops.get(timeout=30)
        assert "online/" in visit.doing and "layers done, for 0 s" in visit.doing
        assert re.fullmatch(r"127\.0\.0\.1:\d+", visit.client) and seconds == 600.0
        assert reason(idle.prepare) == "closing"
        with pytest.raises(PeerGone, match="nobody listens"):
            pqjax.connect(server.address)
        gate.open.set()
        np.testing.assert_array_equal(asked.result(60).output, TRUE)
        thread.join(30)

        assert not thread.is_alive()
        assert reason(lambda: busy.infer(X)) == "closing"


def test_a_preparation_in_store_is_half_an_inference():
    with running() as (server, thread, ends, stops):
        session = pqjax.connect(server.address)
        session.prepare()
        rests(server, 1)
        server.stop()
        (visit,), _ = stops.get(timeout=30)
        assert visit.doing.startswith("idle, preparations in store: 1, for")

        np.testing.assert_array_equal(session.infer(X).output, TRUE)
        thread.join(30)
        assert not thread.is_alive() and reason(session.prepare) == "closing"


def test_a_server_that_stops_waits_no_longer_than_its_limit():
    with running(drain_s=0.3) as (server, thread, ends, stops):
        session = pqjax.connect(server.address)
        session.prepare()
        server.stop()
        thread.join(30)

        assert not thread.is_alive() and stops.get(timeout=30)[1] == 0.3
        assert reason(lambda: session.infer(X)) == "closing"


def test_who_listens_and_says_nothing_is_named():
    with Listener("127.0.0.1:0") as listener:
        with pytest.raises(DeadlineExceeded, match="perhaps another program") as caught:
            pqjax.connect(listener.address, deadline_s=0.3)

    assert str(caught.value).startswith(f"{listener.address} took the connection")


def test_who_hangs_up_before_the_greeting_is_named():
    with Listener("127.0.0.1:0") as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(pqjax.connect, listener.address)
        listener.accept(30.0)[0].close()
        with pytest.raises(PeerGone, match="perhaps another program") as caught:
            dialled.result(30)

    assert str(caught.value).startswith(f"{listener.address} took the connection")


def test_a_server_that_speaks_something_else_is_named():
    with Listener("127.0.0.1:0") as listener, ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(pqjax.connect, listener.address)
        with listener.accept(30.0)[0] as raw:
            raw.sendall(b"SSH-2.0-x\r\n")
            with pytest.raises(HandshakeError, match="SSH-2.0") as caught:
                dialled.result(30)

    assert str(caught.value).startswith(f"{listener.address}: ")


def until(server, pattern):
    """Lines of the server's standard error up to the first that the pattern is found in."""
    lines = []
    for line in server.stderr:
        lines.append(line.rstrip())
        if re.search(pattern, line):
            return lines
    raise AssertionError("\n".join(lines))


def when_and_who(line):
    """A log line's time and client."""
    when, client, _ = line.split(" ", 2)
    assert datetime.datetime.fromisoformat(when).tzinfo is not None
    assert re.fullmatch(r"127\.0\.0\.1:\d+", client)
    return when, client


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_server_and_a_second_one_ends_it(tmp_path, kind):
    with served_process(tmp_path, "--drain", "77") as (address, server):
        session = pqjax.connect(address)
        session.prepare()
        said = until(server, "session began")
        assert f"serving {tmp_path / 'net.npz'}" in "\n".join(said)
        for words in ("classes|class names", "weights of .* bits", r"offline, .* MB online"):
            assert re.search(words, "\n".join(said)), words
        _, client = when_and_who(said[-1])

        server.send_signal(kind)
        stopping, at_work = until(server, "at work: (idle|offline)")[-2:]
        assert "waiting for sessions at work: 1, for 77 s at most; Ctrl-C again" in stopping
        assert when_and_who(at_work)[1] == client
        server.send_signal(kind)
        assert server.stderr is not None
        left = server.stderr.read()

        assert server.wait(30) == 130 and "Traceback" not in left
        assert "pqjax: interrupted" in left.splitlines()  # a session may still say how it ended
        assert reason(lambda: session.infer(X)) == "closing"


def test_a_server_that_is_interrupted_once_finishes_and_ends(tmp_path):
    with served_process(tmp_path) as (address, server):
        session = pqjax.connect(address)
        session.prepare()
        idle = silent(address)
        server.send_signal(signal.SIGINT)
        until(server, "at work: (idle|offline)")
        np.testing.assert_array_equal(session.infer(X).output, TRUE)
        assert server.stderr is not None
        left = server.stderr.read()

        assert server.wait(30) == 130 and "Traceback" not in left
        assert ended(idle, 10.0)
        assert reason(session.prepare) == "closing"
        idle.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://127.0.0.1:7700", "x.npy"], "did you mean '127.0.0.1:7700'"),
        (["https://models.example/net", "x.npy"], "did you mean 'models.example:7700'"),
        (["localhost", "x.npy"], "it has no port, did you mean 'localhost:7700'"),
        ([":7700", "x.npy"], "it has no host, this machine would be 127.0.0.1:7700"),
        (["7700", "x.npy"], "it has no host, this machine would be 127.0.0.1:7700"),
        (["127.0.0.1:7700", "https://cats.example/cat.png"], "reads files only"),
        (["127.0.0.1:7700", "file:///tmp/cat.png"], "/tmp/cat.png"),
    ],
)
def test_addresses_and_pictures_that_are_urls_are_explained(tmp_path, words, message):
    np.save(tmp_path / "x.npy", X)
    address, path = words

    done = command_here("infer", address, tmp_path / path if path == "x.npy" else path)

    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]
