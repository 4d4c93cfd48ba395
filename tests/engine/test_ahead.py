"""Preparing while the client thinks: what it asks next finds the work done, and nothing else differs."""

import dataclasses
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import ENCRYPTED
from serving import GRAPH, PLAN, WEIGHTS, X, answers, serving

import pqjax
from pqjax.engine.commands import MOST_PREPARED
from pqjax.engine.spending import Shelf
from pqjax.engine.store import Store
from pqjax.errors import DeadlineExceeded, InputError, PqjaxError, SessionEnded, WireError
from pqjax.ot.tuning import Tuning
from pqjax.planner import find_preset, plan
from pqjax.planner.plan import REVEAL_LAYER, STOCK_LAYER

TRUE = pqjax.reference(GRAPH, WEIGHTS, X)
STREAMED = dataclasses.replace(find_preset("pqjax"), tuning=Tuning(stream_above=0))
RUNS = {
    "encrypted": (ENCRYPTED, 1), "batch": (ENCRYPTED, 2), "ot": ("pqjax-ot", 1),
    "inline": ("privquant", 1), "streamed": (STREAMED, 1),
}  # fmt: skip


class Gate:
    """A progress that stops at the beginning of the n-th preparation until it is opened."""

    def __init__(self, n=1, error=None):
        self.left, self.error = n, error
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, where, done, steps):
        self.left -= where == f"offline/{STOCK_LAYER}"
        if self.left == 0:
            self.left = -1
            self.reached.set()
            assert self.open.wait(60)
            if self.error:
                raise self.error


def until(there):
    for _ in range(6000):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError(there)


def thought(session, n=1):
    """The client has thought for long: so many preparations are in store, and nothing is done."""
    until(lambda: session.ready == n and not session._background.busy)


def entries(trace):
    """What was said and heard, layer by layer; not how long it took."""
    return [
        (e.phase, e.layer, e.inference, e.sent_bits, e.received_bits, e.messages, e.clock_after)
        for e in trace.entries
    ]


@pytest.mark.parametrize("run", list(RUNS))
def test_who_thinks_finds_the_work_done_and_the_books_are_right(run):
    preset, n = RUNS[run]
    made = plan(GRAPH, preset, batch=n)
    x = X if n == 1 else np.stack([X, np.zeros_like(X)])
    want = pqjax.reference(GRAPH, WEIGHTS, x)

    with serving(plan=made) as (address, ends):
        with pqjax.connect(address, plan=made, ahead=1) as session:
            for _ in range(2):
                thought(session)
                before = len(session.trace.entries)
                result = session.infer(x)
                asked = [e for e in session.trace.entries[before:] if e.inference is not None]
                last = [e.layer for e in asked].index(REVEAL_LAYER)
                assert {e.phase for e in asked[: last + 1]} == {"online"}
                np.testing.assert_array_equal(result.output, want)
                assert made.differences(result.trace, 1) == []
            thought(session)
        trace = ends.get(timeout=30)

    assert made.differences(session.trace, 1) == made.differences(trace, 0) == []
    assert len(session.trace.inferences) == 3


def test_nothing_is_said_but_what_preparing_on_purpose_says():
    found = []
    for ahead in (0, 2):
        with serving() as (address, ends):
            with pqjax.connect(address, ahead=ahead) as session:
                for _ in range(2):
                    for _ in range(2 - session.ready if not ahead else 0):
                        session.prepare()
                    thought(session, 2)
                    session.infer(X)
                if not ahead:
                    session.prepare()
                thought(session, 2)
            found.append((entries(session.trace), entries(ends.get(timeout=30))))

    assert found[0] == found[1]


def test_nothing_is_prepared_that_nobody_asked_for():
    with serving() as (address, _), pqjax.connect(address) as session:
        session.infer(X)

        assert not session._background.busy and session.ready == 0


def test_a_question_that_comes_meanwhile_waits_for_one_preparation_and_uses_it():
    gate = Gate()
    with serving() as (address, _), ThreadPoolExecutor(1) as pool:
        with pqjax.connect(address, ahead=3, progress=gate) as session:
            assert gate.reached.wait(60)
            asked = pool.submit(session.infer, X)
            until(session._background._called.is_set)
            with pytest.raises(InputError, match="one call at a time"):
                session.prepare()
            gate.open.set()
            result = asked.result(60)
            np.testing.assert_array_equal(result.output, TRUE)
            thought(session, 3)
            phases = [(e.phase, e.inference) for e in session.trace.entries]

    first = phases.index(("online", 0))
    assert {i for phase, i in phases[:first] if phase == "offline"} == {0}
    assert {i for phase, i in phases if phase == "offline"} == {0, 1, 2, 3}


def test_closing_in_the_middle_goes_at_once_and_leaves_the_books_right():
    gate = Gate(2)
    with serving(most_clients=1) as (address, ends), ThreadPoolExecutor(1) as pool:
        session = pqjax.connect(address, ahead=1, progress=gate)
        result = session.infer(X)
        assert gate.reached.wait(60)
        closed = pool.submit(session.close)
        trace = ends.get(timeout=30)  # while the client's thread still stands at the gate
        gate.open.set()
        closed.result(60)
        answers(address)

    np.testing.assert_array_equal(result.output, TRUE)
    assert not session._background.busy
    assert PLAN.differences(session.trace, 1) == PLAN.differences(trace, 0) == []
    assert [e.inference for e in trace.entries if e.layer == REVEAL_LAYER] == [0]
    assert {e.inference for e in trace.entries} == {0, None}
    with pytest.raises(WireError):
        session.infer(X)


