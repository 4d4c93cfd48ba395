"""A real server under clients of all sorts for a long time: right answers, and nothing grows.

That is, over the second half of a run (`slopes.growth`): memory by less than `MOST_BYTES`, descriptors
and threads not at all. They are looked at while nobody has a session.
"""

import contextlib
import itertools
import os
import pathlib
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import evidence
import numpy as np
import pytest
from serving import WEIGHTS
from slopes import grown
from soaking import (
    DEADLINE_S,
    OTHER,
    Crowd,
    ask,
    leave,
    question,
    right,
    served,
    talk_nonsense,
    until,
)

import pqjax
from pqjax.cli.serve import INTERRUPTED
from pqjax.errors import WireError

pytest.importorskip("prometheus_client", reason="a server tells its state beside its metrics")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="reads /proc"),
]
SESSIONS, EVERY = 1000, 20  # one after the other; between two looks
CROWD, TURNS = 16, 3
STORM_S, CLIENTS = 60.0, 4
MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
LOOKS, GOOD = 24, 2  # of a soak; clients that ask, of each server
DRAIN_S = 30.0  # SIGTERM to the end of a server in which one client has an inference to come
# Growth from end to end of the second half. Descriptors and threads are whole numbers: below 1 is none.
MOST_BYTES, MOST_THINGS = 8 << 20, 1


def assert_flat(seen, case):
    """Fails where something grows; the figures."""
    found = grown(seen)
    figures = {f"growth_of_{name}": round(value, 2) for name, value in found.items()}
    print(f"\n{case}: {figures}, {seen[0]} first, {seen[-1]} last")
    assert found["resident_bytes"] < MOST_BYTES, case
    assert found["descriptors"] < MOST_THINGS and found["threads"] < MOST_THINGS, case
    return figures


def assert_clean(server):
    """Nothing in its log that would be a fault of its own."""
    for bad in ("internal error", "Traceback", "no thread"):
        assert bad not in server.log(), server.log()[-4000:]


def test_a_thousand_sessions_one_after_the_other_take_no_more_and_more(tmp_path):
    seen, wrong, begin = [], 0, time.monotonic()
    with served(tmp_path) as server:
        for number in range(SESSIONS):
            wrong += ask(server.address, number)
            if number % EVERY == EVERY - 1:
                server.settled(workers=0)
                seen.append(server.takes)
        assert_clean(server)

    figures = assert_flat(seen, f"{SESSIONS} sessions")
    assert wrong == 0
    seconds = round(time.monotonic() - begin, 1)
    evidence.record(
        "service",
        "sessions one after the other",
        "flat",
        sessions=SESSIONS,
        seconds=seconds,
        **figures,
    )


def told_apart(count):
    """So many questions and their answers, no two of which are the same."""
    found = {}
    for seed in itertools.count():
        y = right(x := question(seed))[0]
        found.setdefault(y.tobytes(), (x, y))
        if len(found) == count:
            return list(found.values())
    raise AssertionError


@pytest.mark.parametrize("words", [(), ("--workers", 2)], ids=["threads", "workers"])
def test_clients_at_once_get_their_own_answers(words, tmp_path):
    together = threading.Barrier(CROWD)
    apart = told_apart(CROWD * TURNS)
    inputs = [[x for x, _ in apart[at::CROWD]] for at in range(CROWD)]
    wanted = [[y for _, y in apart[at::CROWD]] for at in range(CROWD)]

    def client(number):
        with pqjax.connect(server.address, deadline_s=4 * DEADLINE_S) as session:
            together.wait(4 * DEADLINE_S)
            return [session.infer(x).output for x in inputs[number]]

    with served(tmp_path, *words) as server, ThreadPoolExecutor(CROWD) as pool:
        found = list(pool.map(client, range(CROWD)))
        assert_clean(server)

    np.testing.assert_array_equal(found, wanted)
    case = f"{CROWD} clients at once, {'worker processes' if words else 'threads'}"
    evidence.record("service", case, "unmixed", answers=CROWD * TURNS)


