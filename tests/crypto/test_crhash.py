"""The correlation-robust hash against its definition, and the bookkeeping of its keys and tweaks."""

import hashlib
import itertools

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from pqjax.crypto import crhash
from pqjax.crypto.crhash import BOUND_BITS, KEY_HASHES, Hash, hash_blocks

SAID = b"what was said"


def rows(n, words=2, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n, words), dtype=np.uint64)


def slow_cipher(era, domain):
    seed = b"pqjax hash" + domain.to_bytes(8, "little") + SAID + era.to_bytes(8, "little")
    return AES.new(hashlib.sha256(seed).digest()[:16], AES.MODE_ECB)


def slow_permute(x, counter, domain):
    return slow_cipher(counter // KEY_HASHES, domain).encrypt(x)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def slow_hash(x, counter, domain):
    """H(x, i) = p(p(x) xor i) xor p(x) of one block."""
    tweak = counter.to_bytes(8, "little") + domain.to_bytes(8, "little")
    top = slow_permute(x, counter, domain)
    return xor(slow_permute(xor(top, tweak), counter, domain), top)


def slow_compress(row, counter, domain):
    low, high = row.tobytes()[:16], row.tobytes()[16:]
    return xor(xor(slow_permute(high, counter, domain), high), low)


def begun(at, domain=3):
    """A hash that has used `at` tweaks."""
    made = Hash(SAID, domain)
    for _ in made.take(at, 1):
        pass
    return made


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3 * KEY_HASHES), st.integers(1, 5), st.integers(1, 40), st.integers(0, 3))
def test_blocks_equal_their_definition_wherever_a_key_ends(at, blocks, n, domain):
    x = rows(n, seed=at)

    y = begun(at, domain).blocks(x, blocks)

    counter = at
    for j in range(n):
        if counter % KEY_HASHES + blocks > KEY_HASHES:  # a row's blocks are under one key
            counter += -counter % KEY_HASHES
        for b in range(blocks):
            if j in (0, n - 1):
                assert y[j, b].tobytes() == slow_hash(x[j].tobytes(), counter + b, domain)
        counter += blocks


@pytest.mark.parametrize("at", [0, KEY_HASHES - 5, KEY_HASHES - 32])
def test_pairs_are_two_hashes_under_the_same_tweaks(at):
    x, offset = rows(21), rows(1, seed=1)[0]

    zero, one = begun(at).pairs(x, offset, 2)

    np.testing.assert_array_equal(zero, begun(at).blocks(x, 2))
    np.testing.assert_array_equal(one, begun(at).blocks(x ^ offset, 2))


@pytest.mark.parametrize("at", [0, 7, KEY_HASHES - 40])
def test_offsets_and_the_chosen_one_equal_their_definition(at):
    x, offsets = rows(9, 4), rows(8, 4, seed=1)
    choices = np.arange(9, dtype=np.uint8) % 8

    words = begun(at).offsets(x, offsets, 5)
    chosen = begun(at).chosen(x ^ offsets[choices], choices, 8)

    spans = [(span, tweaks.first) for span, tweaks in begun(at).take(9, 8)]
    for span, first in spans:
        n = span.stop - span.start
        for j in range(n):
            for v in range(8):
                row, counter = x[span.start + j] ^ offsets[v], first + v * n + j
                wanted = slow_hash(slow_compress(row, counter, 3), counter, 3)
                low = int.from_bytes(wanted, "little") & 31
                assert int(words[span.start + j]) >> (5 * v) & 31 == low
                if v == choices[span.start + j]:
                    assert int(chosen[span.start + j]) & 31 == low


def test_hashing_in_one_call_and_in_many_is_the_same():
    x = rows(20_000)
    whole, parts = Hash(SAID, 0), Hash(SAID, 0)

    y = whole.blocks(x)

    got = [parts.blocks(x[at : at + 1234]) for at in range(0, 20_000, 1234)]
    np.testing.assert_array_equal(y, np.concatenate(got))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 70)), max_size=6))
def test_tweaks_and_keys_are_never_handed_out_twice(requests):
    # Keys end often, so that the rule is tried and not only its ordinary case.
    made, used = Hash(SAID, 0), []
    limit, crhash.KEY_HASHES = crhash.KEY_HASHES, 128
    try:
        for n, each in requests:
            covered = 0
            for span, tweaks in made.take(n, each):
                assert span.start == covered
                covered = span.stop
                count = (span.stop - span.start) * each
                used.append((tweaks.first, tweaks.first + count, tweaks.cipher))
            assert covered == n
    finally:
        crhash.KEY_HASHES = limit

    for before, after in zip(used, used[1:], strict=False):
        assert before[1] <= after[0]
    for first, end, cipher in used:
        assert (end - 1) // 128 == first // 128, "a span crosses the end of its key"
        assert all((other is cipher) == (at // 128 == first // 128) for at, _, other in used)


def test_a_direction_of_a_hundred_million_ots_uses_no_tweak_twice():
    requests = itertools.cycle([(1 << 17, 1), (1 << 16, 4), (40_000, 3), (850, 1), (1 << 19, 1)])
    made, x, out = Hash(SAID, 3), rows(1), np.empty((1, 1, 2), np.uint64)
    ots = end = 0

    while ots < 10**8:
        n, each = next(requests)
        for span, tweaks in made.take(n, each):
            assert tweaks.first >= end
            end = tweaks.first + (span.stop - span.start) * each
            for first in (tweaks.first, end - 1):  # what is hashed with says the same of itself
                hash_blocks(x, tweaks._replace(first=first), out)
                assert out.tobytes() == slow_hash(x.tobytes(), first, 3)
        ots += n

    assert end > 10**8


def test_a_key_serves_so_many_hashes_that_the_bound_holds():
    assert KEY_HASHES <= 1 << 24 and 128 - BOUND_BITS == (KEY_HASHES - 1).bit_length()


def test_sessions_directions_and_uses_have_hashes_of_their_own():
    x = rows(4)

    made = [Hash(said, domain).blocks(x) for said in (b"one", b"two") for domain in range(4)]

    assert len({y.tobytes() for y in made}) == 8


def test_domains_differ_in_their_tweaks_too():
    firsts = [next(iter(Hash(SAID, domain).take(1, 1)))[1] for domain in range(4)]

    assert [tweaks.domain for tweaks in firsts] == [0, 1, 2, 3]
