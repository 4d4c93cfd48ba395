"""Views bit position by bit position, and from row to row: what a mean over a message would miss."""

import numpy as np
import pytest
from pairs import INLINE, STOCKED
from test_views import N, OTS, SHARED, constant, shared, views

from pqjax.ot.endpoint import OtSender
from pqjax.protocols.nonlinear import relu
from pqjax.protocols.resize import Forms

LIMIT = 0.06  # a difference of two shares of ones: standard deviation 0.0078
BOTH = pytest.mark.parametrize("scheme", [INLINE, STOCKED], ids=["inline", "stocked"])


def statistics(payload):
    """Share of ones of every bit position, alone and XORed with the next row's, in both layouts."""
    bits = np.unpackbits(payload, bitorder="little")
    bits = bits[: bits.size // N * N]
    found = []
    for rows in (bits.reshape(N, -1), bits.reshape(-1, N).T):
        found += [rows.mean(0), (rows[1:] ^ rows[:-1]).mean(0)]
    return np.concatenate(found)


def distance(function, secrets, scheme, who):
    """The largest difference of any statistic of rank `who`'s views of two secrets."""
    one, other = (views(function, *args, scheme)[who] for args in secrets)
    assert [(w, p.size) for w, p in one] == [(w, p.size) for w, p in other], "sizes or order differ"
    return max(
        np.abs(statistics(a) - statistics(b)).max(initial=0.0)
        for (_, a), (_, b) in zip(one, other, strict=True)
    )


def alternating():
    return (np.tile(np.array([0, 14], np.uint8), N // 2),)


@BOTH
@pytest.mark.parametrize("name", SHARED)
def test_no_bit_of_a_view_depends_on_the_shared_value(scheme, name):
    for who in (0, 1):
        assert distance(SHARED[name], (shared(5), shared(-6)), scheme, who) < LIMIT


@BOTH
def test_no_bit_of_a_view_depends_on_what_changes_from_row_to_row(scheme):
    secrets = [(x, constant(0, 1)) for x in (alternating(), constant(0))]

    assert distance(OTS["cot"], secrets, scheme, 1) < LIMIT


def test_the_checker_notices_a_pad_reused_in_every_row(monkeypatch):
    pads = OtSender.pads

    def reused(self, rows, blocks):
        return tuple(np.repeat(p[:1], len(rows), axis=0) for p in pads(self, rows, blocks))

    monkeypatch.setattr(OtSender, "pads", reused)
    secrets = [(x, constant(0, 1)) for x in (alternating(), constant(0))]

    assert distance(OTS["cot"], secrets, STOCKED, 1) > 0.5


def test_the_checker_notices_relu_without_masks(monkeypatch):
    def none(self, rows, blocks):
        return (np.zeros((len(rows), blocks, 2), np.uint64),) * 2

    monkeypatch.setattr(OtSender, "pads", none)

    def run(p, x):
        return relu(p, x, 4, Forms())

    # The other party's share itself is the secret: it is in the clear without pads.
    secrets = [(constant(x), constant(0)) for x in (5, 10)]

    assert distance(run, secrets, STOCKED, 1) > 0.3
