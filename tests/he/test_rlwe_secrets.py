"""What either party sees of the other's secrets looks uniform and depends on none; with what breaks it.

Streams under fixed keys: a test that fails once fails always. Uniformity is judged by the top byte (256
cells) and by correlations; bounds are seven standard deviations and more.
"""

import dataclasses

import numpy as np
import pytest
from encrypted import SEED, encrypt, filter_of, hint_of, layer, operands, weights_of
from layers import ALIKE

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import STATIC, Matrix, Modulus, Secret, precision_for
from pqjax.he.polynomial import product
from pqjax.he.sampling import errors, ternary
from pqjax.linear import LinearMap
from pqjax.ring import Ring

MAP = LinearMap((16, 16), (3, 3), (1, 1), ALIKE, (1, 1), 1, 12, 6)
L = 14
Q = STATIC.ring


def uniform(x, bits):
    """Whether elements of Ring(bits) fill 256 cells evenly: chi-square within 7 deviations."""
    top = np.asarray(x).astype(np.uint64).reshape(-1) >> np.uint64(bits - 8)
    found, mean = np.bincount(top.astype(int), minlength=256), top.size / 256
    return abs(((found - mean) ** 2).sum() / mean - 255) < 7 * np.sqrt(2 * 255)


def differ(a, b, bits):
    """Whether two arrays and their difference are uniform."""
    return all(
        uniform(x, bits) for x in (a, b, Ring(bits).sub(*(Ring(bits).reduce(x) for x in (a, b))))
    )


def made(key=1, filters=None):
    w = weights_of(np.random.default_rng(3), MAP, 4) if filters is None else filters
    return layer(MAP, w, L, key=key.to_bytes(16, "little"))


def test_ternary_coefficients_are_uniform_and_independent():
    s = ternary(100, 2048, Randomness(bytes(16))).astype(int)

    counts = np.bincount(s.reshape(-1) + 1)
    assert len(counts) == 3 and np.abs(counts - s.size / 3).max() < 7 * np.sqrt(s.size * 2 / 9)
    for lag in range(1, 8):
        pairs = (s.reshape(-1)[lag:] * s.reshape(-1)[:-lag]).sum()
        assert abs(pairs) < 7 * np.sqrt(s.size) * 2 / 3


def test_errors_are_centred_binomial():
    e = errors(100, 2048, Randomness(bytes(16))).astype(int)

    n = e.size
    assert abs(e.mean()) < 7 * np.sqrt(10.5 / n) and abs(e.var() - 10.5) < 7 * 10.5 * np.sqrt(2 / n)
    kurtosis = ((e / np.sqrt(10.5)) ** 4).mean()
    assert abs(kurtosis - (3 - 2 / 42)) < 7 * np.sqrt(96 / n)
    for lag in (1, 2048):
        assert abs((e.reshape(-1)[lag:] * e.reshape(-1)[:-lag]).sum()) < 7 * 10.5 * np.sqrt(n)


def test_every_layer_and_every_seed_has_polynomials_of_its_own():
    one = Matrix(STATIC, SEED, "conv1", 20)
    others = [
        dataclasses.replace(one, name="conv2"), dataclasses.replace(one, seed=bytes(16)),
        Matrix(STATIC, SEED, "conv1.", 20),
    ]  # fmt: skip

    np.testing.assert_array_equal(
        one.polynomials(), Matrix(STATIC, SEED, "conv1", 20).polynomials()
    )
    for other in others:
        assert differ(one.polynomials(), other.polynomials(), Q.bits)
    assert differ(one.polynomials()[:10], one.polynomials()[10:], Q.bits)
    with pytest.raises(InputError, match="16 bytes"):
        Matrix(STATIC, b"short", "conv1", 1)


def test_hints_are_uniform_and_their_rows_independent():
    same = np.repeat(weights_of(np.random.default_rng(3), MAP, 4)[..., :1], 6, -1)
    at = made(filters=same)
    high, bits = at.hint.high, at.precision.hint_bits

    assert uniform(high, bits)
    assert differ(high[:3], high[3:], bits)
    zero = made(filters=np.zeros_like(same))
    assert uniform(zero.hint.high, zero.precision.hint_bits)


def test_hints_of_the_same_weights_are_independent():
    own = made(1).precision
    tiling, w = made(1).tiling, made(1).weights
    randomness = Randomness(bytes(16))
    matrix = Matrix(STATIC, SEED, "layer", tiling.polynomials)
    one, two = (hint_of(tiling, own, w, matrix, randomness)[0].high for _ in range(2))

    assert differ(one, two, own.hint_bits)


