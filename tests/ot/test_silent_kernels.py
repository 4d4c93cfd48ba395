"""Silent OT without a wire: trees, code and rounds against slow twins, and what a round promises."""

import hashlib

import numpy as np
import pytest
from Crypto.Cipher import AES

from pqjax.crypto.crhash import Hash
from pqjax.ot.silent_code import LOCAL, Code
from pqjax.ot.silent_round import RoundReceiver, RoundSender, clear_lowest
from pqjax.ot.silent_sets import SETS, NoiseSet
from pqjax.ot.silent_tree import expand, puncture

SMALL = NoiseSet(trees=23, log_k=5, depth=4)


def uniform(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def odd_delta(rng):
    delta = uniform(rng, 2)
    delta[0] |= np.uint64(1)
    return delta


def times(bits, delta):
    """Rows that are delta where a bit is 1."""
    return bits[..., None].astype(np.uint64) * delta


@pytest.mark.parametrize("depth", range(1, 8))
def test_every_leaf_of_a_small_tree_can_be_punctured(depth):
    rng = np.random.default_rng(depth)
    trees = 1 << depth
    delta, roots = uniform(rng, 2), uniform(rng, trees, 2)
    path = (np.arange(trees)[:, None] >> np.arange(depth) & 1).astype(np.uint8)
    leaves, known = (np.ones((trees, trees, 2), np.uint64) for _ in range(2))
    hashes = Hash(b"", 0), Hash(b"", 0)

    sums = expand(roots, delta, hashes[0], leaves)
    ends = puncture(path, sums ^ times(path, delta), hashes[1], known)

    np.testing.assert_array_equal(ends, np.arange(trees))  # every end occurs, one a tree
    difference = leaves ^ known
    np.testing.assert_array_equal(difference, times(np.eye(trees, dtype=np.uint8), delta))
    assert (np.bitwise_xor.reduce(leaves, axis=0) == delta).all()
    assert len(np.unique(leaves.reshape(-1, 2), axis=0)) == trees * trees
    assert hashes[0]._next == hashes[1]._next == trees * (trees - 2)


def slow_hash(x, tweak, key):
    """H of one block by the definition."""
    permute = AES.new(key, AES.MODE_ECB).encrypt
    top = permute(x)
    inner = bytes(a ^ b for a, b in zip(top, tweak.to_bytes(16, "little"), strict=True))
    return bytes(a ^ b for a, b in zip(permute(inner), top, strict=True))


def test_a_tree_is_what_its_definition_says():
    rng = np.random.default_rng(5)
    depth, trees, domain = 4, 3, 2
    delta, roots = uniform(rng, 2), uniform(rng, trees, 2)
    leaves = np.empty((1 << depth, trees, 2), np.uint64)

    sums = expand(roots, delta, Hash(b"said", domain), leaves)

    seed = hashlib.sha256(b"pqjax hash" + domain.to_bytes(8, "little") + b"said")
    seed.update(bytes(8))
    key, tweak = seed.digest()[:16], domain << 64
    word = lambda block: int.from_bytes(block.tobytes(), "little")
    level = [[word(root ^ delta) for root in roots], [word(root) for root in roots]]
    for depth_now in range(1, depth + 1):
        for tree in range(trees):
            total = 0
            for node in level[len(level) // 2 :]:
                total ^= node[tree]
            assert word(sums[tree, depth_now - 1]) == total
        if depth_now == depth:
            break
        ones = []
        for node in level:
            ones.append([])
            for x in node:
                made = slow_hash(x.to_bytes(16, "little"), tweak, key[:16])
                ones[-1].append(int.from_bytes(made, "little"))
                tweak += 1
        zeros = [
            [x ^ y for x, y in zip(*pair, strict=True)] for pair in zip(level, ones, strict=True)
        ]
        level = zeros + ones
    assert [[word(x) for x in node] for node in leaves] == level


@pytest.mark.parametrize("log_k", [1, 5, 16, 19])
@pytest.mark.parametrize("sizes", [(1,), (7, 1, 64), (300, 17)])
def test_the_code_is_the_xor_of_ten_rows_each(log_k, sizes):
    rng = np.random.default_rng(log_k)
    table, n = uniform(rng, 1 << log_k, 2), sum(sizes)
    rows = uniform(rng, n, 2)
    code, parts, at = Code(table), [], 0

    for size in sizes:
        parts.append(code.spread(rows[at : at + size].copy()))
        at += size

    key = hashlib.sha256(f"pqjax 10-local code 2^{log_k}".encode()).digest()[:16]
    cipher, wanted = AES.new(key, AES.MODE_ECB), rows.copy()
    for row in range(n):
        words = b"".join(cipher.encrypt((2 * row + i).to_bytes(16, "little")) for i in (0, 1))
        for i in range(LOCAL):
            word = int.from_bytes(words[8 * (i // 3) : 8 * (i // 3) + 8], "little")
            wanted[row] ^= table[(word >> 21 * (i % 3)) % (1 << log_k)]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), wanted)
    np.testing.assert_array_equal(np.concatenate([bits for _, bits in parts]), wanted[:, 0] & 1)


def test_indices_are_uniform_and_columns_unrelated():
    table = np.zeros((1 << 8, 2), np.uint64)
    table[:, 0] = np.arange(1 << 8)
    n = 1 << 16

    made, _ = Code(table).spread(np.zeros((n, 2), np.uint64))

    counts = np.bincount(made[:, 0].astype(int), minlength=256)
    assert abs(counts - n / 256).max() < 6 * np.sqrt(n / 256)


def ends_of(noise, rng):
    """Both halves of a round and delta; the receiver's seeds and their bits."""
    delta = odd_delta(rng)
    q, bits = uniform(rng, noise.seeds, 2), rng.integers(0, 2, noise.seeds).astype(np.uint8)
    clear_lowest(q)
    t = q ^ times(bits, delta)
    hashes = Hash(b"", 0), Hash(b"", 0)
    return (
        RoundSender(noise, q, delta, hashes[0]),
        RoundReceiver(noise, t, bits, hashes[1]),
        delta,
        t,
        bits,
    )


@pytest.mark.parametrize(
    "name", ["small", "b10", *(pytest.param(n, marks=pytest.mark.slow) for n in SETS if n != "b10")]
)
def test_a_round_correlates_every_output_and_has_one_one_in_every_region(name):
    noise = SMALL if name == "small" else SETS[name]
    rng = np.random.default_rng(noise.trees)
    sender, receiver, delta, t, bits = ends_of(noise, rng)
    code, noise_bits, made, ones = Code(t[: noise.k]), [], 0, 0

    for group in noise.groups:
        trees = group.stop - group.start
        q, blocks = sender.grow(group, uniform(rng, trees, 2))
        rows, choices = receiver.grow(group, blocks)

        np.testing.assert_array_equal(q ^ rows, times(choices, delta))
        np.testing.assert_array_equal(rows[:, 0] & np.uint64(1), choices)
        assert not (q[:, 0] & np.uint64(1)).any()
        # What the code alone makes of the choices, taken away from them, is the noise.
        _, spread = code.spread(np.zeros_like(rows))
        regions = (choices ^ spread).reshape(1 << noise.depth, trees)
        np.testing.assert_array_equal(regions.sum(0), np.ones(trees))
        noise_bits.append(regions.argmax(0))
        made, ones = made + len(choices), ones + int(choices.sum())

    paths = bits[noise.k :].reshape(noise.trees, noise.depth)
    np.testing.assert_array_equal(np.concatenate(noise_bits), paths @ (1 << np.arange(noise.depth)))
    assert made == noise.made
    assert abs(ones / made - 0.5) < 5 / np.sqrt(min(made, noise.k))


def test_sets_are_those_that_were_published_and_a_round_gains():
    assert {n: (s.trees, s.log_k, s.depth) for n, s in SETS.items()} == {
        "b10": (850, 16, 10), "b11": (1170, 17, 11), "b12": (1520, 18, 12), "b13": (1900, 19, 13),
    }  # fmt: skip
    for noise in SETS.values():
        groups = noise.groups
        assert [g.start for g in groups] == [0, *(g.stop for g in groups[:-1])]
        assert groups[-1].stop == noise.trees and noise.seeds < noise.made // 8
        assert noise.gain == noise.made - noise.seeds > 0
