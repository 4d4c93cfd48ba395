"""Peers that vanish, stall, lie or talk nonsense: one typed error a living side, and on it goes."""

import contextlib
import pathlib
import queue
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from networks import random_network

import pqjax
from pqjax.errors import (
    AddressError,
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PeerGone,
    WireError,
)
from pqjax.wire.handshake import greet_server
from pqjax.wire.tcp import Listener, dial

ROOT = pathlib.Path(__file__).parents[2]
GRAPH, WEIGHTS, X = random_network(3)
PLAN = pqjax.plan(GRAPH)


@contextlib.contextmanager
def serving(deadline_s=30.0, **options):
    """A server in a thread; yields its address and the queue of how its sessions ended."""
    ends = queue.Queue()
    server = pqjax.Server(
        PLAN, WEIGHTS, "127.0.0.1:0", deadline_s=deadline_s,
        on_end=lambda trace, error: ends.put(error or trace), **options,
    )  # fmt: skip
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.address, ends
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


def answers(address):
    """Whether the server still serves."""
    with pqjax.connect(address, deadline_s=60.0) as session:
        y = session.infer(X).output
    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))


def test_several_inferences_and_preparations_in_one_session():
    with serving() as (address, ends):
        with pqjax.connect(address, plan=PLAN) as session:
            session.prepare()
            session.prepare()
            outputs = [session.infer(X).output for _ in range(3)]
        trace = ends.get(timeout=30)

    for y in outputs:
        np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    assert PLAN.differences(session.trace, 1)[0].startswith("online begin: got offline")
    assert trace.bits()[0] == session.trace.bits()[1]


def test_a_client_that_is_killed_in_a_layer_ends_its_session_only():
    with serving() as (address, ends):
        session = pqjax.connect(address, deadline_s=30.0)
        session.prepare()
        wire = session._party.messenger.wire
        session._party.messenger.send(np.array([2], np.uint8), 8)  # infer, and then nothing more
        wire.abort()
        error = ends.get(timeout=30)

        assert isinstance(error, PeerGone) and "conv1/masked input" in str(error)
        answers(address)


def test_a_stalled_client_is_given_up_after_the_deadline():
    with serving(deadline_s=2.0) as (address, ends):
        session = pqjax.connect(address, deadline_s=60.0)
        error = ends.get(timeout=30)

        assert isinstance(error, DeadlineExceeded) and "begin" in str(error)
        with pytest.raises(WireError):
            session.infer(X)


def test_nonsense_is_refused_and_the_next_client_served():
    with serving(deadline_s=5.0) as (address, ends):
        host, port = address.rsplit(":", 1)
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\0" * 8 + b"\xff" * 8 + b"x" * 64):
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(junk)
                assert isinstance(ends.get(timeout=30), HandshakeError)
        answers(address)


def test_an_oversized_frame_later_in_the_session_is_refused_before_it_is_read():
    with serving(deadline_s=5.0) as (address, ends):
        wire = dial(address, deadline_s=5.0)
        greet_server(wire, PLAN.digest)
        wire.send(np.zeros(1 << 20, np.uint8), 1, "a lie")
        error = ends.get(timeout=30)
        wire.abort()

        assert isinstance(error, WireError) and "expected" in str(error) and "base ot" in str(error)
        answers(address)


def test_unknown_commands_end_the_session():
    with serving() as (address, ends):
        session = pqjax.connect(address)
        session._party.messenger.send(np.array([77], np.uint8), 8)
        error = ends.get(timeout=30)

        assert isinstance(error, WireError) and "77" in str(error)


def test_another_plan_is_refused_on_both_sides():
    with serving() as (address, ends):
        other = pqjax.plan(GRAPH, protocol="privquant")
        with pytest.raises(HandshakeError, match="plan"):
            pqjax.connect(address, plan=other)
        assert isinstance(ends.get(timeout=30), HandshakeError)
        answers(address)


def test_one_client_too_many_is_told_so():
    with serving(most_clients=1) as (address, ends):
        with pqjax.connect(address) as session:
            with pytest.raises(HandshakeError, match="busy"):
                pqjax.connect(address)
            session.infer(X)
        ends.get(timeout=30)


def test_bad_input_sends_nothing_and_leaves_the_session_usable():
    with serving() as (address, _):
        with pqjax.connect(address) as session:
            before = session.trace.bytes()
            for bad in (X[:-1], X.astype(float), np.full_like(X, 4000), np.stack([X, X])):
                with pytest.raises(InputError):
                    session.infer(bad)
            assert session.trace.bytes() == before
            session.infer(X)


def test_a_server_that_dies_is_noticed_by_its_client():
    with serving() as (address, _):
        session = pqjax.connect(address, deadline_s=30.0)
        session.prepare()
    with pytest.raises(PeerGone):
        session.infer(X)


def test_nobody_there_and_addresses_that_cannot_be():
    with Listener("127.0.0.1:0") as taken:
        with pytest.raises(AddressError, match="in use"):
            pqjax.Server(PLAN, WEIGHTS, taken.address)
    with pytest.raises(PeerGone, match="start the server first"):
        pqjax.connect(taken.address)
    with pytest.raises(AddressError):
        pqjax.connect("no address")
    with pytest.raises(AddressError, match="insecure-plaintext|certificates"):
        pqjax.Server(PLAN, WEIGHTS, "0.0.0.0:0")


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "pqjax.cli", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip


def test_command_line_runs_two_processes(tmp_path):
    model, inputs = tmp_path / "net.npz", tmp_path / "x.npy"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    np.save(inputs, np.stack([X, X]))
    server = subprocess.Popen(
        [sys.executable, "-m", "pqjax.cli", "serve", str(model), "--listen", "127.0.0.1:0",
         "--sessions", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = server.stdout.readline().split()[-1]
        done = command("infer", address, inputs, "--verbose", "--link", "lan")
        said = server.communicate(timeout=60)[1]
    finally:
        server.kill()
        server.communicate()

    assert done.returncode == 0 == server.returncode, done.stderr + said
    y = pqjax.reference(GRAPH, WEIGHTS, X).tolist()
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == [str(y)] * 2
    assert "semi-honest" in done.stderr and "2 inferences" in said


@pytest.mark.parametrize(
    "words,message",
    [
        (["serve", "nothing.npz"], "no network at nothing.npz"),
        (["serve", "README.md"], "not a readable network"),
        (["infer", "127.0.0.1:1", "nothing.png"], "no picture at nothing.png"),
        (["infer", "127.0.0.1:1", "README.md"], "not a readable picture"),
        (["infer", "127.0.0.1", "nothing.npy"], "nothing.npy"),
        (["plan", "nothing.npz"], "no network"),
        (["relay", "127.0.0.1:1"], "--link"),
    ],
)
def test_expected_failures_are_one_line_and_no_traceback(words, message):
    done = command(*words)

    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("pqjax: ")
