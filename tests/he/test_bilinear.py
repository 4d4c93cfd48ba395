"""Products of two shared matrices on ciphertexts: exact, as short as stated, and what anybody sees.

Streams under fixed keys, as in `test_rlwe_secrets`; bounds are seven standard deviations and more.
"""

import dataclasses

import numpy as np
import pytest
from encrypted import SEED
from test_rlwe_secrets import differ, uniform

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import Matrix, Secret, Sharing
from pqjax.he.bilinear import Bilinear, BlockReply, bound, cheapest_bilinear
from pqjax.he.polynomial import bilinear, product
from pqjax.he.resharing import widths
from pqjax.he.sampling import ternary
from pqjax.he.shares import rounded
from pqjax.ring import Ring

SHAPE, L = (32, 40, 48), 18


def made(sharing=Sharing.GUARDED, shape=SHAPE, bits=L, block=(8, 20, 12)):
    return Bilinear(shape, block, widths(bits, bound(shape, block, bits), 4096, sharing)[0])


def elements(seed, at, bits=None):
    rng, ring = np.random.default_rng(seed), Ring(bits or at.precision.plain_bits)
    shapes = at.shape[:2], at.shape[1:]
    return [ring.reduce(rng.integers(0, 1 << 62, shape)) for shape in shapes]


@dataclasses.dataclass
class Exchange:
    """What both parties hold of a product, and what went between them."""

    secret: Secret
    matrix: Matrix
    sent: np.ndarray
    reply: BlockReply
    server: np.ndarray
    client: np.ndarray


def exchange(at, mine, theirs, key=1, name="product"):
    """One product of the server's shares and the client's."""
    secret = Secret(at.precision.modulus, Randomness(bytes(15) + bytes([key])))
    matrix, public = at.matrix(SEED, name), secret.zero(SEED)
    sent = at.encrypt(secret, matrix, *theirs)
    server = Randomness(bytes([key]) * 16)
    reply, share = at.reply(sent, public, matrix, *mine, server)
    return Exchange(secret, matrix, sent, reply, share, at.decrypt(secret, reply, *theirs))


def exact(at, mine, theirs):
    ring = Ring(at.precision.plain_bits)
    a, b = (ring.add(x, y).astype(object) for x, y in zip(mine, theirs, strict=True))
    return (a @ b) % (1 << ring.bits)