def test_workers_that_are_killed_take_their_own_sessions_and_nothing_else(tmp_path):
    draw, crowd, killed = random.Random(7), Crowd(), 0
    with served(tmp_path, "--workers", 2) as server:
        server.settled(workers=2)
        before = server.takes
        for number in range(CLIENTS):
            turn = lambda draw: ask(server.address, draw.randrange(1000), inferences=2)
            crowd.begin("sessions", turn, WireError, seed=number)
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            time.sleep(draw.uniform(1.0, 5.0))
            ready = server.ready_workers()  # one that starts and dies is the operator's business
            for pid in draw.sample(ready, min(len(ready), draw.choice((1, 1, 1, 2)))):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        crowd.end()
        server.settled(workers=2)
        wrong = sum(ask(server.address, number) for number in range(10))
        server.settled(workers=2)
        after = server.takes
        assert_clean(server)

    print(f"\n{killed} killed; {crowd.counts}, lost {crowd.lost}; before {before}, after {after}")
    assert crowd.failures == [] and wrong == 0
    assert killed >= 5 and crowd.counts["sessions"] >= 10
    assert sum(crowd.lost.values()) <= CLIENTS * killed
    assert set(crowd.lost) <= {"PeerGone", "SessionEnded", "HandshakeError"}
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    evidence.record(
        "service", "crash storm", "survived", seconds=STORM_S, killed=killed,
        sessions=crowd.counts["sessions"], lost=sum(crowd.lost.values()),
    )  # fmt: skip


def test_all_at_once_for_minutes(tmp_path):
    """Good clients, leaving ones, junk, models read anew, and workers killed; then SIGTERM."""
    crowd, both, begin = Crowd(), (WEIGHTS, OTHER), time.monotonic()
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(served(tmp_path / "threads"))
        front = stack.enter_context(served(tmp_path / "workers", "--workers", 2))
        for server, name, may, every_s in (
            (threads, "threads", (), (2.0, 10.0)),
            (front, "workers", WireError, (10.0, 40.0)),
        ):
            address = server.address
            for number in range(GOOD):
                good = lambda draw, at=address: ask(
                    at, draw.randrange(10**6), *both, inferences=draw.choice((1, 1, 3))
                )
                crowd.begin(f"good clients, {name}", good, may, seed=number)
            crowd.begin(f"leaving clients, {name}", lambda draw, at=address: leave(at, draw))
            junk = lambda draw, at=address: talk_nonsense(at, draw)
            crowd.begin(f"junk, {name}", junk, OSError, (0.0, 0.3))
            anew = lambda draw, at=server: at.offers(draw.choice(both))
            crowd.begin(f"models read anew, {name}", anew, (), every_s)
        crowd.begin("workers killed", lambda draw: _kills(front, draw), (), (5.0, 25.0))
        seen = {"threads": [], "front": []}
        for look in range(LOOKS):
            time.sleep(max(0.0, begin + (look + 1) * MINUTES * 60 / LOOKS - time.monotonic()))
            with crowd.waiting():
                threads.settled(workers=0)
                front.settled(workers=2)
                seen["threads"].append(threads.takes)
                seen["front"].append(front.takes)
        crowd.end()
        print(f"\n{crowd.counts}, lost {crowd.lost}, failures {crowd.failures[:5]}")
        drains = {
            name: _drained(server) for name, server in (("threads", threads), ("front", front))
        }
        assert_clean(threads)
        assert_clean(front)

    figures = {name: assert_flat(each, name) for name, each in seen.items()}
    assert crowd.failures == []
    assert len(crowd.counts) == 9, crowd.counts
    assert sum(crowd.lost.values()) <= GOOD * crowd.counts["workers killed"]
    assert max(drains.values()) < DRAIN_S, drains
    for name, each in figures.items():
        evidence.record(
            "service", f"soak, {name}", "held", minutes=MINUTES, drain_s=round(drains[name], 2), **each,
            **{what.replace(", ", "_").replace(" ", "_"): n for what, n in crowd.counts.items()},
        )  # fmt: skip


def _kills(front, draw):
    ready = front.ready_workers()
    if ready:
        os.kill(draw.choice(ready), signal.SIGKILL)


def _drained(server):
    """Seconds from SIGTERM, with a preparation under way, until the server has ended as it should."""
    seed = 5
    session = pqjax.connect(server.address, deadline_s=DEADLINE_S)
    session.prepare()
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    until(lambda: _refuses(server.address), DRAIN_S)
    y = session.infer(question(seed)).output
    assert any(np.array_equal(y, each) for each in right(question(seed), WEIGHTS, OTHER))
    with pytest.raises(WireError):
        session.infer(question(seed))
    session.close()
    assert server.process.wait(DRAIN_S) == INTERRUPTED
    return time.monotonic() - begin


def _refuses(address):
    try:
        pqjax.connect(address, deadline_s=DEADLINE_S).close()
    except WireError:
        return True
    return False
