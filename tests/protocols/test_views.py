"""What a party sees of any protocol does not depend on the other's secret."""

import zlib

import numpy as np
import pytest
from cases import CASES
from pairs import KINDS
from views import (
    LIMIT,
    Coins,
    Direction,
    N,
    Record,
    Unaligned,
    View,
    bias,
    distance,
    look,
    neighbours,
    products,
    statistics,
)

from pqjax.ot.stocked import Stocked

BOTH = pytest.mark.parametrize("source", KINDS)
ROUNDS = 96  # repetitions where one is a run of its own: enough to notice a secret in the clear


def looked_at(case, source, who, mine, secret, seed):
    """Rank `who`'s view of one secret, after the run was found right and as priced."""
    n = ROUNDS if case.rounds else N
    values = (mine, secret) if who == 0 else (secret, mine)
    inputs = tuple(case.constant(rank, values[rank], n) for rank in (0, 1))
    repeats = n if case.rounds else 1
    outputs, view, drawn = look(case.run, inputs, source, who, n, seed, case.widths, repeats)
    wanted = case.plain(*inputs, case.joined(*outputs))
    for got, right in zip(case.joined(*outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert not isinstance(source, Stocked) or drawn == case.cost(source, n).rots
    return view


@BOTH
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_view_does_not_depend_on_the_others_secret(name, who, source):
    case, seed = CASES[name], zlib.crc32(f"{name} {who} {source}".encode()) % 10**4
    mine, secrets = case.secrets(who, np.random.default_rng(seed))

    views = [
        looked_at(case, KINDS[source], who, mine, secret, 7 * seed + i)
        for i, secret in enumerate(secrets)
    ]

    seen = [statistics(view) for view in views]
    assert len(secrets) > 1
    for other, secret in zip(seen[1:], secrets[1:], strict=True):
        assert distance(seen[0], other) < LIMIT, f"own {mine}, other {secrets[0]} or {secret}"
    for view in views:
        assert bias(view) < LIMIT, f"a received bit is not uniform, own {mine}"


# The harness itself: it must notice what it is there for.


def seen(name, who, source, mine, secrets):
    """Views of several secrets."""
    return [looked_at(CASES[name], KINDS[source], who, mine, s, i) for i, s in enumerate(secrets)]


def furthest(views):
    found = [statistics(view) for view in views]
    return max(distance(found[0], other) for other in found[1:])


def change_masks(monkeypatch, source, change):
    """Has `change` make others of the bits that mask tables: of coins or, stored, of the first pad."""
    drawn, made = Coins.bits, Direction.words

    def words(self, call, n, m, t):
        pads, ones = made(self, call, n, m, t), np.uint64((1 << t) - 1)
        return pads & ~ones | change(pads & ones)

    if source == "inline":
        monkeypatch.setattr(Coins, "bits", lambda self, n: change(drawn(self, n)))
    else:
        monkeypatch.setattr(Direction, "words", words)


@BOTH
def test_shares_that_are_no_secret_are_noticed(source, monkeypatch):
    change_masks(monkeypatch, source, np.zeros_like)

    assert furthest(seen("less than, 4 bits", 1, source, [7], [[3], [12]])) > 3 * LIMIT


@BOTH
@pytest.mark.parametrize("who", [0, 1])
def test_masks_that_are_no_secret_are_noticed(source, who, monkeypatch):
    monkeypatch.setattr(Coins, "elements", lambda self, n, ring: np.zeros(n, ring.dtype))

    assert furthest(seen("mux, chosen", who, source, [5, 1], [[3, 0], [10, 0]])) > 3 * LIMIT


@BOTH
def test_a_mask_shared_by_all_rows_is_noticed(source, monkeypatch):
    change_masks(monkeypatch, source, lambda masks: np.repeat(masks[:1], len(masks)))

    (view,) = seen("less than, 4 bits", 1, source, [7], [[3]])

    assert bias(view) > 3 * LIMIT


def test_pads_that_are_no_secret_are_noticed(monkeypatch):
    def none(self, call, index, blocks):
        return np.zeros((2, len(index), blocks, 2), np.uint64)

    monkeypatch.setattr(Direction, "pads", none)

    assert furthest(seen("b2a, 5 bits", 1, "stocked", [0], [[0], [1]])) > 3 * LIMIT


def test_what_is_seen_in_two_bits_together_alone_is_noticed():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, N).astype(np.uint8)
    views = [
        View([Record("frame", np.concatenate([mask, mask ^ secret]), (1,))], N) for secret in (0, 1)
    ]

    assert bias(views[0]) < LIMIT < furthest(views)


@pytest.mark.parametrize("n", [N - 1, N + 1, 2 * N + 8])
def test_bits_that_belong_to_no_repetition_are_refused(n):
    view = View([Record("frame", np.zeros(n, np.uint8), (1,))], N)

    with pytest.raises(Unaligned, match="no layout fits"):
        view.columns()


@BOTH
def test_a_reply_that_nobody_asked_for_is_refused(source):
    def chatty(party):
        if party.rank == 0:
            party.messenger.send(np.zeros(N // 8, np.uint8), N)
        else:
            party.messenger.receive(N)
        return ()

    with pytest.raises(Unaligned, match="answers no request"):
        look(chatty, ((), ()), KINDS[source], 1, N, 0)


def test_products_are_those_of_signs():
    columns = np.random.default_rng(1).integers(0, 2, (7, 100)).astype(np.uint8)
    signs = 2.0 * columns - 1

    found = products(columns)

    np.testing.assert_allclose(found, np.triu(signs @ signs.T / 100, 1), atol=1e-6)
    np.testing.assert_allclose(neighbours(columns), (signs[:, 1:] * signs[:, :-1]).mean(1))
