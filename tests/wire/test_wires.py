"""What every kind of wire must do: one table of rules, three kinds."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pqjax.errors import DeadlineExceeded, Drift, InputError, PeerGone, WireError
from pqjax.wire.channel import HEADER_BYTES, local_pair
from pqjax.wire.interface import Ticket, Wire

MIB = 1 << 20
SHORT_S = 0.4


def noise(nbytes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)


def test_frames_arrive_in_order_with_their_clocks(join):
    a, b = join()
    payloads = [noise(n, n) for n in (0, 1, 15, 65535, 65536, 65537, MIB, 0, 3 * MIB + 1)]

    clocks = range(2**32 - 2 * len(payloads), 2**32, 2)  # up to the largest there is
    for clock, payload in zip(clocks, payloads, strict=True):
        a.send(payload, clock, "there")
        b.send(payload[::-1], clock + 1, "back")

    for clock, payload in zip(clocks, payloads, strict=True):
        for wire, wanted, tick in ((b, payload, clock), (a, payload[::-1], clock + 1)):
            got, got_clock = wire.recv(len(payload), "here")
            assert got.dtype == np.uint8 and got.shape == payload.shape
            np.testing.assert_array_equal(got, wanted)
            assert got_clock == tick


@pytest.mark.parametrize(
    "payload",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(b"1.2.3.4.5.6.7.8.")[::2],
        np.frombuffer(b"12345678", np.uint64),
        np.frombuffer(b"12345678", np.uint16).reshape(2, 2),
        np.frombuffer(b"1.2.3.4.5.6.7.8.", np.uint8)[::2],
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_any_buffer_can_be_sent(join, payload):
    a, b = join()

    a.send(payload, 0, "x")

    assert b.recv(8, "x")[0].tobytes() == b"12345678"


def test_both_ends_are_wires_and_count_serialized_bytes(join):
    a, b = join()

    for n in (0, 5, 100_000):
        a.send(noise(n), 1, "x")
        b.recv(n, "x")

    assert isinstance(a, Wire) and isinstance(b, Wire)
    assert a.sent_bytes == b.received_bytes == 100_005 + 3 * HEADER_BYTES
    assert a.received_bytes == b.sent_bytes == 0


def test_tickets_are_served_in_the_order_of_expect_not_of_wait(join):
    a, b = join()
    tickets = [b.expect(n, f"t{n}") for n in (3, 1, 2)]

    for text in (b"abc", b"d", b"ef"):
        a.send(text, 1, "x")

    assert all(isinstance(ticket, Ticket) for ticket in tickets)
    assert [ticket.wait()[0].tobytes() for ticket in tickets[::-1]] == [b"ef", b"d", b"abc"]
    assert tickets[0].wait()[0].tobytes() == b"abc"  # a ticket can be read twice


def test_what_arrives_belongs_to_the_receiver(join):
    a, b = join()
    payload = noise(100)
    before = payload.copy()
    a.send(payload, 0, "x")

    got, _ = b.recv(100, "x")
    got[:] = 0

    np.testing.assert_array_equal(payload, before)


def test_another_length_is_drift_on_one_side_and_peer_gone_on_the_other(join):
    a, b = join()
    a.send(b"fine", 0, "conv1")
    b.recv(4, "conv1")
    waiting = a.expect(1, "relu1")
    ticket, later = b.expect(4096, "conv2/mill.leaf"), b.expect(1, "conv3")

    a.send(b"twelve bytes", 0, "conv2")

    with pytest.raises(Drift) as caught:
        ticket.wait()
    assert str(caught.value) == (
        "conv2/mill.leaf: expected step 1 with 4096 bytes, got step 1 with 12 bytes: the two "
        "parties run different plans or the stream is corrupt"
    )
    with pytest.raises(PeerGone, match="relu1"):
        waiting.wait()
    for again in (
        lambda: later.wait(),
        lambda: ticket.wait(),
        lambda: b.send(b"", 0, "x"),
        lambda: b.expect(1, "x"),
    ):
        with pytest.raises(Drift, match="conv2/mill.leaf"):  # the first failure is final
            again()
    b.close()


def test_both_sides_may_send_64_mib_at_once(join):
    a, b = join()
    x, y = noise(64 * MIB, 1), noise(64 * MIB, 2)

    def exchange(wire, mine):
        ticket = wire.expect(64 * MIB, "big")
        wire.send(mine, 0, "big")
        return ticket.wait()[0]

    with ThreadPoolExecutor(2) as pool:
        at_a, at_b = pool.submit(exchange, a, x), pool.submit(exchange, b, y)
        assert np.array_equal(at_a.result(), y) and np.array_equal(at_b.result(), x)


def test_send_blocks_while_the_window_is_full(join):
    a, b = join(window_bytes=MIB)
    x = noise(16 * MIB)  # a socket's own buffers hold less than two of these
    sent = []

    def send_all():
        for _ in range(6):
            a.send(x, 0, "x")
            sent.append(1)

    sender = threading.Thread(target=send_all)
    sender.start()
    time.sleep(0.3)
    before = len(sent)
    for _ in range(6):
        assert np.array_equal(b.recv(len(x), "x")[0], x)
    sender.join()

    assert 1 <= before < 6
    assert len(sent) == 6


def test_a_silent_peer_exceeds_the_deadline(join):
    a, _ = join(deadline_s=SHORT_S)

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="fc/open: .* 8 bytes, .* 0.4 s"):
        a.recv(8, "fc/open")

    assert SHORT_S <= time.monotonic() - began < SHORT_S + 10
    with pytest.raises(DeadlineExceeded, match="fc/open"):
        a.send(b"", 0, "later")


def test_a_peer_that_takes_nothing_exceeds_the_deadline_of_send(join):
    a, _ = join(deadline_s=SHORT_S, window_bytes=MIB)
    x = noise(16 * MIB)

    with pytest.raises(DeadlineExceeded, match="conv7: the other party took none"):
        for _ in range(6):
            a.send(x, 0, "conv7")


def test_close_delivers_what_is_queued_then_the_other_side_finds_the_peer_gone(join):
    a, b = join()
    x = noise(8 * MIB)
    tickets = [b.expect(len(x), "conv1"), b.expect(1, "conv9/wrap")]

    a.send(x, 1, "conv1")
    a.close()
    a.close()

    got, clock = tickets[0].wait()
    assert np.array_equal(got, x) and clock == 1
    with pytest.raises(PeerGone, match="conv9/wrap"):
        tickets[1].wait()
    b.close()


def test_after_close_nothing_can_be_sent_or_expected(join):
    a, b = join()
    ticket = a.expect(1, "early")

    a.close()

    for call in (lambda: a.send(b"", 0, "x"), lambda: a.expect(0, "x"), ticket.wait):
        with pytest.raises(WireError, match="closed on this side"):
            call()
    with pytest.raises(PeerGone, match="relu4"):
        b.recv(0, "relu4")
    with pytest.raises(PeerGone):
        b.send(b"", 0, "relu5")


def test_a_wait_under_way_ends_when_the_peer_closes(join):
    a, b = join()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.recv, 1, "pool2")
        time.sleep(0.1)
        b.close()
        with pytest.raises(PeerGone, match="pool2"):
            waiting.result(30)


def test_an_exception_in_one_party_does_not_hang_the_other(join):
    a, b = join()
    x = noise(48 * MIB)  # more than sockets hold: a flush would wait for the peer

    with pytest.raises(KeyError), a:
        a.send(x, 0, "conv1")
        raise KeyError("a bug in this party")

    with pytest.raises(PeerGone):
        b.recv(len(x), "conv1")
        b.recv(1, "conv2")


def test_leaving_a_with_block_closes(join):
    a, b = join()

    with a:
        a.send(b"last", 0, "x")

    assert b.recv(4, "x")[0].tobytes() == b"last"


def test_a_clock_is_at_most_one_more_than_the_largest_sent_from_here(join):
    a, b = join()
    for sent_from_b, came in ((0, 1), (4, 5), (2, 5)):
        b.send(b"", sent_from_b, "x")
        a.send(b"", came, "x")
        assert b.recv(0, "relu1")[1] == came

    a.send(b"", 6, "x")

    with pytest.raises(Drift) as caught:
        b.recv(0, "relu2/mill.leaf")
    assert str(caught.value) == (
        "relu2/mill.leaf: expected a clock of at most 5 in step 3, got 6: the two parties run "
        "different plans or the stream is corrupt"
    )


@pytest.mark.parametrize("clock", [-1, 2**32])
def test_a_clock_beyond_32_bits_is_refused(join, clock):
    a, _ = join()

    with pytest.raises(InputError, match="conv1: a clock must be in"):
        a.send(b"", clock, "conv1")


def test_bad_arguments_are_refused(join):
    a, _ = join()

    with pytest.raises(InputError, match="cannot expect -1 bytes"):
        a.expect(-1, "x")
    with pytest.raises(InputError, match="deadline"):
        local_pair(deadline_s=0)
    with pytest.raises(InputError, match="window"):
        local_pair(window_bytes=0)