def test_sums_of_products_of_polynomials_are_those_of_loops():
    rng, degree, own, bits = np.random.default_rng(0), 16, 23, 58
    small, large = Ring(own), Ring(bits)
    a, b = (rng.integers(0, 1 << own, (*n, degree)).astype(np.uint32) for n in ((2, 3), (3, 2)))
    c, d = (rng.integers(0, 1 << bits, (2, *n, degree)).astype(np.uint64) for n in ((2, 3), (3, 2)))
    a[0, 0], b[0, 0], c[0, 0, 0], d[0, 0, 0] = small.mask >> 1, (small.mask >> 1) + 1, large.mask, 1

    def times(x, y):
        out = np.zeros(degree, object)
        for i, j in np.ndindex(degree, degree):
            out[(i + j) % degree] += (-1) ** ((i + j) // degree) * int(x[i]) * int(y[j])
        return out

    found = bilinear((a, b), (c, d), own, bits)

    left, right = small.signed(a), small.signed(b)
    for z, i, k in np.ndindex(2, 2, 2):
        terms = (times(left[i, j], d[z, j, k]) + times(c[z, i, j], right[j, k]) for j in range(3))
        np.testing.assert_array_equal(found[z, i, k], sum(terms) % (1 << bits))


@pytest.mark.parametrize("shape,block,bits", [
    (SHAPE, (8, 20, 12), L), ((1, 130, 1), (1, 64, 1), 20), ((5, 3, 70), (4, 2, 33), 9),
    ((3, 1, 2), (3, 1, 2), 24), ((17, 9, 6), (16, 9, 6), 12),
])  # fmt: skip
@pytest.mark.parametrize("sharing", [Sharing.GUARDED, Sharing.FLOODED])
def test_shares_of_the_product_are_exact_and_messages_have_their_costs(shape, block, bits, sharing):
    if sharing is Sharing.FLOODED:
        bits = min(bits, 3)  # flooding takes 40 bits of the modulus
    at = made(sharing, shape, bits, block)
    mine, theirs, own = elements(1, at), elements(2, at), at.precision
    found = exchange(at, mine, theirs)

    joined = Ring(own.share_bits).add(found.server, found.client).astype(object)
    np.testing.assert_array_equal(joined >> own.guard, exact(at, mine, theirs))
    assert found.sent.size * own.modulus.bits == at.sent_cost
    c1, c0 = found.reply
    assert c1.size * own.c1_bits + c0.size * own.c0_bits == at.reply_cost
    for x, width in ((found.sent, own.modulus.bits), (c1, own.c1_bits), (c0, own.c0_bits)):
        assert int(x.max()).bit_length() <= width


def test_the_largest_shares_leave_errors_within_their_bound(monkeypatch):
    bare = lambda phase, own, _: (phase, 0 * phase)
    monkeypatch.setattr("pqjax.he.bilinear.mask", bare)
    at = made()
    k, q = at.precision.modulus.bits, at.precision.modulus.ring
    at = dataclasses.replace(at, precision=dataclasses.replace(at.precision, c1_bits=k, c0_bits=k))
    mine, theirs = elements(1, at), elements(2, at)
    mine = [np.full_like(x, 1 << L - 1) for x in mine]  # -2^(L-1): none is larger
    cross = mine[0].astype(object) @ theirs[1] + theirs[0].astype(object) @ mine[1]
    scaled = ((cross << k - L) % (1 << k)).astype(np.uint64)

    phases = [exchange(at, mine, theirs, key) for key in (1, 2, 3)]
    errors = [q.signed(q.reduce(at.phase(x.secret, x.reply) - scaled)) for x in phases]

    deviation = np.std([e.astype(float) for e in errors])
    assert 0.8 * at.precision.deviation < deviation < 1.2 * at.precision.deviation
    assert np.abs(errors).max() < at.precision.room


def test_blocks_and_widths_are_the_cheapest_of_all_that_are_safe():
    at = cheapest_bilinear(SHAPE, L, Sharing.GUARDED)

    assert at.sent_cost + at.reply_cost <= made().sent_cost + made().reply_cost
    with pytest.raises(InputError, match="no parameters"):
        cheapest_bilinear(SHAPE, 40, Sharing.GUARDED)
    with pytest.raises(InputError, match="widths for other shares"):
        dataclasses.replace(at, shape=(99, 99, 99))
    with pytest.raises(InputError, match="blocks of 1 to"):
        dataclasses.replace(at, block=(64, 64, 64))
    mine, secret = elements(1, at), Secret(at.precision.modulus, Randomness(bytes(16)))
    other = dataclasses.replace(at.matrix(SEED, "x"), count=1)
    with pytest.raises(InputError, match="polynomials got 1"):
        at.reply(np.zeros(0), secret.zero(SEED), other, mine[0], mine[1], Randomness(bytes(16)))


def zeros(at):
    return [0 * x for x in elements(0, at)]


def test_ciphertexts_are_uniform_whatever_they_hold():
    at = made()
    k = at.precision.modulus.bits
    secrets = [Secret(at.precision.modulus, Randomness(bytes([n]) * 16)) for n in (1, 2)]
    sent = [
        at.encrypt(secrets[0], at.matrix(SEED, "a"), *zeros(at)),
        at.encrypt(secrets[0], at.matrix(SEED, "b"), *zeros(at)),
        at.encrypt(secrets[0], at.matrix(SEED, "c"), *elements(3, at)),
        at.encrypt(secrets[1], at.matrix(SEED, "a"), *zeros(at)),
    ]

    assert all(uniform(b, k) for b in sent)
    assert all(differ(sent[0], other, k) for other in sent[1:])
    half = len(sent[0]) // 2
    assert differ(sent[0][:half], sent[0][half : 2 * half], k)  # no polynomial twice
    with pytest.raises(InputError, match="once"):
        at.encrypt(secrets[0], at.matrix(SEED, "a"), *zeros(at))


def test_what_the_client_decrypts_is_uniform_and_independent_of_the_servers_shares():
    at = made()
    own, k = at.precision, at.precision.modulus.bits
    theirs, same = elements(2, at), elements(1, at)
    found = [
        exchange(at, mine, theirs, key) for mine, key in ((same, 1), (same, 2), (zeros(at), 3))
    ]

    seen = [at.phase(each.secret, each.reply) for each in found]
    for phase, each in zip(seen, found, strict=True):
        assert uniform(phase, k) and uniform(each.reply.c0, own.c0_bits)
        assert uniform(each.client, own.share_bits) and uniform(each.server, own.share_bits)
        below = k - own.share_bits
        assert uniform(phase & np.uint64((1 << below) - 1), below)  # what is beyond the share
    assert differ(seen[0], seen[1], k) and differ(seen[0], seen[2], k)
    assert differ(seen[0][:16], seen[0][16:], k)


def test_without_a_mask_sums_show(monkeypatch):
    at = made()
    k = at.precision.modulus.bits
    bare = lambda phase, own, _: (rounded(phase, own.modulus.bits, own.c0_bits), 0 * phase)
    monkeypatch.setattr("pqjax.he.bilinear.mask", bare)
    small = [x & 3 for x in elements(1, at)], [x & 3 for x in elements(2, at)]

    found = exchange(at, *small)

    phase = at.phase(found.secret, found.reply)
    cross = small[0][0].astype(int) @ small[1][1] + small[1][0].astype(int) @ small[0][1]
    np.testing.assert_array_equal(rounded(phase, k, L), cross)
    assert not uniform(phase, k)


def parts(at, found, mine):
    """What of c1 follows from the server's shares and the public polynomials."""
    k = at.precision.modulus.bits
    own = at._polynomials(mine[0], 0), at._polynomials(mine[1], 1)
    others = [x[None] for x in at._split(found.matrix.polynomials())]
    (c1,) = bilinear(own, (others[0], others[1]), L, k)
    return c1.reshape(-1, at.degree)


def test_replies_hide_the_servers_shares_from_who_knows_the_secret_and_a():
    at = made()
    bits, k = at.precision.c1_bits, at.precision.modulus.bits
    theirs, same = elements(2, at), elements(1, at)
    one, two, none = (
        exchange(at, m, theirs, key) for m, key in ((same, 1), (same, 2), (zeros(at), 3))
    )

    for found in (one, two, none):
        assert uniform(found.reply.c1, bits)
    half = at.replies // 2
    assert differ(one.reply.c1[:half], one.reply.c1[half : 2 * half], bits)  # each block its own u
    assert differ(one.reply.c1, two.reply.c1, bits)
    assert differ(none.reply.c1[:1], none.reply.c1[1:2], bits)
    rest = Ring(bits).sub(Ring(bits).reduce(one.reply.c1), rounded(parts(at, one, same), k, bits))
    assert uniform(rest, bits)  # a right guess is not confirmed


def test_replies_are_hidden_by_u_and_an_error_of_each_blocks_own():
    at = made()
    k, q = at.precision.modulus.bits, at.precision.modulus.ring
    at = dataclasses.replace(at, precision=dataclasses.replace(at.precision, c1_bits=k))
    mine = elements(1, at)
    found = exchange(at, mine, elements(2, at))

    u = ternary(at.replies, at.degree, Randomness(bytes([1]) * 16))
    hidden = product(Matrix.key(at.precision.modulus, SEED).polynomials(), u, k)
    rest = q.reduce(found.reply.c1 - parts(at, found, mine))
    assert uniform(rest, k)
    e1 = q.signed(q.reduce(rest.astype(np.uint64) - hidden))
    assert abs(e1.var() - 10.5) < 1 and np.abs(e1).max() <= 21
    assert len({row.tobytes() for row in e1}) == len(e1) == len({row.tobytes() for row in u})


def test_without_u_a_right_guess_of_the_servers_shares_is_confirmed(monkeypatch):
    monkeypatch.setattr(
        "pqjax.he.bilinear.ternary", lambda n, degree, _: np.zeros((n, degree), np.int8)
    )
    at = made()
    bits, k = at.precision.c1_bits, at.precision.modulus.bits
    mine = elements(1, at)
    found = exchange(at, mine, elements(2, at))

    ring = Ring(bits)
    rest = ring.signed(
        ring.sub(ring.reduce(found.reply.c1), rounded(parts(at, found, mine), k, bits))
    )
    assert np.abs(rest).max() <= 1 + (22 >> k - bits)