def test_an_error_in_the_with_block_ends_what_is_in_progress():
    gate = Gate()
    with serving() as (address, ends):
        with pytest.raises(KeyError), pqjax.connect(address, ahead=1, progress=gate) as session:
            assert gate.reached.wait(60)
            gate.open.set()
            raise KeyError("of the caller's own")
        error = ends.get(timeout=30)

    assert isinstance(error, SessionEnded) and error.reason == "left"
    assert not session._background.busy


def test_a_server_that_closes_in_the_middle_is_heard_at_the_next_call():
    gate = Gate()
    with serving() as (address, _):
        session = pqjax.connect(address, ahead=1, progress=gate)
        assert gate.reached.wait(60)
    gate.open.set()

    with pytest.raises(SessionEnded, match="the server is closing"):
        session.infer(X)
    session.close()


def test_a_server_that_stalls_in_the_middle_is_heard_at_the_next_call():
    gate = Gate()
    with serving(progress=gate) as (address, ends):
        session = pqjax.connect(address, ahead=1, deadline_s=1.0)
        with pytest.raises(DeadlineExceeded):
            session.infer(X)
        gate.open.set()
        assert isinstance(ends.get(timeout=30), SessionEnded)


def test_what_its_own_progress_raises_comes_with_the_next_call_once():
    gate = Gate(error=KeyError("of its own"))
    gate.open.set()
    with serving() as (address, ends):
        session = pqjax.connect(address, ahead=1, progress=gate)
        error = ends.get(timeout=30)
        with pytest.raises(KeyError, match="of its own"):
            session.infer(X)
        with pytest.raises(WireError):
            session.infer(X)
        session.close()
        answers(address)

    assert isinstance(error, SessionEnded) and error.reason == "left"


def test_a_failure_that_nobody_asked_about_is_told_on_closing_unless_the_wire_is_gone():
    gate = Gate(error=KeyError("of its own"))
    gate.open.set()
    with serving() as (address, _):
        session = pqjax.connect(address, ahead=1, progress=gate)
        until(lambda: not session._background.busy)
        with pytest.raises(KeyError, match="of its own"):
            session.close()
        answers(address)


def test_what_prepares_ahead_may_not_call_the_session():
    sessions: list[pqjax.Session] = []
    known = threading.Event()

    def call(where, done, steps):
        assert known.wait(60)
        sessions[0].infer(X)

    with serving() as (address, _):
        sessions.append(pqjax.connect(address, ahead=1, progress=call))
        known.set()
        with pytest.raises(InputError, match="one call at a time"):
            sessions[0].infer(X)


def test_a_session_that_is_dropped_while_it_prepares_says_so():
    gate = Gate()
    with serving(most_clients=1) as (address, ends):
        session = pqjax.connect(address, ahead=1, progress=gate)
        assert gate.reached.wait(60)
        del session
        (thread,) = (t for t in threading.enumerate() if t.name == "pqjax-background")
        gate.open.set()
        thread.join(60)
        gc.collect()
        error = ends.get(timeout=30)
        answers(address)

    assert isinstance(error, SessionEnded) and error.reason == "left"


def test_a_server_sees_a_client_that_thinks_as_idle():
    server = pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0")
    thread = threading.Thread(target=server.run, args=(1,))
    thread.start()
    with pqjax.connect(server.address, ahead=1) as session:
        thought(session)
        visits = list(server._visits.values())
        until(lambda: visits[0].doing.startswith("idle, preparations in store: 1"))
        np.testing.assert_array_equal(session.infer(X).output, TRUE)
    thread.join(30)

    assert not thread.is_alive()


def test_what_was_kept_is_spent_before_anything_is_prepared(tmp_path):
    with serving(store=Store(tmp_path / "server")) as (address, ends):
        shelf = Shelf(Store(tmp_path / "client"), "the server")
        with pqjax.connect(address, store=shelf) as session:
            session.keep()
        ends.get(timeout=30)
        with pqjax.connect(address, store=shelf, spend=1, ahead=1) as session:
            assert session.stored == 1 and session.ready == 1 and not session._background.busy
            for _ in range(2):
                thought(session)
                np.testing.assert_array_equal(session.infer(X).output, TRUE)
            thought(session)
        trace = ends.get(timeout=30)

    assert PLAN.differences(session.trace, 1) == PLAN.differences(trace, 0) == []


@pytest.mark.parametrize("ahead", [-1, MOST_PREPARED + 1])
def test_no_more_is_prepared_ahead_than_a_server_keeps(ahead):
    with pytest.raises(PqjaxError, match=f"0 to {MOST_PREPARED} may be prepared ahead, got"):
        pqjax.connect("127.0.0.1:1", ahead=ahead)
