"""Hints, keys, ciphertexts and replies are uniform and alike for any input and any weights; so is noise.

Of inputs of all zeros and of random ones, and of weights that are zeros and random ones: where a secret
hides nothing, zeros show it first.
"""

import dataclasses
import functools

import numpy as np
import pytest
from chance import Chances, add_alike, add_uniform, alike_cells_chance, alike_values_chance
from encrypted import SEED, encrypt, exchange, hint_of, layer, weights_of
from layers import ALIKE

from pqjax.crypto.prg import Randomness
from pqjax.he import STATIC, Filter, Matrix, Packing, Secret, Sharing, Tiling, TwoWay
from pqjax.he.polynomial import product
from pqjax.he.resharing import widths
from pqjax.he.shares import rounded
from pqjax.linear import LinearMap
from pqjax.ring import Ring

MAP = LinearMap((8, 8), (3, 3), (1, 1), ALIKE, (1, 1), 1, 4, 4)
REPLIED = LinearMap((16, 16), (3, 3), (1, 1), ALIKE, (1, 1), 1, 4, 4)
L, WEIGHT_BITS = 13, 4
DRAWS, REPLIES = 100, 24
Q = STATIC.ring
TESTS = 4


def weights_of_kind(m, kind):
    """Random ones, or zeros."""
    return weights_of(np.random.default_rng(3), m, WEIGHT_BITS) * (kind == "random")


@functools.cache
def layer_of(kind):
    """A layer with hints; both kinds have the widths of the first."""
    found = layer(MAP, weights_of_kind(MAP, "random"), L, key=bytes([1]) * 16)
    if kind == "random":
        return found
    zeros = weights_of_kind(MAP, kind)
    return layer(MAP, zeros, L, found.tiling, found.precision, bytes([2]) * 16)


def operand(kind, shape, bits, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 1 << bits, shape)
    return Ring(bits).reduce(drawn * (kind == "random"))


def hints(kind, seed, n=DRAWS):
    """Hints of n versions."""
    at, randomness = layer_of(kind), Randomness(bytes([seed]) * 16)
    return np.stack(
        [
            hint_of(at.tiling, at.precision, at.weights, at.matrix, randomness)[0].high
            for _ in range(n)
        ]
    )


def keys(seed, n=DRAWS):
    """Public keys of n secrets."""
    randomness = Randomness(bytes([seed]) * 16)
    return np.stack([Secret(STATIC, randomness).zero(SEED) for _ in range(n)])


def ciphertexts(kind, seed, n=DRAWS):
    """What is sent of one input n times."""
    at, randomness = layer_of("random"), Randomness(bytes([seed]) * 16)
    t, own = at.tiling, at.precision
    x = t.used(t.cut(operand(kind, MAP.in_shape, L)))
    found = []
    for _ in range(n):
        masks = [Secret(STATIC, randomness).masks(at.matrix) for _ in range(t.tiles)]
        found.append(encrypt(t.used(np.stack(masks)), x, own))
    return np.stack(found)


@functools.cache
def two_way():
    own = widths(L, Filter(9 * 4 << 2 * (WEIGHT_BITS - 1), REPLIED.terms), 4096, Sharing.GUARDED)[0]
    return TwoWay(Tiling(REPLIED, 4096, (18, 18)), own, Packing.NONE, L)


def replies(weights, x, seed, n=REPLIES):
    """n layers with a reply, of these weights and this input."""
    at, w = two_way(), weights_of_kind(REPLIED, weights)
    image = operand(x, REPLIED.in_shape, at.operand_bits)
    mine = np.zeros(REPLIED.in_shape, image.dtype)
    return [exchange(at, w, image, mine, bytes([seed + i]) * 16) for i in range(n)]


