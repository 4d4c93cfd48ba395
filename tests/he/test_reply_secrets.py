"""What the client can decrypt beyond its share, and what either party sees; with what breaks it.

Streams under fixed keys, as in `test_rlwe_secrets`; bounds are seven standard deviations and more.
"""

import dataclasses

import numpy as np
import pytest
from encrypted import SEED, exchange, filter_of, plain, weights_of
from layers import ALIKE
from test_rlwe_secrets import differ, uniform

from pqjax.crypto.prg import Randomness
from pqjax.he import Filter, Matrix, Packing, Secret, Sharing, Tiling, TwoWay
from pqjax.he.packing import halved, packed_filter
from pqjax.he.polynomial import product
from pqjax.he.resharing import widths
from pqjax.he.sampling import ternary
from pqjax.he.shares import rounded
from pqjax.linear import LinearMap
from pqjax.ring import Ring

MAP = LinearMap((16, 16), (3, 3), (1, 1), ALIKE, (1, 1), 1, 6, 16)
GUARDED, FLOODED, APPROXIMATE = Sharing.GUARDED, Sharing.FLOODED, Sharing.APPROXIMATE


def weights():
    return weights_of(np.random.default_rng(3), MAP, 4)


def made(sharing=GUARDED, sum_bits=13, packing=Packing.NONE):
    of, inner = Filter(6000, MAP.terms), MAP
    if packing is Packing.CROSS:
        of, inner = packed_filter(of, sum_bits), halved(MAP)
    own = widths(packing.plain_bits(sum_bits), of, 4096, sharing)[0]
    return TwoWay(Tiling(inner, 4096, (18, 18)), own, packing, sum_bits)


def images(at, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 8, MAP.in_shape)
    return x, Ring(at.operand_bits).reduce(rng.integers(0, 1 << 62, MAP.in_shape))


def ran(at, w=None, key=1, **images_of):
    return exchange(
        at, weights() if w is None else w, *images(at, **images_of), key=bytes([key]) * 16
    )


@pytest.mark.parametrize("sharing", [GUARDED, APPROXIMATE])
def test_what_the_client_decrypts_is_uniform_and_independent_of_the_weights(sharing):
    at = made(sharing)
    own, k = at.precision, at.precision.modulus.bits
    same = np.repeat(weights()[..., :1], 16, -1)
    one, two, three = (ran(at, w, key) for w, key in ((same, 1), (same, 2), (0 * same, 3)))

    seen = [at.phase(found.secret, found.reply) for found in (one, two, three)]
    for phase, found in zip(seen, (one, two, three), strict=True):
        assert uniform(phase, k) and uniform(found.client, own.share_bits)
        assert uniform(found.server, own.share_bits) and uniform(found.reply.c0, own.c0_bits)
        low = phase & np.uint64((1 << k - own.share_bits) - 1)  # what is beyond the share
        assert uniform(low, k - own.share_bits)
    assert differ(seen[0], seen[1], k) and differ(seen[0], seen[2], k)
    assert differ(seen[0][:, :8], seen[0][:, 8:], k)  # one filter twice: no mask twice
    assert differ(seen[0][:128], seen[0][128:], k)
    assert not np.array_equal(one.image(), three.image())


def test_without_a_mask_sums_and_errors_show(monkeypatch):
    at = made()
    k = at.precision.modulus.bits
    bare = lambda phase, own, _: (rounded(phase, own.modulus.bits, own.c0_bits), 0 * phase)
    monkeypatch.setattr("pqjax.he.exchange.mask", bare)

    x, _ = images(at)
    x0 = np.zeros(MAP.in_shape, np.uint16)
    found = exchange(at, weights(), x, x0)

    phase = at.phase(found.secret, found.reply)
    y = plain(MAP, weights().astype(np.int64), x).reshape(phase.shape)
    np.testing.assert_array_equal(rounded(phase, k, at.sum_bits), y % (1 << at.sum_bits))
    assert not uniform(phase, k)


