"""What a party sees of any protocol does not depend on the other's secret."""

import zlib

import numpy as np
import pytest
from cases import CASES
from pairs import SCHEMES
from views import LIMIT, N, bias, distance, look, statistics

BOTH = pytest.mark.parametrize("scheme", SCHEMES)
ROUNDS = 96  # repetitions where one is a run of its own: enough to notice a secret in the clear


def looked_at(case, scheme, who, mine, secret, seed):
    """Rank `who`'s view of one secret, after the run was found right and as priced."""
    n = ROUNDS if case.rounds else N
    values = (mine, secret) if who == 0 else (secret, mine)
    inputs = tuple(case.constant(rank, values[rank], n) for rank in (0, 1))
    repeats = n if case.rounds else 1
    outputs, view, drawn = look(case.run, inputs, scheme, who, n, seed, case.widths, repeats)
    wanted = case.plain(*inputs, case.joined(*outputs))
    for got, right in zip(case.joined(*outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert not scheme.stocked or drawn == case.cost(scheme, n).rots
    return view


@BOTH
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_view_does_not_depend_on_the_others_secret(name, who, scheme):
    case, seed = CASES[name], zlib.crc32(f"{name} {who} {scheme}".encode()) % 10**4
    mine, secrets = case.secrets(who, np.random.default_rng(seed))

    views = [
        looked_at(case, SCHEMES[scheme], who, mine, secret, 7 * seed + i)
        for i, secret in enumerate(secrets)
    ]

    seen = [statistics(view) for view in views]
    assert len(secrets) > 1
    for other, secret in zip(seen[1:], secrets[1:], strict=True):
        assert distance(seen[0], other) < LIMIT, f"own {mine}, other {secrets[0]} or {secret}"
    for view in views:
        assert bias(view) < LIMIT, f"a received bit is not uniform, own {mine}"
