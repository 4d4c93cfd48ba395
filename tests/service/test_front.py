"""Worker processes: answers, a worker killed, models read anew, an end without losses."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving import GRAPH, WEIGHTS, X

import pqjax
from pqjax.engine.desk import Limits
from pqjax.errors import CheckpointError, PqjaxError, Refused, WireError
from pqjax.service.front import Front
from pqjax.service.offer import Offer

NEWER = {name: np.where(w > 0, w - 1, w) for name, w in WEIGHTS.items()}  # of the same plan
TRUE, NEW = (pqjax.reference(GRAPH, weights, X) for weights in (WEIGHTS, NEWER))


@contextlib.contextmanager
def fronted(tmp_path, **options):
    """A front with two workers, in a thread: itself, and what it records."""
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    records: list[dict] = []
    offer = Offer((("net", str(tmp_path / "net.npz")),), hints=str(tmp_path / "hints"))
    options = {"workers": 2, "limits": Limits(8), "record": records.append} | options
    front = Front(offer, "127.0.0.1:0", **options)
    failed: list[BaseException] = []

    def run():
        try:
            front.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield front, records
    finally:
        front.close()
        thread.join(30)
        assert not thread.is_alive() and not failed
        assert front.state["workers"] == []


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def both_ready(front):
    workers = front.state["workers"]
    return len(workers) == 2 and all(worker["ready"] for worker in workers)


def test_workers_serve_side_by_side_one_is_killed_and_replaced_models_are_read_anew(tmp_path):
    with fronted(tmp_path) as (front, records), contextlib.ExitStack() as stack:
        until(lambda: both_ready(front))
        sessions = [stack.enter_context(pqjax.connect(front.address)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda session: session.infer(X).output, sessions))
        assert all((answer == TRUE).all() for answer in answers)
        state = front.state
        assert [worker["sessions"] for worker in state["workers"]] == [2, 2]  # the fewest first
        until(lambda: len(front.state["sessions"]) == 4)
        assert {each["model"] for each in front.state["sessions"]} == {"net"}

        os.kill(state["workers"][0]["pid"], signal.SIGKILL)
        until(lambda: [r["sessions"] for r in records if r["event"] == "worker_died"] == [2])
        lost, alive = [], []
        for session in sessions:
            try:
                alive.append(session.infer(X).output)
            except WireError as error:
                lost.append(error)
        assert len(lost) == len(alive) == 2 and all((y == TRUE).all() for y in alive)
        until(lambda: both_ready(front))
        kept = stack.enter_context(pqjax.connect(front.address))
        np.testing.assert_array_equal(kept.infer(X).output, TRUE)

        pqjax.save_model(tmp_path / "net.npz", GRAPH, NEWER)
        front.reload()
        until(lambda: "reloaded" in [record["event"] for record in records])
        with pqjax.connect(front.address) as session:
            np.testing.assert_array_equal(session.infer(X).output, NEW)
        np.testing.assert_array_equal(kept.infer(X).output, TRUE)

        (tmp_path / "net.npz").write_bytes(b"no network")
        front.reload()
        until(lambda: "reload_failed" in [record["event"] for record in records])
        with pqjax.connect(front.address) as session:
            np.testing.assert_array_equal(session.infer(X).output, NEW)
        kept.prepare()
        front.stop()  # a preparation is in store: it is waited for
        assert not front.open
        np.testing.assert_array_equal(kept.infer(X).output, TRUE)
        with pytest.raises(WireError):
            kept.infer(X)
    begun = [r for r in records if r["event"] == "began"]
    assert len(begun) == 7 and {r["model"] for r in begun} == {"net"}


@pytest.mark.slow
def test_limits_hold_over_all_workers(tmp_path):
    limits = Limits(3, each_inferences=2)
    with fronted(tmp_path, limits=limits) as (front, _):
        until(lambda: both_ready(front))
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(pqjax.connect(front.address)) for _ in range(3)]
            with pytest.raises(Refused, match="busy"):
                pqjax.connect(front.address)
            for session in sessions[:2]:
                session.infer(X)
            with pytest.raises(WireError, match="all answers"):
                sessions[2].infer(X)
        with pytest.raises(Refused, match="all inferences"):
            pqjax.connect(front.address)


@pytest.mark.slow
def test_a_model_that_cannot_be_served_ends_the_front_with_its_error(tmp_path):
    (tmp_path / "net.npz").write_bytes(b"no network")
    front = Front(Offer((("net", str(tmp_path / "net.npz")),)), "127.0.0.1:0")

    with pytest.raises(CheckpointError):
        front.run()


@pytest.mark.slow
def test_workers_that_die_as_they_start_end_the_front(tmp_path, monkeypatch):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    monkeypatch.setattr("pqjax.service.front.sys.executable", "/bin/false")
    front = Front(Offer((("net", str(tmp_path / "net.npz")),)), "127.0.0.1:0")

    with pytest.raises(PqjaxError, match="worker processes die as they start.*code 1"):
        front.run()


def test_an_offer_crosses_to_a_worker_as_it_is():
    from pqjax.schema import read

    offer = Offer((("a", "b.npz"), ("c@2", "d.npz")), hints="h")
    tree = dataclasses.asdict(offer)
    tree["models"] = [list(each) for each in tree["models"]]

    assert read(Offer, tree) == offer