def noise_of(at, found, w):
    """What is beyond the message of what the client decrypts, and the part of it that is w's own.

    The client knows its errors e_in: a guess w of the weights is right if  sum w e_in  shows.
    """
    own, t = at.precision, at.tiling
    k, q = own.modulus.bits, own.modulus.ring
    phase = at.phase(found.secret, found.reply)
    grid = np.uint64(k - own.plain_bits)
    noise = q.signed(
        q.reduce(phase - (rounded(phase, k, own.plain_bits).astype(np.uint64) << grid))
    )
    x1 = Ring(at.operand_bits).sub(Ring(at.operand_bits).reduce(images(at)[0]), images(at)[1])
    hidden = product(found.matrix.polynomials(), found.secret._s, k)
    e_in = (found.sent - (at.encode(x1) << grid)).reshape(hidden.shape) + hidden
    e_in = q.reduce(e_in).astype(np.uint64)
    assert np.abs(q.signed(e_in)).max() <= 21
    part = t.convolve(w, t.used(e_in.reshape(found.sent.shape)), k)
    return noise.astype(float).reshape(-1), q.signed(at._gather(part)).astype(float).reshape(-1)


def test_flooding_hides_the_errors_that_masks_of_the_message_leave(monkeypatch):
    w = weights_of(np.random.default_rng(3), MAP, 6)
    own = widths(6, filter_of(w), 4096, FLOODED)[-1]
    own = dataclasses.replace(own, c1_bits=own.modulus.bits, c0_bits=own.modulus.bits)
    at = TwoWay(Tiling(MAP, 4096, (18, 18)), own, Packing.NONE, 6)
    wrong = w[..., ::-1].copy()
    alike = lambda found, w: abs(np.corrcoef(*noise_of(at, found, w))[0, 1])
    n = MAP.outputs * 256

    flooded = ran(at, w)
    for guess in (w, wrong):
        assert alike(flooded, guess) < 7 / np.sqrt(n)
    noise, _ = noise_of(at, flooded, w)
    assert uniform((noise.astype(np.int64) + (1 << own.flood_bits)) % (2 << own.flood_bits),
                   own.flood_bits + 1)  # fmt: skip

    drawn = Randomness.elements
    centre = lambda self, n, ring: (
        np.full(n, 1 << own.flood_bits, ring.dtype) if ring.bits == own.flood_bits + 1
        else drawn(self, n, ring)
    )  # fmt: skip
    monkeypatch.setattr(Randomness, "elements", centre)
    published = ran(at, w)
    np.testing.assert_array_equal(published.image(), flooded.image())
    assert alike(published, w) > 0.5 > 0.2 > alike(published, wrong)


def test_a_flooded_reply_decrypts_to_a_uniform_share():
    at = made(FLOODED, 6)
    same = np.repeat(weights()[..., :1], 16, -1) // 4
    for found in (ran(at, same), ran(at, 0 * same)):
        joined = found.client.reshape(-1, 4) << np.uint64(6) * np.arange(4, dtype=np.uint64)
        assert uniform(joined.sum(1).astype(np.uint64) & np.uint64((1 << 12) - 1), 12)
        assert not uniform(found.client, 8)  # 6 bits do not fill 8: the measure sees it


def test_replies_hide_the_weights_from_who_knows_the_secret_and_a():
    at = made()
    bits = at.precision.c1_bits
    same = np.repeat(weights()[..., :1], 16, -1)
    one, two, none = (ran(at, w, key) for w, key in ((same, 1), (same, 2), (0 * same, 3)))

    for found in (one, two, none):
        assert uniform(found.reply.c1, bits)
    assert differ(one.reply.c1[:, :8], one.reply.c1[:, 8:], bits)  # each polynomial its own u
    assert differ(one.reply.c1, two.reply.c1, bits)
    high = np.stack([at.tiling.multiply(same, a, at.precision.modulus.bits) for a in
                     one.matrix.polynomials().reshape(one.sent.shape)])  # fmt: skip
    guess = rounded(high, at.precision.modulus.bits, bits)
    rest = Ring(bits).sub(Ring(bits).reduce(one.reply.c1), guess)
    assert uniform(rest, bits)  # a right guess is not confirmed


