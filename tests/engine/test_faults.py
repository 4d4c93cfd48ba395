"""Peers that vanish, stall, lie or talk nonsense: one typed error a living side, and on it goes."""

import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving import GRAPH, PLAN, WEIGHTS, X, answers, command, command_here, served_process, serving

import pqjax
from pqjax.engine.commands import MOST_PREPARED
from pqjax.errors import (
    AddressError,
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PeerGone,
    SessionEnded,
    WireError,
)
from pqjax.wire.handshake import PROTOCOL_VERSION, greet_server
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import dial

ROOT = pathlib.Path(__file__).parents[2]


def test_several_inferences_and_preparations_in_one_session():
    with serving() as (address, ends):
        with pqjax.connect(address, plan=PLAN) as session:
            session.prepare()
            session.prepare()
            outputs = [session.infer(X).output for _ in range(3)]
        trace = ends.get(timeout=30)

    for y in outputs:
        np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    assert trace.bits()[0] == session.trace.bits()[1]


def test_a_client_that_is_killed_in_a_layer_ends_its_session_only():
    with serving() as (address, ends):
        session = pqjax.connect(address, deadline_s=30.0)
        session.prepare()
        wire = session._party.messenger.wire
        session._party.messenger.send(np.array([2], np.uint8), 8)  # infer, and then nothing more
        wire.close()
        error = ends.get(timeout=30)

        assert isinstance(error, PeerGone) and "conv1/masked input" in str(error)
        answers(address)


def test_an_idle_client_is_given_up_after_the_idle_limit_and_told_why(monkeypatch):
    monkeypatch.setattr("pqjax.wire.tcp.ALIVE_S", 0.05)  # that it lives makes no difference
    with serving(idle_s=0.3) as (address, ends):
        session = pqjax.connect(address, deadline_s=60.0)
        error = ends.get(timeout=30)
        assert session.trace.alive_bytes[0] > 0

        assert isinstance(error, DeadlineExceeded) and "begin: idle for 0.3 s" in str(error)
        with pytest.raises(SessionEnded, match="idle for 0.3 s") as caught:
            session.infer(X)
        assert caught.value.reason == "idle"
        answers(address)


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
        session.close()


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
            for plan in (None, PLAN):
                with pytest.raises(HandshakeError, match="busy"):
                    pqjax.connect(address, plan=plan)
                assert "busy" in str(ends.get(timeout=30))
            session.infer(X)


def test_a_session_used_from_two_threads_says_so_and_goes_on():
    begun, go_on, refused = threading.Event(), threading.Event(), []

    def pause(where, done, steps):
        begun.set()
        assert go_on.wait(30)

    with serving() as (address, _), ThreadPoolExecutor(1) as pool:
        session = pqjax.connect(address, progress=pause)
        first = pool.submit(session.infer, X)
        assert begun.wait(30)
        for call in (session.prepare, lambda: session.infer(X), session.close):
            with pytest.raises(InputError, match="at work on another call") as caught:
                call()
            refused.append(caught.value)
        go_on.set()
        y = first.result(60).output
        session.close()

    assert len(refused) == 3
    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))


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


def named_in(error, plan):
    """Whether an error begins with the layer at which it happened."""
    return str(error).split("/")[0].split(":")[0] in {node.name for node in plan.graph}


@pytest.mark.parametrize("protocol", ["pqjax", "privquant"])
def test_a_client_that_is_killed_in_its_last_layer_ends_its_session_only(protocol):
    plan = pqjax.plan(GRAPH, protocol)
    last = [step.node.name for step in plan.steps if step.variant][-1]
    session = None

    def killer(where, done, steps):
        if where == f"online/{last}" and session is not None:
            session._party.messenger.wire.abort()

    with serving(plan=plan) as (address, ends):
        session = pqjax.connect(address, plan=plan, deadline_s=30.0, progress=killer)
        with pytest.raises(WireError):
            session.infer(X)
        error = ends.get(timeout=30)
        session = None

        assert isinstance(error, PeerGone) and named_in(error, plan), error
        answers(address)


def test_a_client_that_stalls_in_a_layer_is_given_up_and_the_layer_named():
    with serving(deadline_s=1.0) as (address, ends):
        session = pqjax.connect(address, deadline_s=60.0)
        session.prepare()
        session._party.messenger.send(np.array([2], np.uint8), 8)  # infer, and then nothing more
        error = ends.get(timeout=30)
        session._party.messenger.wire.abort()

        assert isinstance(error, DeadlineExceeded) and named_in(error, PLAN), error


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 65535])
def test_a_client_of_another_version_is_refused(version):
    with serving() as (address, ends):
        wire = dial(address, deadline_s=30.0)
        hello = struct.pack("<8sHBx32s4x", b"pqjax\r\n\0", version, 1, bytes(32))
        wire.send(hello, 0, "handshake")
        wire.send(struct.pack("<B7x", 1), 0, "handshake")  # its verdict: versions differ
        error = ends.get(timeout=30)
        wire.abort()

        assert isinstance(error, HandshakeError) and f"client {version}" in str(error)
        answers(address)


def test_too_many_preparations_are_refused_and_the_session_goes_on():
    with serving() as (address, _):
        with pqjax.connect(address) as session:
            for _ in range(MOST_PREPARED):
                session.prepare()
            with pytest.raises(InputError, match="in store"):
                session.prepare()
            y = session.infer(X).output

    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))


