"""No connection ends the server or shuts it for others, whatever it does before it has greeted."""

import contextlib
import dataclasses
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from peers import HELLO, accept_wire, ended, reset, silent, trickling
from serving import GRAPH, PLAN, WEIGHTS, X, answers, serving

import pqjax
from pqjax.engine.commands import PREPARE
from pqjax.engine.events import Events
from pqjax.errors import DeadlineExceeded, Drift, HandshakeError, InputError, WireError
from pqjax.wire.handshake import greet_client, greet_server, only
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import dial

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """(server's, client's) TLS files under one authority."""
    pytest.importorskip("cryptography", reason="certificates need pqjax[tls]")
    folder = tmp_path_factory.mktemp("certificates")
    pqjax.make_certificates(folder)
    return tuple(
        pqjax.Tls(folder / f"{role}.pem", folder / f"{role}.key", folder / "ca.pem")
        for role in ("server", "client")
    )


@pytest.fixture(params=["plain", "tls"])
def sides(request):
    """Options of (server, client) for a connection with and without TLS."""
    if request.param == "plain":
        return {}, {}
    server, client = request.getfixturevalue("certificates")
    return {"tls": server}, {"tls": client}


def secured(address, tls):
    """A raw connection on which TLS, if any, is done."""
    raw = silent(address)
    if tls is None:
        return raw
    return tls.context(server=False).wrap_socket(raw, server_hostname="127.0.0.1")


def test_resets_before_the_greeting_end_those_connections_only(sides):
    with serving(**sides[0]) as (address, ends):
        for _ in range(20):
            reset(address)
        failures = [ends.get(timeout=30) for _ in range(20)]
        answers(address, **sides[1])

    assert all(isinstance(failure, WireError) for failure in failures)


def test_a_key_file_that_became_unreadable_matters_to_nobody(certificates, tmp_path):
    shutil.copy(certificates[0].key, tmp_path / "server.key")
    server = dataclasses.replace(certificates[0], key=tmp_path / "server.key")

    with serving(tls=server) as (address, _):
        (tmp_path / "server.key").unlink()
        answers(address, tls=certificates[1])


def test_silent_sockets_do_not_exhaust_the_descriptors(tmp_path):
    model = tmp_path / "net.npz"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    words = [sys.executable, "-m", "pqjax.cli", "serve", str(model), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(
        ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        with contextlib.ExitStack() as stack:
            for more in (80, 120):  # 200 in all
                for _ in range(more):
                    stack.enter_context(silent(address))
                answers(address)
    finally:
        server.kill()
        server.communicate()


def test_silent_sockets_do_not_keep_an_honest_client_waiting(sides):
    with serving(deadline_s=30.0, greeting_s=30.0, **sides[0]) as (address, _):
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(silent(address))
            answers(address, deadline_s=15.0, **sides[1])


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:-1]], ids=len)
def test_who_has_not_said_hello_takes_no_seat(said):
    with serving(most_clients=2) as (address, _), silent(address) as a, silent(address) as b:
        for sock in (a, b):
            sock.sendall(said)
        time.sleep(0.1)
        answers(address)


def test_who_says_hello_and_no_more_keeps_a_seat_for_the_time_of_a_greeting_only():
    with serving(most_clients=1, greeting_s=0.5) as (address, ends), silent(address) as raw:
        raw.sendall(HELLO)
        failure = ends.get(timeout=30)
        assert ended(raw, 10.0)
        answers(address)

    assert isinstance(failure, DeadlineExceeded)


@pytest.mark.parametrize("said", [0, 20, len(HELLO), len(HELLO) + 8])
def test_a_peer_that_trickles_its_greeting_is_given_up_in_time(sides, said):
    greeting = HELLO + struct.pack("<IIQB7x", 1, 0, 8, 0)
    server, client = sides
    with serving(greeting_s=0.5, **server) as (address, ends):
        with secured(address, client.get("tls")) as raw:
            raw.sendall(greeting[:said])
            with trickling(raw, greeting[said:][:1] + bytes(999), 0.05):
                failure = ends.get(timeout=10)

    assert isinstance(failure, DeadlineExceeded), failure


def test_a_peer_that_trickles_its_tls_handshake_is_given_up_in_time(certificates):
    with serving(tls=certificates[0], greeting_s=0.5) as (address, ends), silent(address) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00")
        with trickling(raw, b"\1", 0.05):
            failure = ends.get(timeout=10)
        assert ended(raw, 10.0)

    assert isinstance(failure, HandshakeError) and "not done in time" in str(failure)


def test_a_client_that_trickles_into_a_frame_is_given_up_and_the_step_named():
    with serving(deadline_s=0.5) as (address, ends):
        wire = dial(address)
        greet_server(wire, PLAN.digest)
        with trickling(wire._sock, struct.pack("<IIQ", 2, 1, 1 << 20) + bytes(1000), 0.1):
            failure = ends.get(timeout=10)
        wire.abort()

    assert isinstance(failure, DeadlineExceeded) and "is not whole" in str(failure), failure
    assert "base ot" in str(failure)


