"""The relay changes when bytes arrive, never which."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import accept_wire

from pqjax.errors import AddressError, PeerGone
from pqjax.wire.address import parse_address
from pqjax.wire.link import Link
from pqjax.wire.listener import Listener
from pqjax.wire.relay import Relay, _Lane, default_queue_bytes, main
from pqjax.wire.tcp import dial


class Bench:
    """A relay in front of a listening socket; `connect` gives the two ends."""

    def __init__(self, link, queue_bytes=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30.0)
        target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.relay = Relay(target, link, queue_bytes)

    @contextlib.contextmanager
    def connect(self):
        with socket.create_connection(parse_address(self.relay.address), 30.0) as near:
            far, _ = self.listener.accept()
            far.settimeout(30.0)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with far:
                yield near, far

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.relay.close()
        self.listener.close()


@pytest.fixture(scope="module")
def bench():
    with Bench(Link(mbps=2000, rtt_ms=1)) as made:
        yield made


def read_all(sock):
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


@settings(deadline=None, max_examples=30)
@given(
    there=st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
    back=st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
)
def test_bytes_pass_unchanged_both_ways(bench, there, back):
    with bench.connect() as (near, far):
        for i in range(max(len(there), len(back))):
            if i < len(there):
                near.sendall(there[i])
            if i < len(back):
                far.sendall(back[i])
        near.shutdown(socket.SHUT_WR)
        far.shutdown(socket.SHUT_WR)

        assert read_all(far) == b"".join(there)
        assert read_all(near) == b"".join(back)


@pytest.mark.parametrize(
    "queue_bytes,n",
    [
        (1000, 1 << 18),
        pytest.param(1000, 1 << 21, marks=pytest.mark.slow),
        (100_000, 1 << 21),
        (None, 1 << 21),
    ],
)
def test_many_bytes_cross_unchanged_through_queues_of_any_length(queue_bytes, n):
    x, y = os.urandom(n), os.urandom(n)

    with Bench(Link(mbps=4000, rtt_ms=0.2), queue_bytes) as bench, bench.connect() as (near, far):

        def send(sock, content):
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=send, args=args) for args in ((near, x), (far, y))]
        got = {}
        threads += [
            threading.Thread(target=lambda k=k, s=s: got.update({k: read_all(s)}))
            for k, s in (("near", near), ("far", far))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert got == {"near": y, "far": x}


def test_half_a_close_leaves_the_other_half_open(bench):
    with bench.connect() as (near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert read_all(far) == b"question"

        far.sendall(b"answer")
        far.shutdown(socket.SHUT_WR)
        assert read_all(near) == b"answer"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("dying", [0, 1])
def test_the_death_of_a_peer_passes_through(bench, dying, reset):
    with bench.connect() as ends:
        dead, alive = ends[dying], ends[1 - dying]
        if reset:
            dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dead.close()

        try:
            assert alive.recv(1) == b""
        except ConnectionResetError:
            assert reset


def test_writing_to_a_dead_peer_fails_through_the_relay(bench):
    with bench.connect() as (near, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()

        with pytest.raises(ConnectionError):
            for _ in range(1000):
                near.sendall(bytes(1000))
                time.sleep(0.01)


def test_connections_are_independent(bench):
    with bench.connect() as (near1, far1), bench.connect() as (near2, far2):
        near1.sendall(b"one")
        far2.sendall(b"two")

        assert far1.recv(3) == b"one"
        assert near2.recv(3) == b"two"


def test_no_target_is_a_closed_connection():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        target = f"127.0.0.1:{sock.getsockname()[1]}"

    with Relay(target, Link(1000, 1)) as relay:
        with pytest.raises(PeerGone), dial(relay.address) as wire:
            wire.recv(1, "hello")


def test_a_delay_and_a_rate_are_applied():
    with Bench(Link(mbps=40, rtt_ms=200)) as bench, bench.connect() as (near, far):
        began = time.monotonic()
        near.sendall(b"x")
        far.recv(1)
        one_way = time.monotonic() - began

        thread = threading.Thread(target=lambda: (near.sendall(bytes(1 << 20)), near.close()))
        began = time.monotonic()
        thread.start()
        read_all(far)
        thread.join()
        bulk = time.monotonic() - began

    assert one_way >= 0.1
    assert bulk >= 0.1 + (1 << 23) / 40e6 * 0.99


def test_a_full_queue_holds_the_sender_back():
    with Bench(Link(mbps=10_000, rtt_ms=1), 1 << 16) as bench, bench.connect() as (near, _):
        near.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            for _ in range(256):
                sent += near.send(bytes(1 << 20))

    assert sent < 128 << 20  # what sockets themselves hold, not all of 256 MiB


def test_the_link_sends_one_byte_after_the_other():
    lane = _Lane(Link(mbps=8, rtt_ms=20))  # a byte per microsecond

    first, second = lane.arrival(1000, now=5.0), lane.arrival(500, now=5.0)
    after_a_pause = lane.arrival(100, now=7.0)

    assert (first, second, after_a_pause) == pytest.approx((5.011, 5.0115, 7.0101))


def test_the_default_queue_holds_what_is_in_flight():
    assert default_queue_bytes(Link(200, 13)) > 200e6 / 8 * 6.5e-3
    assert default_queue_bytes(Link(1, 0)) == 256 << 10


def test_wires_work_through_a_relay():
    with Listener("127.0.0.1:0") as listener, Relay(listener.address, Link(2000, 1)) as relay:
        with dial(relay.address) as a, accept_wire(listener) as b:
            a.send(b"there", 1, "x")
            b.send(b"back", 2, "x")
            assert b.recv(5, "x")[0].tobytes() == b"there"
            assert a.recv(4, "x")[0].tobytes() == b"back"


def test_the_relay_ends_with_its_parent():
    script = (
        "import time\n"
        "from pqjax.wire.link import Link\n"
        "from pqjax.wire.relay import Relay\n"
        "relay = Relay('127.0.0.1:9', Link(1, 1))\n"
        "print(relay.address, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        place = parse_address(parent.stdout.readline().decode().strip())
        socket.create_connection(place).close()
        parent.send_signal(signal.SIGKILL)
    give_up = time.monotonic() + 30.0

    while time.monotonic() < give_up:
        try:
            socket.create_connection(place).close()
        except ConnectionError:
            return
        time.sleep(0.05)
    pytest.fail("the relay outlives its parent")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["127.0.0.1", "--link", "lan"], "cannot read the address"),
        (["192.0.2.1:80", "--link", "lan"], "loopback addresses only"),
        (["127.0.0.1:80", "--link", "none"], "needs a link"),
        (["127.0.0.1:80", "--link", "soon"], "cannot read the link"),
        (["127.0.0.1:80", "--link", "lan", "--queue-bytes", "0"], "at least 1 byte"),
    ],
)
def test_the_program_refuses_bad_arguments(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_relay_refuses_a_target_off_loopback():
    with pytest.raises(AddressError, match="loopback"):
        Relay("192.0.2.1:7700", Link(1, 1))
