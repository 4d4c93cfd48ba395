"""What is seen between a client and its server: all bytes, and the last of the client's payloads."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from serving import GRAPH, WEIGHTS, X, serving

import pqjax
from pqjax.errors import WireError
from pqjax.web.noise import ENOUGH, SIDE, as_png, entropy
from pqjax.web.tap import SAMPLE_BYTES, Payloads, Tap
from pqjax.wire.word import LAST_STEP


def frame(payload, step=0):
    return step.to_bytes(4, "little") + bytes(4) + len(payload).to_bytes(8, "little") + payload


@pytest.mark.parametrize("cut", [1, 3, 16, 17, 1000])
def test_payloads_are_found_however_the_stream_is_cut(cut):
    alive = LAST_STEP.to_bytes(4, "little") + bytes(4) + (60_000).to_bytes(8, "little")
    stream = frame(b"hello") + frame(b"") + alive + frame(bytes(range(200)), 7) + frame(b"end")
    wanted = b"hello" + bytes(range(200)) + b"end"
    whole, last = Payloads(), Payloads(50)

    for at in range(0, len(stream), cut):
        whole.feed(stream[at : at + cut])
        last.feed(stream[at : at + cut])

    assert whole.last == wanted and last.last == wanted[-50:]


def test_a_session_through_a_tap_is_what_it_was_and_every_byte_is_counted():
    with serving() as (address, _), Tap(address) as tap:
        with pqjax.connect(tap.address) as session:
            y = session.infer(X).output
        trace = session.trace

    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    sent, received = trace.bytes()
    # Greetings, words and goodbye are in nobody's trace.
    assert sent < tap.sent < sent + 500 and received < tap.received < received + 100_000
    assert len(tap.sample) == SAMPLE_BYTES


def test_a_server_that_is_gone_is_gone_through_a_tap_too():
    with serving() as (address, _):
        pass
    with Tap(address) as tap, pytest.raises(WireError):
        pqjax.connect(tap.address)


def test_noise_looks_like_noise_and_nothing_else_does():
    sample = os.urandom(SAMPLE_BYTES)
    picture = Image.open(io.BytesIO(as_png(sample)))

    assert picture.size == (SIDE, SIDE) and picture.tobytes() == sample
    noisy, text = entropy(sample), entropy(b"what is not noise " * 400)
    assert noisy is not None and 7.97 < noisy <= 8
    assert text is not None and text < 4
    assert entropy(sample[: ENOUGH - 1]) is None
    few = Image.open(io.BytesIO(as_png(b"\xff" * 3)))
    assert few.tobytes() == b"\xff" * 3 + bytes(SIDE * SIDE - 3)
