"""What only a socket can do to us: garbage, half frames, dead peers, bad addresses."""

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import accept_wire, ended, trickling

from pqjax.errors import AddressError, DeadlineExceeded, Drift, HandshakeError, PeerGone, WireError
from pqjax.wire.address import parse_address
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import TcpWire, dial

pytestmark = pytest.mark.usefixtures("no_thread_left")


def header(step, clock, nbytes):
    return struct.pack("<IIQ", step, clock, nbytes)


@contextlib.contextmanager
def wire_and_raw(**options):
    """A wire, and the bare socket at its other end."""
    with Listener("127.0.0.1:0") as listener:
        host, port = parse_address(listener.address)
        raw = socket.create_connection((host, port))
        wire = accept_wire(listener, **options)
    raw.settimeout(30.0)
    with raw:
        try:
            yield wire, raw
        finally:
            wire.abort()


def test_the_frame_on_the_stream_is_what_we_document():
    with wire_and_raw() as (wire, raw):
        wire.send(b"abc", 9, "x")
        wire.send(b"", 10, "x")
        wire.close()

        stream = b"".join(iter(lambda: raw.recv(1000), b""))

    assert stream == header(0, 9, 3) + b"abc" + header(1, 10, 0)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_survive_any_chunking(lengths, cuts):
    stream = b"".join(header(i, i % 2, n) + bytes([i]) * n for i, n in enumerate(lengths))

    with wire_and_raw() as (wire, raw):
        tickets = [wire.expect(n, "x") for n in lengths]
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        for i in range(len(stream)):
            if at >= len(stream):
                break
            cut = cuts[i % len(cuts)]
            raw.sendall(stream[at : at + cut])
            at += cut
        got = [ticket.wait() for ticket in tickets]

    assert [(a.tobytes(), clock) for a, clock in got] == [
        (bytes([i]) * n, i % 2) for i, n in enumerate(lengths)
    ]


def test_another_step_is_drift():
    with wire_and_raw() as (wire, raw):
        raw.sendall(header(0, 0, 0) + header(18, 0, 12) + b"x" * 12)
        wire.recv(0, "conv1")

        with pytest.raises(Drift) as caught:
            wire.recv(4096, "conv2/mill.leaf")

    assert str(caught.value) == (
        "conv2/mill.leaf: expected step 1 with 4096 bytes, got step 18 with 12 bytes: the two "
        "parties run different plans or the stream is corrupt"
    )


def test_an_oversized_length_is_refused_before_memory_is_allocated(monkeypatch):
    asked = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda n, *rest: asked.append(n) or empty(n, *rest))

    with wire_and_raw() as (wire, raw):
        raw.sendall(header(0, 0, 1 << 60))
        with pytest.raises(
            Drift, match="expected step 0 with 16 bytes, got .* 1152921504606846976"
        ):
            wire.recv(16, "conv1")

    assert asked == []


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(range(1, 200))]
)
def test_garbage_at_the_start_is_no_pqjax_peer(garbage):
    with wire_and_raw() as (wire, raw):
        raw.sendall(garbage)

        with pytest.raises(HandshakeError, match="hello: not a pqjax peer"):
            wire.recv(48, "hello")
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""  # it hears of it at once


@pytest.mark.parametrize("part", [1, 15, 16, 20, 115])
def test_a_peer_that_leaves_mid_frame_is_gone(part):
    with wire_and_raw() as (wire, raw):
        ticket = wire.expect(100, "conv3/rot")
        raw.sendall((header(0, 0, 100) + bytes(100))[:part])
        raw.close()

        with pytest.raises(PeerGone, match=f"conv3/rot: .* middle of a frame, {part} bytes"):
            ticket.wait()


def test_a_reset_is_peer_gone():
    with wire_and_raw() as (wire, raw):
        ticket = wire.expect(100, "conv3/rot")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()

        with pytest.raises(PeerGone, match="conv3/rot"):
            ticket.wait()


def test_a_killed_process_is_peer_gone():
    script = (
        "import socket, struct, sys, time\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "s.sendall(struct.pack('<IIQ', 0, 0, 1000) + bytes(10))\n"
        "print('sent', flush=True)\n"
        "time.sleep(600)\n"
    )
    with Listener("127.0.0.1:0") as listener:
        port = str(parse_address(listener.address)[1])
        peer = subprocess.Popen([sys.executable, "-c", script, port], stdout=subprocess.PIPE)
        wire = accept_wire(listener, 60.0)
    with peer, wire:
        ticket = wire.expect(1000, "layer4/conv")
        assert peer.stdout is not None
        peer.stdout.readline()
        peer.send_signal(signal.SIGKILL)

        with pytest.raises(PeerGone, match="layer4/conv"):
            ticket.wait()