def of_replies(found):
    """By name: what either party sees, (n, ...), and its width."""
    at = two_way()
    own, k = at.precision, at.precision.modulus.bits
    lost = k - max(own.c1_bits, own.c0_bits)  # of a phase: bits that are zeros, as everybody knows
    phases = np.stack([at.phase(each.secret, each.reply) for each in found]) >> np.uint64(lost)
    return {
        "c1": (np.stack([each.reply.c1 for each in found]), own.c1_bits),
        "c0": (np.stack([each.reply.c0 for each in found]), own.c0_bits),
        "what the client decrypts": (phases, k - lost),
        "beyond its share": (phases, k - lost - own.share_bits),
        "b": (np.stack([each.sent for each in found]), k),
        "b_pk": (np.stack([each.public for each in found]), k),
    }


def pooled(x):
    """All coefficients as repetitions."""
    return np.reshape(x, (-1, 1))


def uniform_judged(hinted, sent, replied):
    chances, own = Chances("rlwe", TESTS), layer_of("random").precision
    add_uniform(chances, "hints", pooled(hinted), own.hint_bits)
    add_uniform(chances, "keys", pooled(keys(5)), Q.bits)
    add_uniform(chances, "ciphertexts", pooled(sent), own.sent_bits)
    for name, (x, bits) in of_replies(replied).items():
        add_uniform(chances, name, pooled(x), bits)
    return chances


@pytest.mark.slow
def test_all_that_is_sent_of_zeros_is_uniform():
    made = hints("zeros", 3), ciphertexts("zeros", 4), replies("zeros", "zeros", 10)

    verdict = uniform_judged(*made).told("all values, of zeros", DRAWS)

    assert not verdict.alarm, verdict


def alike_judged(hinted, sent, replied):
    chances, own = Chances("rlwe", TESTS), layer_of("random").precision
    add_alike(chances, "hints", pooled(hinted[0]), pooled(hinted[1]), own.hint_bits)
    add_alike(chances, "ciphertexts", pooled(sent[0]), pooled(sent[1]), own.sent_bits)
    one, other = map(of_replies, replied)
    for name, (x, bits) in one.items():
        add_alike(chances, name, pooled(x), pooled(other[name][0]), bits)
    return chances


@pytest.mark.slow
def test_all_that_is_sent_is_alike_for_two_inputs_and_two_sets_of_weights():
    kinds = ("zeros", "random")
    hinted = [hints(kind, 20 + i) for i, kind in enumerate(kinds)]
    sent = [ciphertexts(kind, 22 + i) for i, kind in enumerate(kinds)]
    replied = [replies(kind, kind, 30 + 20 * i) for i, kind in enumerate(kinds)]

    verdict = alike_judged(hinted, sent, replied).told("all values, two of each", DRAWS)

    assert not verdict.alarm, verdict


def noise_sent(found, kind):
    """The errors in what a client sent, as who knows its secret and its input sees them."""
    at = two_way()
    k, q = at.precision.modulus.bits, at.precision.modulus.ring
    plain = at.encode(operand(kind, REPLIED.in_shape, at.operand_bits))
    grid = np.uint64(k - at.operand_bits)
    errors = []
    for each in found:
        hidden = product(each.matrix.polynomials(), each.secret._s, k)
        errors.append(
            q.signed(q.reduce((each.sent - (plain << grid)).reshape(hidden.shape) + hidden))
        )
    return np.stack(errors)


def noise_hinted(kind, seed, n=20):
    """The errors in hints, as who knows the weights and u sees them."""
    at, randomness = layer_of(kind), Randomness(bytes([seed]) * 16)
    own = dataclasses.replace(at.precision, hint_bits=STATIC.bits)  # all bits, to see errors
    plain = at.tiling.multiply(at.weights, at.matrix.polynomials(), Q.bits)
    public = Matrix.key(STATIC, SEED).polynomials()
    errors = []
    for _ in range(n):
        hint, made = hint_of(at.tiling, own, at.weights, at.matrix, randomness)
        hidden = product(public, made.u, Q.bits)
        errors.append(Q.signed(Q.reduce(hint.high - plain - hidden)))
    return np.stack(errors)