def test_a_server_process_that_is_killed_mid_inference_is_noticed(tmp_path):
    with served_process(tmp_path) as (address, server):

        def killer(where, done, steps):
            if where == f"online/{session.plan.graph.output.name}":
                server.kill()
                server.wait()

        session = pqjax.connect(address, deadline_s=30.0, progress=killer)
        with pytest.raises(PeerGone) as caught:
            session.infer(X)

        assert named_in(caught.value, session.plan), caught.value


def test_two_processes_talk_over_mutual_tls_and_refuse_plaintext(tmp_path):
    pytest.importorskip("cryptography")
    assert command("certs", tmp_path / "pki").returncode == 0
    with served_process(tmp_path, "--tls", tmp_path / "pki") as (address, _):
        plain = command("infer", address, tmp_path / "x.npy", "--deadline", "5")
        done = command("infer", address, tmp_path / "x.npy", "--tls", tmp_path / "pki", "--verbose")

    y = pqjax.reference(GRAPH, WEIGHTS, X).tolist()
    assert plain.returncode == 1 and "Traceback" not in plain.stderr
    assert plain.stderr.strip().splitlines()[-1].startswith("pqjax: ")
    assert done.returncode == 0 and done.stdout.strip().endswith(str(y)), done.stderr


def test_bad_files_at_the_command_line_leave_the_server_serving(tmp_path):
    bad = {
        "scalar": np.int64(3),
        "empty": np.zeros((0, *X.shape), int),
        "float": X * 1.0,
        "range": X + 4000,
        "shape": X[:-1],
        "object": np.array([{}], dtype=object),
    }
    for name, value in bad.items():
        np.save(tmp_path / f"{name}.npy", value)
    np.savez(tmp_path / "archive.npz", x=X)
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    with served_process(tmp_path) as (address, _):
        for name in [*bad, "archive"]:
            done = command_here("infer", address, tmp_path / f"{name}.npy")
            assert done.returncode == 1 and "Traceback" not in done.stderr, f"{name}: {done.stderr}"
            assert done.stderr.strip().splitlines()[-1].startswith("pqjax: "), name
        lost = command_here("infer", address, tmp_path / "x.npy", "--trace", tmp_path / "no/t.json")
        used = command_here("serve", tmp_path / "net.npz", "--listen", address)
        good = command_here("infer", address, tmp_path / "x.npy")

    assert lost.returncode == 2 and "there is no folder" in lost.stderr
    assert used.returncode == 1 and "in use" in used.stderr
    assert "Traceback" not in lost.stderr + used.stderr
    assert good.returncode == 0


def test_a_damaged_model_is_refused_in_one_line(tmp_path):
    model = tmp_path / "net.npz"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    model.write_bytes(model.read_bytes()[:-50])

    done = command_here("serve", model)

    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("pqjax: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "x.npz", "--clients", "-1"],
        ["serve", "x.npz", "--sessions", "0"],
        ["infer", "127.0.0.1:1", "x.npy", "--deadline", "-1"],
        ["plan", "x.npz", "--link", "fast"],
        ["guess"],
    ],
)
def test_options_out_of_range_are_usage_errors(words):
    done = command_here(*words)

    assert done.returncode == 2 and "usage:" in done.stderr and "Traceback" not in done.stderr


def test_a_missing_data_folder_is_one_line(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PQJAX_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train_nets"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip

    assert done.returncode == 1 and "PQJAX_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_command_line_runs_two_processes(tmp_path):
    model, inputs = tmp_path / "net.npz", tmp_path / "x.npy"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    np.save(inputs, np.stack([X, X]))
    asked = tmp_path / "asked.json"
    asked.write_text("somebody may read this")
    asked.chmod(0o644)
    server = subprocess.Popen(
        [sys.executable, "-m", "pqjax.cli", "serve", str(model), "--listen", "127.0.0.1:0",
         "--sessions", "1", "--trace", str(tmp_path / "served.json")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[-1]
        done = command("infer", address, inputs, "--verbose", "--link", "lan", "--trace", asked)
        said = server.communicate(timeout=60)[1]
    finally:
        server.kill()
        server.communicate()

    assert done.returncode == 0 == server.returncode, done.stderr + said
    y = pqjax.reference(GRAPH, WEIGHTS, X).tolist()
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == [str(y)] * 2
    assert "semi-honest" in done.stderr and "2 inferences" in said
    for path in (asked, tmp_path / "served.json"):  # answers and traces are their owner's alone
        assert path.stat().st_mode & 0o777 == 0o600
        report = json.loads(path.read_text())
        assert report["differences"] == []
        first, second = report["inferences"]
        assert first["setup"]["sent_bits"] > 0 == second["setup"]["sent_bits"]
        assert first["offline"]["sent_bits"] > second["offline"]["sent_bits"] > 0  # OTs left over
        assert first["online"]["sent_bits"] == second["online"]["sent_bits"] > 0


def test_a_server_without_its_certificates_says_so_before_it_listens(tmp_path):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)

    done = command("serve", tmp_path / "net.npz", "--listen", "127.0.0.1:0", "--tls", tmp_path)

    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert f"cannot read the TLS file {tmp_path / 'server.pem'}" in done.stderr


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
    done = command_here(*words)

    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("pqjax: ")
