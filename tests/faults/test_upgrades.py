"""What is old: hints and plans of before an upgrade, a session that is played again, a shared store."""

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from proxy import CLIENT, HEADER
from serving import GRAPH, WEIGHTS, X
from trial import (
    DEADLINE_S,
    PATIENT_S,
    PLAN,
    RIGHT,
    SLACK_S,
    ask,
    case,
    in_process,
    still_serves,
    through,
)

import pqjax
from pqjax.engine.spending import Shelf
from pqjax.engine.store import Store
from pqjax.errors import CheckpointError, HandshakeError
from pqjax.wire.address import parse_address

OTHER = {name: value - (name.endswith("weight") & (value > 0)) for name, value in WEIGHTS.items()}


def upgraded(server, graph, weights):
    """The model's file is another, and the server has read it."""
    pqjax.save_model(server.model, graph, weights)
    server.process.send_signal(signal.SIGHUP)
    assert server.told(30.0, "reloaded", "reload_failed")["event"] == "reloaded"


@pytest.mark.slow
def test_hints_and_plans_of_before_an_upgrade_are_not_used(frames, tmp_path):
    new, hints = pqjax.reference(GRAPH, OTHER, X), tmp_path / "client"
    assert not np.array_equal(new, RIGHT)
    stale = tmp_path / "net.hint"
    with in_process(tmp_path) as server:
        assert ask(server.address, hints=hints).what == "right answer"
        kept = {path: path.read_bytes() for path in hints.glob("*")}
        (next(iter(kept))).replace(stale)
        stale.with_name("copy").write_bytes(stale.read_bytes())
        upgraded(server, GRAPH, OTHER)

        with case("upgrade", "other weights, hints kept by the client", "right answer"):
            for path, content in kept.items():
                path.write_bytes(content)
            with pqjax.connect(server.address, hints=hints, deadline_s=PATIENT_S) as session:
                np.testing.assert_array_equal(session.infer(X).output, new)
        with case("upgrade", "other weights, a file of hints", "CheckpointError"):
            with pytest.raises(CheckpointError, match="another version of the model"):
                with pqjax.connect(
                    server.address, hint_file=stale, deadline_s=PATIENT_S
                ) as session:
                    session.infer(X)
        with case(
            "upgrade", "other weights, a client that insists on the plan", "right answer", "done"
        ):
            with pqjax.connect(server.address, plan=PLAN, deadline_s=PATIENT_S) as session:
                np.testing.assert_array_equal(session.infer(X).output, new)


@pytest.mark.slow
def test_a_plan_of_before_an_upgrade_is_refused(frames, tmp_path):
    smaller, weights, x = a_part_of_it()
    with in_process(tmp_path) as server:
        still_serves(server)
        with pqjax.connect(server.address, deadline_s=PATIENT_S) as session:
            upgraded(server, smaller, weights)
            with case("upgrade", "another network, in a session", "right answer"):
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
        with case("upgrade", "another network, a client that insists", "HandshakeError"):
            with pytest.raises(HandshakeError, match="plan"):
                pqjax.connect(server.address, plan=PLAN, deadline_s=PATIENT_S)
        with case("upgrade", "another network, a client that does not", "right answer"):
            with pqjax.connect(server.address, deadline_s=PATIENT_S) as session:
                y = session.infer(x).output
            np.testing.assert_array_equal(y, pqjax.reference(smaller, weights, x))


def a_part_of_it():
    """The network up to its first ReLU or, if that is all, requantization."""
    nodes = tuple(GRAPH)
    graph = pqjax.Graph(nodes[: len(nodes) // 2])
    names = {node.name for node in graph}
    return graph, {k: v for k, v in WEIGHTS.items() if k.split("/")[0] in names}, X


@pytest.mark.slow
def test_a_session_that_is_played_again_gets_nothing_that_it_had(served, frames):
    """What the server says depends on its own randomness: not one of its longer frames comes again."""
    good = through(served, {})
    said = [piece for place, piece in good.seen if place.sender == CLIENT]
    told = {piece[HEADER.size :] for place, piece in good.seen if place.sender != CLIENT}

    with case("replay", "all bytes of a client, played again", server="Drift"):
        with socket.create_connection(parse_address(served.address), timeout=PATIENT_S) as sock:
            sock.sendall(b"".join(said))
            heard = b""
            while came := _received(sock):
                heard += came
        end = served.ended(DEADLINE_S + SLACK_S)
        # It counts the messages that it depends on, and the server has not sent them.
        assert end is not None and end.what == "Drift", end
        again = set(_payloads(heard)) & told
        assert {len(each) for each in again} <= public_lengths(frames)
        still_serves(served)


def public_lengths(frames):
    """Of what the server sends to everybody: its greeting, the plan, and its hints."""
    public = ("greeting", "setup", "install")
    return {known.nbytes for known in frames if known.phase in public} | set(range(8))


def _received(sock):
    try:
        return sock.recv(1 << 16)
    except ConnectionResetError:
        return b""


def _payloads(heard):
    while len(heard) >= HEADER.size:
        _, _, nbytes = HEADER.unpack_from(heard)
        yield heard[HEADER.size :][:nbytes]
        heard = heard[HEADER.size + nbytes :]


@pytest.mark.slow
def test_a_store_that_two_processes_open_spends_everything_once(frames, tmp_path):
    kept, shelf = tmp_path / "kept", Shelf(Store(tmp_path / "client"), "both servers")
    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            started = in_process(tmp_path / name, "--store", kept, "--clients", 4)
            servers.append(stack.enter_context(started))
        for server in servers:  # each has hints of its own, and so must not spend the other's
            still_serves(server)
        with pqjax.connect(servers[0].address, store=shelf, deadline_s=PATIENT_S) as session:
            for _ in range(3):
                session.keep()
        assert len(list(kept.rglob("*.half"))) == 3

        def spend(_):
            address = servers[0].address
            with pqjax.connect(address, store=shelf, spend=1, deadline_s=PATIENT_S) as session:
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
                return session.stored

        with case("store", "three clients at once with one folder", "right answer"):
            with ThreadPoolExecutor(3) as pool:
                spent = list(pool.map(spend, range(3)))
            assert sum(spent) == 3 and not list(tmp_path.rglob("*.half"))
        with case(
            "store", "another server process on the folder of the first", "right answer", "done"
        ):
            with pqjax.connect(servers[0].address, store=shelf, deadline_s=PATIENT_S) as session:
                session.keep()
            address = servers[1].address
            with pqjax.connect(address, store=shelf, spend=1, deadline_s=PATIENT_S) as session:
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
            assert not list(kept.rglob("*.half"))
        for server in servers:
            still_serves(server)
