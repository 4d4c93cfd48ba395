"""Words between frames: signs of life that count for nothing else, and a last word that says why."""

import contextlib
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from peers import accept_wire, repeating, silent

from pqjax.errors import DeadlineExceeded, Drift, PeerGone, SessionEnded, WireError
from pqjax.wire.listener import Listener
from pqjax.wire.word import LAST_STEP, WORD_BYTES, Word, heard_reason

pytestmark = pytest.mark.usefixtures("no_thread_left")
ALIVE = struct.pack("<IIQ", LAST_STEP, Word.ALIVE, 0)


@pytest.fixture
def lively(monkeypatch):
    """Signs of life every 0.05 s, and 0.2 s without one is too long."""
    for module in ("tcp", "channel"):
        monkeypatch.setattr(f"pqjax.wire.{module}.ALIVE_S", 0.05)


def greeted(pair):
    """The pair, after a frame each way: words come after that."""
    for wire, other in (pair, pair[::-1]):
        wire.send(b"hello", 0, "hello")
        other.recv(5, "hello")
    return pair


@contextlib.contextmanager
def wire_and_raw(**options):
    with Listener("127.0.0.1:0") as listener, silent(listener.address) as raw:
        wire = accept_wire(listener, **options)
        try:
            yield wire, raw
        finally:
            wire.abort()


def test_an_idle_wait_outlasts_the_deadline_while_both_live(join, lively):
    a, b = greeted(join(deadline_s=0.2))
    ticket = a.expect(3, "begin", idle_s=60.0)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ticket.wait)
        time.sleep(0.8)
        b.send(b"abc", 0, "begin")

        assert waiting.result(30)[0].tobytes() == b"abc"


def test_signs_of_life_are_counted_apart_and_in_no_frame(join, lively):
    a, b = join()
    a.send(b"hello", 0, "x")
    b.recv(5, "x")
    time.sleep(0.5)
    a.send(b"more", 0, "x")
    b.recv(4, "x")

    assert a.sent_bytes == b.received_bytes == 9 + 2 * 16
    assert a.alive_bytes[0] == b.alive_bytes[1] and a.alive_bytes[0] % WORD_BYTES == 0
    assert (a.alive_bytes[0] > 0) == (join.kind != "local")


def test_an_idle_wait_has_a_limit_of_its_own_that_the_other_side_is_told(join, lively):
    a, b = greeted(join(deadline_s=60.0))

    with pytest.raises(DeadlineExceeded, match="begin: idle for 0.4 s"):
        a.expect(1, "begin", idle_s=0.4).wait()
    with pytest.raises(SessionEnded, match="conv1: .* idle for 0.4 s") as caught:
        b.recv(1, "conv1")
    assert caught.value.reason == "idle"


def test_signs_of_life_alone_keep_no_idle_session_beyond_its_limit(lively):
    with wire_and_raw(deadline_s=0.2) as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0))
        wire.recv(0, "hello")
        with repeating(raw, [ALIVE], 0.02), pytest.raises(DeadlineExceeded, match="idle for 0.6 s"):
            wire.expect(1, "begin", idle_s=0.6).wait()

    assert wire.alive_bytes[1] > 0


@pytest.mark.parametrize("cut", [16, 7], ids=lambda n: f"{n} bytes at a time")
def test_signs_of_life_do_not_count_where_a_frame_is_owed(cut):
    with wire_and_raw(deadline_s=0.4) as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0))
        wire.recv(0, "hello")
        parts = [ALIVE[:cut], ALIVE[cut:]]
        over = threading.Event()

        def live():
            i = 0
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    raw.sendall(parts[i % 2])
                    i += 1

        living = threading.Thread(target=live)
        living.start()
        with pytest.raises(DeadlineExceeded, match="conv5"):
            wire.recv(1000, "conv5")
        over.set()
        living.join()


def test_an_idle_wait_for_a_peer_without_a_sign_of_life_ends_early(lively):
    with wire_and_raw(deadline_s=0.1) as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0))
        wire.recv(0, "hello")

        with pytest.raises(DeadlineExceeded, match="no sign of life .* 0.2 s"):
            wire.expect(1, "begin", idle_s=600.0).wait()


def test_nothing_is_said_before_the_first_frame(lively):
    with wire_and_raw() as (wire, raw):
        time.sleep(0.3)
        wire.send(b"", 0, "hello")
        first = raw.recv(WORD_BYTES)

    assert first == struct.pack("<IIQ", 0, 0, 0)