def test_a_hint_is_its_weights_hidden_by_u_and_an_error():
    at = made()
    own = dataclasses.replace(at.precision, hint_bits=STATIC.bits)  # all bits, to see e1
    hint, key = hint_of(at.tiling, own, at.weights, at.matrix, at.randomness)

    rest = hint.high - at.tiling.multiply(at.weights, at.matrix.polynomials(), Q.bits)
    assert uniform(Q.reduce(rest), Q.bits)  # a client that guesses the weights sees no more
    hidden = product(Matrix.key(STATIC, SEED).polynomials(), key.u, Q.bits)
    e1 = Q.signed(Q.reduce(rest - hidden))
    assert abs(e1.var() - 10.5) < 1 and np.abs(e1).max() <= 21
    assert len({row.tobytes() for row in e1}) == len(e1)


def test_without_u_or_with_one_u_twice_the_weights_show():
    at = made()
    plain = at.tiling.multiply(at.weights, at.matrix.polynomials(), Q.bits)
    noise = errors(2, STATIC.degree, Randomness(bytes(16))).astype(np.uint64)

    none = Q.reduce(plain[:2] + noise)
    guess = Q.signed(Q.reduce(none - plain[:2]))
    assert np.abs(guess).max() <= 21  # a right guess is confirmed

    shared = product(Matrix.key(STATIC, SEED).polynomials(), at.key.u[:1], Q.bits)
    twice = Q.reduce(plain[:2] + shared + noise)
    assert uniform(twice, Q.bits)
    difference = Q.signed(Q.reduce((twice[0] - twice[1]) - (plain[0] - plain[1])))
    assert np.abs(difference).max() <= 42


def test_ciphertexts_are_uniform_whatever_they_hold():
    at = made()
    t, own = at.tiling, at.precision
    for value in (0, 1, (1 << L) - 1):
        x = t.cut(np.full(MAP.in_shape, value, np.uint16))
        secret = Secret(STATIC, at.randomness)

        sent = encrypt(t.used(secret.masks(at.matrix)[None]), t.used(x), own)

        assert uniform(sent, own.sent_bits)
        assert uniform(np.concatenate([Secret(STATIC, at.randomness).zero(SEED) for _ in range(4)]),
                       Q.bits)  # fmt: skip
    assert not uniform(encrypt(np.zeros((1, t.slots), np.uint64), t.used(x), own), own.sent_bits)


def test_two_inferences_of_one_input_share_nothing_and_a_secret_used_twice_would_show_it():
    at = made()
    t, own = at.tiling, at.precision
    x = t.used(t.cut(operands(np.random.default_rng(0), MAP, L)[0]))
    fresh = [Secret(STATIC, at.randomness) for _ in range(2)]

    one, two = (encrypt(t.used(secret.masks(at.matrix)[None]), x, own) for secret in fresh)

    assert differ(one, two, own.sent_bits)
    fresh[0]._met.clear()
    again = encrypt(t.used(fresh[0].masks(at.matrix)[None]), x, own)
    ring = Ring(own.sent_bits)
    assert np.abs(ring.signed(ring.sub(again, one))).max() <= 42


def test_a_secret_meets_a_matrix_once():
    at = made()
    secret = Secret(STATIC, at.randomness)
    secret.zero(SEED)
    secret.masks(at.matrix)

    for again in (lambda: secret.masks(at.matrix), lambda: secret.zero(SEED)):
        with pytest.raises(InputError, match="once"):
            again()
    assert repr(secret).startswith("<") and "array" not in repr(at.key) + repr(at.hint)


def test_masks_are_small_errors_once_the_secret_is_known():
    secret = Secret(STATIC, Randomness(bytes(16)))
    matrix = Matrix(STATIC, SEED, "layer", 30)

    masks = secret.masks(matrix)

    noise = Q.signed(Q.reduce(masks + product(matrix.polynomials(), secret._s, Q.bits)))
    assert abs(noise.var() - 10.5) < 1 and np.abs(noise).max() <= 21
    assert len({row.tobytes() for row in noise}) == len(noise)


def test_either_share_alone_is_uniform():
    at = made()
    x, x0 = operands(np.random.default_rng(0), MAP, L)

    for share in at.infer(x, x0)[:2]:
        assert uniform(share, L + 1)


def test_a_guard_bit_is_not_zero_and_must_not_be_opened():
    at = made()
    x, x0 = operands(np.random.default_rng(0), MAP, L)

    server, client, noise = at.infer(x, x0)

    guard = (Ring(L + 1).add(server, client) & 1).reshape(-1)
    assert 0.3 < guard.mean() < 0.7
    # It tells a part of the noise, and so of secrets, to whoever opens it.
    assert (np.concatenate([at.tiling.join(e[None]).reshape(-1) for e in noise]) >= 0)[
        guard == 1
    ].mean() > 0.5


def test_a_matrix_of_another_ring_is_refused():
    secret = Secret(STATIC, Randomness(bytes(16)))
    with pytest.raises(InputError, match="own ring"):
        secret.masks(Matrix(Modulus(2048, 39), SEED, "layer", 1))
    with pytest.raises(InputError, match="polynomials"):
        at = made()
        hint_of(at.tiling, precision_for(L, filter_of(at.weights)), at.weights,
                dataclasses.replace(at.matrix, count=9), at.randomness)  # fmt: skip