def noise_judged(pairs):
    chances = Chances("rlwe", TESTS)
    for name, (one, other) in pairs.items():
        cells = (
            np.bincount((np.clip(x, -30, 30) + 30).reshape(-1), minlength=61) for x in (one, other)
        )
        chances.add(f"{name}, values", alike_cells_chance(*cells))
        chances.add(f"{name}, distribution", alike_values_chance(one, other))
        products = (x.reshape(-1)[:-1:2] * x.reshape(-1)[1::2] for x in (one, other))
        chances.add(f"{name}, neighbours", alike_values_chance(*products))
    return chances


@pytest.mark.slow
def test_noise_depends_on_no_input_and_on_no_weights():
    kinds = ("zeros", "random")
    pairs = {
        "hints": [noise_hinted(kind, 70 + i) for i, kind in enumerate(kinds)],
        "ciphertexts": [
            noise_sent(replies("random", x, 80 + 20 * i), x) for i, x in enumerate(kinds)
        ],
    }

    verdict = noise_judged(pairs).told("noise, two of each", DRAWS)

    assert all(np.abs(x).max() <= 21 for both in pairs.values() for x in both)
    assert not verdict.alarm, verdict


def differences(sent, bits):
    """Of every ciphertext and the next one of the same input."""
    ring = Ring(bits)
    return ring.sub(ring.reduce(sent[1:]), ring.reduce(sent[:-1]))


def differences_judged(sent):
    chances, bits = Chances("rlwe", TESTS), layer_of("random").precision.sent_bits
    add_uniform(chances, "differences", pooled(differences(sent, bits)), bits)
    return chances


@pytest.mark.slow
def test_ciphertexts_of_one_input_differ_by_uniform_values():
    verdict = differences_judged(ciphertexts("random", 6)).told("differences", DRAWS)

    assert not verdict.alarm, verdict


# The same with a secret less, which must be noticed.


def _no_secret(n, degree, randomness):
    return np.zeros((n, degree), np.int8)


def _no_mask(phase, own, randomness):
    return rounded(phase, own.modulus.bits, own.c0_bits), 0 * phase


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("pqjax.he.hint.ternary", _no_secret),  # u of hints
        ("pqjax.he.secret.ternary", _no_secret),  # s
        ("pqjax.he.exchange.ternary", _no_secret),  # u of replies
        ("pqjax.he.exchange.mask", _no_mask),
    ],
)
def test_values_with_a_secret_less_raise_an_alarm(where, what, monkeypatch):
    for kind in ("random", "zeros"):
        layer_of(kind)
    monkeypatch.setattr(where, what)

    few = hints("zeros", 3, 20), ciphertexts("zeros", 4, 40), replies("zeros", "zeros", 10, 4)
    verdict = uniform_judged(*few).told(f"control, {where}", 20, control=True)

    assert verdict.alarm, verdict


@pytest.mark.slow
def test_noise_that_depends_on_what_it_hides_raises_an_alarm():
    errors = noise_hinted("random", 71, 8)
    larger = errors + (errors > 3)

    verdict = noise_judged({"hints": (errors, larger)}).told("control, noise", 8, control=True)

    assert verdict.alarm, verdict


@pytest.mark.slow
def test_a_secret_that_serves_again_raises_an_alarm(monkeypatch):
    secret = Secret(STATIC, Randomness(bytes(16)))
    monkeypatch.setattr("test_rlwe_values.Secret", lambda *_: secret)
    monkeypatch.setattr(secret, "_met", _Forgetful())

    verdict = differences_judged(ciphertexts("random", 6, 8)).told("control, one secret", 8, True)

    assert verdict.alarm, verdict


class _Forgetful(set):
    """Of what a secret has met: nothing."""

    def add(self, element):
        pass
