import json
import pathlib

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from pqjax.crypto.crhash import PERMUTATION_KEY, compress, hash_blocks
from pqjax.crypto.prg import Randomness, Stream, counters
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


def slow_hash(x, tweak):
    cipher = AES.new(PERMUTATION_KEY, AES.MODE_ECB)
    top = int.from_bytes(cipher.encrypt(x), "little")
    end = int.from_bytes(cipher.encrypt((top ^ tweak).to_bytes(16, "little")), "little")
    return (end ^ top).to_bytes(16, "little")


@given(st.integers(0, 2**63), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32))
def test_hash_equals_its_definition(tweak, blocks, n, seed):
    x = np.random.default_rng(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)

    y = hash_blocks(x, tweak, blocks)

    for j in (0, n - 1):
        for b in (0, blocks - 1):
            assert y[j, b].tobytes() == slow_hash(x[j].tobytes(), tweak + j * blocks + b)


def test_hash_is_the_same_in_one_call_and_in_many():
    x = np.random.default_rng(0).integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    tweaks = np.arange(20_000, dtype=np.uint64) + np.uint64(5)

    whole = hash_blocks(x, 5)

    np.testing.assert_array_equal(whole, hash_blocks(x, tweaks))
    np.testing.assert_array_equal(whole[12_345:12_346], hash_blocks(x[12_345:12_346], 12_350))


def test_compress_mixes_both_halves():
    x = np.zeros((3, 4), np.uint64)
    x[1, 0] = 1
    x[2, 3] = 1

    y = compress(x)

    assert len({row.tobytes() for row in y}) == 3
    np.testing.assert_array_equal(counters(3, 2), [[3, 0], [4, 0]])
