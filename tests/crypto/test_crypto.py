import json
import pathlib

import numpy as np
import pytest

from pqjax.crypto.prg import Randomness, Stream
from pqjax.ot.base import GENERATOR, ORDER
from pqjax.ring import Ring

VECTORS = pathlib.Path(__file__).parents[1] / "vectors"


def test_stream_encrypts_the_published_aes_vectors():
    vectors = json.loads((VECTORS / "aes128_ecb.json").read_text())
    plain = np.frombuffer(bytes.fromhex("".join(vectors["plain"])), np.uint8).reshape(-1, 16)
    out = np.empty_like(plain)

    Stream(bytes.fromhex(vectors["key"])).encrypt(plain, out)

    assert out.tobytes().hex() == "".join(vectors["cipher"])


def test_generator_gives_the_published_p256_points():
    for k, x, y in json.loads((VECTORS / "p256.json").read_text())["points"]:
        point = GENERATOR * k
        assert (int(point.x), int(point.y)) == (int(x, 16), int(y, 16))
    assert (GENERATOR * (ORDER - 1)) == -GENERATOR


def test_stream_hands_every_block_out_once():
    stream = Stream(bytes(16))
    whole = Stream(bytes(16)).blocks(0, 8).reshape(-1)

    first, second, third = stream.take(16), stream.take(20), stream.take(1)

    np.testing.assert_array_equal(first, whole[:16])
    np.testing.assert_array_equal(second, whole[16:36])
    np.testing.assert_array_equal(third, whole[48:49])  # the rest of a block is dropped


def test_two_parties_draw_different_randomness():
    assert Randomness().block() != Randomness().block()


@pytest.mark.parametrize("bits", [1, 5, 8, 13, 32, 37, 64])
def test_elements_are_reduced_and_spread(bits):
    x = Randomness(bytes(16)).elements(4096, Ring(bits))

    assert x.dtype == Ring(bits).dtype and (x & ~Ring(bits).mask == 0).all()
    ones = np.unpackbits(x.view(np.uint8)).sum() / (4096 * bits)
    assert 0.47 < ones < 0.53