def test_replies_are_hidden_by_u_and_an_error():
    at = made()
    k = at.precision.modulus.bits
    at = dataclasses.replace(at, precision=dataclasses.replace(at.precision, c1_bits=k))
    found = ran(at)
    q = at.precision.modulus.ring

    server = Randomness(bytes([1]) * 16)
    u = ternary(at.parcels * at.tiling.hints, at.degree, server)
    hidden = product(Matrix.key(at.precision.modulus, SEED).polynomials(), u, k)
    part = np.concatenate([at.tiling.multiply(weights(), a, k) for a in
                           found.matrix.polynomials().reshape(found.sent.shape)])  # fmt: skip
    rest = found.reply.c1.reshape(hidden.shape) - part
    assert uniform(q.reduce(rest), k)
    e1 = q.signed(q.reduce(rest - hidden))
    assert abs(e1.var() - 10.5) < 1 and np.abs(e1).max() <= 21
    assert len({row.tobytes() for row in e1}) == len(e1) == len({row.tobytes() for row in u})


def test_without_u_a_right_guess_of_the_weights_is_confirmed(monkeypatch):
    monkeypatch.setattr(
        "pqjax.he.exchange.ternary", lambda n, degree, _: np.zeros((n, degree), np.int8)
    )
    at = made()
    k, bits = at.precision.modulus.bits, at.precision.c1_bits
    found = ran(at)

    part = np.stack([at.tiling.multiply(weights(), a, k) for a in
                     found.matrix.polynomials().reshape(found.sent.shape)])  # fmt: skip
    ring = Ring(bits)
    rest = ring.signed(ring.sub(ring.reduce(found.reply.c1), rounded(part, k, bits)))
    assert np.abs(rest).max() <= 1 + (22 >> k - bits)


def test_ciphertexts_are_uniform_whatever_they_hold_and_polynomials_are_one_inferences_own():
    at = made()
    k = at.precision.modulus.bits
    zero = np.zeros(MAP.in_shape, np.uint16)
    first, second = (Secret(at.precision.modulus, Randomness(bytes([n]) * 16)) for n in (1, 2))

    sent = [at.encrypt(first, at.matrix(SEED, name), x) for name, x in
            (("a", zero), ("b", zero), ("c", images(at)[1]))]  # fmt: skip
    sent.append(at.encrypt(second, at.matrix(bytes(16), "a"), zero))

    assert all(uniform(b, k) for b in sent)
    assert all(differ(sent[0], other, k) for other in sent[1:])
    matrix = at.matrix(SEED, "a")
    first._met.clear()
    again = at.precision.modulus.ring.sub(at.encrypt(first, matrix, zero), sent[0])
    assert np.abs(at.precision.modulus.ring.signed(again)).max() <= 42  # what a second use shows


def test_a_mask_of_the_wanted_slot_alone_shows_what_cross_packing_leaves_below(monkeypatch):
    at = made(sum_bits=13, packing=Packing.CROSS)
    own = at.precision
    found = ran(at)
    low = at.slots(found.client, 1).low
    assert uniform(low, at.low_bits)
    assert uniform(at.phase(found.secret, found.reply), own.modulus.bits)

    drawn = Randomness.elements
    above = np.uint64(-1 << own.c0_bits - at.sum_bits & (1 << 64) - 1)
    monkeypatch.setattr(
        Randomness, "elements", lambda self, n, ring: drawn(self, n, ring) & ring.dtype.type(above)
    )
    x, _ = images(at)
    bare = exchange(at, weights(), x, np.zeros(MAP.in_shape, np.uint32))
    np.testing.assert_array_equal(
        bare.image(), plain(MAP, weights().astype(np.int64), x) % (1 << at.sum_bits)
    )
    half = MAP.inputs // 2
    crossed = plain(dataclasses.replace(MAP, inputs=half), weights()[:, :, half:].astype(np.int64),
                    x[..., :half]).reshape(bare.client.shape)  # fmt: skip
    ring = Ring(at.low_bits)
    seen = ring.signed(at.slots(bare.client, 1).low.astype(ring.dtype)) >> 1
    assert (np.abs(seen - crossed) <= 2).mean() > 0.9