def test_a_server_that_trickles_is_given_up_by_its_client():
    with Listener("127.0.0.1:0") as listener, ThreadPoolExecutor(1) as pool:
        for greeted in (False, True):
            client = pool.submit(pqjax.connect, listener.address, plan=PLAN, deadline_s=0.5)
            if greeted:
                wire = accept_wire(listener)
                greet_client(wire, only(PLAN.document))
                raw, content = wire._sock, struct.pack("<IIQ", 2, 1, 1 << 20) + bytes(1000)
            else:
                raw, content = listener.accept(30.0)[0], HELLO
            with trickling(raw, content, 0.1), pytest.raises(DeadlineExceeded, match="not whole"):
                client.result(30)
            wire.abort() if greeted else raw.close()


def test_above_the_cap_the_connection_that_waited_longest_goes():
    with serving(greeting_s=60.0, most_waiting=3) as (address, ends):
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(silent(address)) for _ in range(8)]
            failures = [ends.get(timeout=30) for _ in range(5)]
            answers(address)  # it comes last and greets at once; another makes room

            assert all(ended(sock, 10.0) for sock in socks[:5])
            assert not ended(socks[-1], 0.05)

    assert all("3 others have not greeted" in str(failure) for failure in failures)


def test_who_has_said_something_outlasts_those_who_have_not():
    with serving(greeting_s=60.0, most_waiting=3) as (address, ends), silent(address) as spoke:
        spoke.sendall(HELLO[:20])
        time.sleep(0.1)
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(silent(address))
            for _ in range(6):
                ends.get(timeout=30)
            assert not ended(spoke, 0.05)


def test_a_thread_that_cannot_be_started_costs_one_connection(monkeypatch):
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def scarce(thread):
        if thread.name == "pqjax-client" and failures:
            raise failures.pop()
        start(thread)

    with serving() as (address, ends):
        monkeypatch.setattr(threading.Thread, "start", scarce)
        with silent(address) as raw:
            assert ended(raw, 10.0)
        failure = ends.get(timeout=30)
        answers(address)

    assert isinstance(failure, WireError) and "can't start new thread" in str(failure)


def test_events_that_raise_do_not_end_the_server(capfd):
    faults = []

    def fail(*_):
        faults.append(1)
        raise KeyError("a caller's bug")

    class Faulty(Events):
        def ended(self, visit, trace, error):
            fail()

        def refused(self, client, error):
            fail()

    with serving(events=Faulty()) as (address, _):
        reset(address)
        answers(address)
        pqjax.connect(address).close()
    with serving(progress=fail) as (address, ends):
        with pytest.raises(WireError):
            answers(address)
        failure = ends.get(timeout=30)

    assert len(faults) == 4 and capfd.readouterr().err.count('KeyError: "a caller\'s bug"') == 3
    assert "internal error in this session: KeyError" in str(failure)


def test_only_what_has_greeted_counts_as_a_session():
    server = pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0", deadline_s=30.0)
    running = threading.Thread(target=server.run, args=(2,), daemon=True)
    running.start()
    with silent(server.address):
        for _ in range(5):
            reset(server.address)
        with pytest.raises(HandshakeError, match="plan"):
            pqjax.connect(server.address, plan=pqjax.plan(GRAPH, protocol="privquant"))
        answers(server.address)
        assert running.is_alive()
        session = pqjax.connect(server.address)
        session._party.messenger.wire.abort()  # a session that ends in an error has ended too
        running.join(30)

    assert not running.is_alive()
    assert [t.name for t in threading.enumerate() if t.name.startswith("pqjax")] == []


def test_a_client_that_has_closed_may_come_again_at_once():
    with serving(most_clients=1) as (address, _):
        for _ in range(4):
            pqjax.connect(address).close()


def test_closing_ends_those_who_wait_and_those_who_are_served():
    with contextlib.ExitStack() as stack:
        with serving() as (address, ends):
            raw = stack.enter_context(silent(address))
            session = pqjax.connect(address, deadline_s=30.0)
        # `serving` has closed and found no thread of a connection left.
        failures = {str(ends.get(timeout=30)) for _ in range(2)}
        assert ended(raw, 10.0)

    with pytest.raises(WireError):
        session.infer(X)
    assert any("the server is closing" in text for text in failures)


def test_a_clock_that_nothing_explains_is_drift_and_not_an_error_of_a_later_send():
    with serving() as (address, ends):
        session = pqjax.connect(address)
        wire = session._party.messenger.wire
        wire.send(np.array([PREPARE], np.uint8), 2**32 - 1, "a lie")
        failure = ends.get(timeout=30)
        wire.abort()

    assert isinstance(failure, Drift) and "begin: expected a clock of at most" in str(failure)


@pytest.mark.parametrize(
    "options",
    [{"most_clients": 0}, {"most_waiting": 0}, {"greeting_s": 0}, {"deadline_s": -1.0}]
    + [{"idle_s": 0}, {"drain_s": float("inf")}, {"idle_s": float("nan")}],
    ids=str,
)
def test_options_out_of_range_are_input_errors(options):
    with pytest.raises(InputError, match="got"):
        pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0", **options)