def test_what_a_dead_peer_sent_before_can_still_be_read():
    with wire_and_raw() as (wire, raw):
        ticket = wire.expect(3, "x")
        raw.sendall(header(0, 1, 3) + b"abc")
        raw.close()
        for _ in range(20):
            with contextlib.suppress(PeerGone):
                wire.send(bytes(1000), 0, "into the void")
                time.sleep(0.01)

        assert ticket.wait()[0].tobytes() == b"abc"
        with pytest.raises(PeerGone):
            wire.recv(1, "y")


def test_close_says_if_queued_frames_were_lost():
    with wire_and_raw(deadline_s=0.4) as (wire, _):
        wire.send(np.zeros(48 << 20, np.uint8), 0, "conv1")

        with pytest.raises(DeadlineExceeded, match="close: the other party took none"):
            wire.close()
        wire.close()


def test_a_slow_peer_is_no_stalled_peer():
    payload = bytes(range(256)) * 64  # 16 KiB: 2 s beyond the deadline are granted
    with wire_and_raw(deadline_s=0.5) as (wire, raw):
        ticket = wire.expect(len(payload), "x")

        def send_slowly():
            raw.sendall(header(0, 0, len(payload)))
            for i in range(8):
                time.sleep(0.15)  # 1.2 s in all, more than the deadline
                raw.sendall(payload[i * 2048 : (i + 1) * 2048])

        sender = threading.Thread(target=send_slowly)
        sender.start()
        assert ticket.wait()[0].tobytes() == payload
        sender.join()


@pytest.mark.parametrize("before", [0, 10, 16, 30], ids=lambda n: f"{n} bytes at once")
def test_a_peer_that_trickles_into_a_frame_exceeds_the_deadline(before):
    stream = header(0, 0, 1000) + bytes(1000)
    with wire_and_raw(deadline_s=0.5) as (wire, raw), ThreadPoolExecutor(1) as pool:
        raw.sendall(stream[:before])
        waiting = pool.submit(wire.recv, 1000, "conv5/mill.leaf")
        with trickling(raw, bytes(1000), 0.1):  # well within the deadline from byte to byte
            with pytest.raises(DeadlineExceeded) as caught:
                waiting.result(30)

    assert str(caught.value).startswith("conv5/mill.leaf: a frame of 1000 bytes is not whole 0.6")


def test_a_trickle_before_anybody_waits_does_not_count():
    with wire_and_raw(deadline_s=0.5) as (wire, raw):
        for byte in header(0, 0, 5):
            raw.sendall(bytes([byte]))
            time.sleep(0.05)
        raw.sendall(b"hello")  # 0.8 s after the first byte, while this side computes

        assert wire.recv(5, "x")[0].tobytes() == b"hello"


@pytest.mark.parametrize("last", ["send", "close"])
def test_a_peer_that_takes_a_little_now_and_then_exceeds_the_deadline(last, monkeypatch):
    monkeypatch.setattr("pqjax.wire.channel.SLOWEST_BYTES_PER_S", 1 << 20)
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = TcpWire(near, deadline_s=0.5, window_bytes=1 << 18)
    over = threading.Event()

    def nibble():
        while not over.wait(0.05):
            far.recv(4096)  # 80 kB a second: always some within the deadline

    taker = threading.Thread(target=nibble)
    with far:
        taker.start()
        wire.send(bytes(1 << 18), 0, "conv7")
        with pytest.raises(DeadlineExceeded) as caught:
            wire.send(bytes(1 << 18), 0, "conv7") if last == "send" else wire.close()
        over.set()
        taker.join()
    wire.abort()

    assert "fewer than 1048576 a second" in str(caught.value)


def test_a_wait_ends_at_the_moment_set_for_it():
    with wire_and_raw(deadline_s=60.0) as (wire, raw), trickling(raw, bytes(100), 0.05):
        wire.until = time.monotonic() + 0.4
        with pytest.raises(DeadlineExceeded, match="handshake: not done in the time"):
            wire.recv(1000, "handshake")
        assert ended(raw, 10.0)


@pytest.mark.parametrize("clock", [2, 8, 2**32 - 1])
def test_a_clock_that_nothing_explains_is_drift_before_memory_is_allocated(clock, monkeypatch):
    asked = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda n, *rest: asked.append(n) or empty(n, *rest))

    with wire_and_raw() as (wire, raw):
        raw.sendall(header(0, clock, 16) + bytes(16))
        with pytest.raises(Drift, match=f"conv1: expected a clock of at most 1 .* got {clock}"):
            wire.recv(16, "conv1")

    assert asked == []