@pytest.mark.parametrize("word", [Word.CLOSING, Word.LEFT, Word.INTERRUPTED, Word.FAULT])
def test_who_leaves_says_why_and_the_frames_before_arrive(join, word):
    a, b = join()
    x = np.arange(3 << 20, dtype=np.uint8)
    first, second = b.expect(x.nbytes, "conv1"), b.expect(1, "conv2/open")

    a.send(x, 0, "conv1")
    a.leave(word)

    np.testing.assert_array_equal(first.wait()[0], x)
    with pytest.raises(SessionEnded, match="conv2/open: the other party ended") as caught:
        second.wait()
    assert caught.value.reason == word.name.lower()
    for call in (lambda: b.send(b"", 0, "conv3"), lambda: b.recv(1, "conv3")):
        with pytest.raises(SessionEnded) as caught:
            call()
        assert caught.value.reason == word.name.lower()
    with pytest.raises(WireError) as own:
        a.recv(1, "conv3")
    assert not isinstance(own.value, PeerGone)


def test_a_last_word_is_heard_by_one_who_only_sends(join):
    a, b = join(window_bytes=1 << 20)
    a.send(b"hello", 0, "x")
    b.recv(5, "x")
    big = np.zeros(1 << 20, np.uint8)

    a.leave(Word.CLOSING)
    with pytest.raises(SessionEnded) as caught:
        for _ in range(1000):
            b.send(big, 0, "conv7")

    assert caught.value.reason == "closing"


def test_a_last_word_behind_frames_that_nobody_asked_for_is_heard(join):
    a, b = greeted(join(window_bytes=1 << 20))
    for n in (0, 70_000, 5):
        a.send(bytes(n), 0, "conv6")
    big = np.zeros(1 << 20, np.uint8)

    a.leave(Word.CLOSING)
    with pytest.raises(SessionEnded if join.kind != "local" else PeerGone) as caught:
        while True:  # it is let go of after a moment
            b.send(big, 0, "conv7")

    assert str(caught.value).startswith("conv7: the other party")


def test_a_last_word_is_followed_by_an_end_and_not_a_reset(monkeypatch):
    monkeypatch.setattr("pqjax.wire.tcp.PARTING_S", 30.0)
    with wire_and_raw() as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0) + bytes(50_000))
        wire.send(b"", 0, "hello")
        wire.recv(0, "hello")
        wire.leave(Word.CLOSING)
        stream = b"".join(iter(lambda: raw.recv(1000), b""))
        raw.sendall(bytes(4 << 20))  # what was on its way is still taken
        raw.close()

    assert stream[16:] == struct.pack("<IIQ", LAST_STEP, Word.CLOSING, 0)


def test_a_failure_says_its_own_word(join):
    a, b = greeted(join())
    waiting = a.expect(1, "relu1")
    a.send(b"twelve bytes", 0, "conv2")

    with pytest.raises(Drift):
        b.recv(4096, "conv2")
    with pytest.raises(SessionEnded, match="relu1") as caught:
        waiting.wait()
    assert caught.value.reason == "drift"


def test_after_closing_nothing_is_said(join):
    a, b = join()
    a.send(b"hello", 0, "x")
    b.recv(5, "x")

    a.close()
    a.leave(Word.CLOSING)

    with pytest.raises(PeerGone) as caught:
        b.recv(1, "x")
    assert not isinstance(caught.value, SessionEnded)


def test_a_word_of_the_future_ends_the_session_with_its_number():
    with wire_and_raw() as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0) + struct.pack("<IIQ", LAST_STEP, 77, 1 << 63))
        wire.recv(0, "hello")

        with pytest.raises(SessionEnded, match=r"unknown here \(77\)") as caught:
            wire.recv(1, "x")
    assert caught.value.reason == "unknown"


def test_every_word_has_its_reason():
    texts = {heard_reason(word, 60_000) for word in Word if word is not Word.ALIVE}

    assert len(texts) == len(Word) - 1 and ("unknown" not in {name for name, _ in texts})
    assert any("60 s" in text for _, text in texts)


def test_a_peer_that_floods_does_not_hold_up_the_end(lively):
    with wire_and_raw(deadline_s=30.0) as (wire, raw):
        raw.sendall(struct.pack("<IIQ", 0, 0, 0))
        wire.recv(0, "hello")
        with repeating(raw, [bytes(1 << 16)], 0.0):
            wire.leave(Word.CLOSING)
            wire.abort()

    assert not wire._thread.is_alive()