def test_a_peer_that_stalls_mid_frame_exceeds_the_deadline():
    with wire_and_raw(deadline_s=0.4) as (wire, raw):
        raw.sendall(header(0, 0, 100) + bytes(50))

        with pytest.raises(DeadlineExceeded, match="conv5"):
            wire.recv(100, "conv5")


def test_reading_waits_for_a_ticket():
    with wire_and_raw() as (wire, raw):
        raw.sendall(header(0, 0, 5) + b"early")
        time.sleep(0.1)

        assert wire.received_bytes == 0
        assert wire.recv(5, "x")[0].tobytes() == b"early"


def test_a_wire_takes_any_stream_socket():
    a, b = (TcpWire(sock) for sock in socket.socketpair())

    with a, b:
        a.send(b"x", 0, "x")
        assert b.recv(1, "x")[0].tobytes() == b"x"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:7700", ("127.0.0.1", 7700)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:7700", ("::1", 7700)),
    ],
)
def test_addresses_are_read(text, parts):
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":7700", "localhost:", "localhost:http", "localhost:65536", "localhost:-1"]
    + ["::1:7700", "localhost:7 7", "[]:1", "localhost:\u0661", "127.0.0.1\0.example.org:7700"]
    + ["local\nhost:1", "\udcff:1", "localhost:" + "1" * 5000, "1" * 5000, "a:" * 5000 + "1"],
    ids=lambda text: ascii(text)[:30],
)
def test_malformed_addresses_are_refused(text):
    for use in (parse_address, dial, Listener):
        with pytest.raises(AddressError, match="127.0.0.1:7700") as caught:
            use(text)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_an_unknown_host_is_an_address_error(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(AddressError, match="cannot resolve .*no.such.host"):
        dial("no.such.host:7700")


def test_a_port_in_use_is_said_so():
    with Listener("127.0.0.1:0") as listener:
        port = parse_address(listener.address)[1]

        with pytest.raises(AddressError) as caught:
            Listener(listener.address)

    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use by another process; choose another with --listen"
    )


def test_a_port_is_free_again_after_close():
    with Listener("127.0.0.1:0") as listener:
        address = listener.address
        with dial(address), accept_wire(listener):
            pass

    Listener(address).close()


@pytest.mark.parametrize("use", [dial, Listener])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:7700", "[::]:0"])
def test_off_loopback_needs_tls_or_an_explicit_yes(use, address):
    with pytest.raises(AddressError, match="pqjax certs.*--insecure-plaintext"):
        use(address)


def test_insecure_plaintext_is_taken_at_its_word():
    with Listener("0.0.0.0:0", insecure_plaintext=True) as listener:
        port = parse_address(listener.address)[1]
        with dial(f"127.0.0.1:{port}") as a, accept_wire(listener) as b:
            a.send(b"x", 0, "x")
            assert b.recv(1, "x")[0].tobytes() == b"x"


def test_ipv6_works_where_there_is_any():
    try:
        listener = Listener("[::1]:0")
    except AddressError:
        pytest.skip("no IPv6 loopback here")
    with listener, dial(listener.address) as a, accept_wire(listener) as b:
        a.send(b"x", 0, "x")
        assert listener.address.startswith("[::1]:")
        assert b.recv(1, "x")[0].tobytes() == b"x"


def test_dialling_nobody_is_peer_gone():
    with Listener("127.0.0.1:0") as listener:
        address = listener.address

    with pytest.raises(PeerGone, match=f"nobody listens on {address}"):
        dial(address)


def test_patience_waits_for_a_listener():
    with Listener("127.0.0.1:0") as listener:
        address = listener.address
    late = []
    timer = threading.Timer(0.2, lambda: late.append(Listener(address)))
    timer.start()

    wire = dial(address, patience_s=60.0)

    timer.join()
    wire.abort()
    late[0].close()


def test_accept_gives_up_in_time_and_can_go_on():
    with Listener("127.0.0.1:0") as listener:
        with pytest.raises(DeadlineExceeded, match=listener.address):
            listener.accept(0.1)
        with dial(listener.address), accept_wire(listener):
            pass


def test_closing_a_listener_wakes_accept():
    listener = Listener("127.0.0.1:0")
    timer = threading.Timer(0.1, listener.close)
    timer.start()

    with pytest.raises(WireError, match="closed"):
        listener.accept()

    timer.join()
    listener.close()
    with pytest.raises(WireError, match="closed"):
        listener.accept(0.1)
