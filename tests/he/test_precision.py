"""Parameters are those of the table, widths leave room for errors, and errors are as the bound says."""

import dataclasses
import math

import numpy as np
import pytest
from encrypted import filter_of, layer, operands, plain, weights_of
from layers import ALIKE

from pqjax.errors import InputError
from pqjax.he import LIMITS, STATIC, STATIC_LIMITS, Filter, Modulus, Precision, precision_for
from pqjax.he.precision import rounding_variance
from pqjax.linear import LinearMap
from pqjax.ring import Ring

MAP = LinearMap((30, 30), (3, 3), (1, 1), ALIKE, (1, 1), 1, 16, 12)


@pytest.mark.parametrize(
    "degree,bits", [(512, 10), (1024, 27), (2048, 54), (4096, 107), (8192, 60)]
)
def test_parameters_beyond_the_table_are_refused(degree, bits):
    for static in (False, True):
        with pytest.raises(InputError, match="degree"):
            Modulus(degree, bits, static)


@pytest.mark.parametrize("degree,bits", [(1024, 26), (2048, 41), (2048, 53), (4096, 64)])
def test_what_one_public_matrix_for_many_secrets_does_not_allow_a_fresh_one_may(degree, bits):
    assert Modulus(degree, bits, static=False).bits == bits <= LIMITS[degree]
    with pytest.raises(InputError):
        Modulus(degree, bits)


def test_hints_are_made_under_the_largest_modulus_of_their_table():
    assert (STATIC.degree, STATIC.bits, STATIC.static) == (*next(iter(STATIC_LIMITS.items())), True)


@pytest.mark.parametrize("squares", [1, 576 * 16, 1 << 20])
def test_sums_too_wide_are_refused_with_the_widest_that_do(squares):
    of = Filter(squares, 576)
    with pytest.raises(InputError, match=r"at most (\d+) bits would do") as problem:
        precision_for(36, of)

    most = int(str(problem.value).split("at most ")[1].split()[0])
    assert precision_for(most, of).sum_bits == most
    with pytest.raises(InputError):
        precision_for(most + 1, of)


def test_filters_too_large_for_any_sum_are_refused():
    with pytest.raises(InputError, match="no width of sums would do"):
        precision_for(10, Filter(1 << 80, 1))


@pytest.mark.parametrize("sum_bits,sent,hint", [
    (0, 20, 20), (38, 40, 40), (14, 14, 25), (14, 24, 14), (14, 41, 25), (14, 24, 41), (14, 20, 25),
    (14, 24, 20),
])  # fmt: skip
def test_other_widths_are_refused(sum_bits, sent, hint):
    with pytest.raises(InputError, match="bits"):
        Precision(STATIC, Filter(144 * 20, 144), sum_bits, sent, hint)


@pytest.mark.parametrize("sum_bits", range(1, 25))
@pytest.mark.parametrize("squares", [1, 600, 5000])
def test_widths_keep_the_failure_bound_and_three_bits_less_do_not(sum_bits, squares):
    own = precision_for(sum_bits, Filter(squares, 4 * max(1, squares)))

    assert own.failure_log2 <= -64
    for name in ("sent_bits", "hint_bits"):
        fewer = getattr(own, name) - 3
        if fewer > sum_bits:
            with pytest.raises(InputError, match="may fail"):
                dataclasses.replace(own, **{name: fewer})


@pytest.mark.parametrize("squares", [1 << 19, 1 << 20])
def test_where_errors_of_encryption_take_much_of_the_room_more_bits_travel_and_no_more_than_needed(
    squares,
):
    of = Filter(squares, 960)
    own = precision_for(23, of)

    assert own.failure_log2 <= -64 and own.sent_bits > precision_for(22, of).sent_bits + 1
    with pytest.raises(InputError, match="may fail"):
        dataclasses.replace(own, sent_bits=own.sent_bits - 1)


def test_sums_with_hardly_any_room_but_for_errors_of_encryption_are_exact():
    rng = np.random.default_rng(7)
    m = LinearMap.pointwise((7, 7), 960, 3)
    w = (33 * (1 - 2 * rng.integers(0, 2, m.weight_shape))).astype(np.int8)
    at = layer(m, w, 23)
    x, x0 = operands(rng, m, 23)

    server, client, errors = at.infer(x, x0)

    assert at.precision.sent_bits == STATIC.bits and np.abs(errors).max() > at.precision.room / 4
    both = Ring(24).add(server, client) >> 1
    np.testing.assert_array_equal(
        both, plain(m, w.astype(np.int64), x.astype(np.int64)) % (1 << 23)
    )


def errors_of(own=None):
    """Errors of some inferences, and the widths."""
    rng = np.random.default_rng(5)
    w = weights_of(rng, MAP, 4)
    w[...] = w[..., :1].repeat(12, -1) * (1 - 2 * rng.integers(0, 2, w.shape)).astype(np.int8)
    at = layer(MAP, w, 16, precision=own)
    found = [at.infer(*operands(rng, MAP, 16)) for _ in range(3)]
    return np.concatenate([e.reshape(-1) for *_, e in found]), at.precision


def test_errors_have_the_stated_deviation_and_tail():
    found, own = errors_of()
    scaled = found / own.deviation

    assert abs(scaled.std() - 1) < 0.05  # all filters are as large as they may be
    assert abs(scaled.mean()) < 0.05
    assert abs((scaled**4).mean() - 3) < 0.2
    for tau in (1, 2, 3, 4):
        tail = (np.abs(scaled) > tau).mean()
        assert tail <= 2 * math.exp(-tau * tau / 2)
        expected = math.erfc(tau / math.sqrt(2))
        assert abs(tail - expected) < 8 * math.sqrt(expected / found.size) + 0.01 * (tau < 3)
    assert np.abs(found).max() < own.room


@pytest.mark.parametrize("name,fewer", [("sent_bits", 4), ("hint_bits", 4)])
def test_a_bound_made_too_small_makes_wrong_sums(monkeypatch, name, fewer):
    rng = np.random.default_rng(5)
    w = weights_of(rng, MAP, 4)
    own = precision_for(16, filter_of(w))
    monkeypatch.setattr("pqjax.he.precision.FAILURE_LOG2", 0)
    own = dataclasses.replace(own, **{name: getattr(own, name) - fewer})

    at = layer(MAP, w, 16, precision=own)
    x, x0 = operands(rng, MAP, 16)
    server, client, errors = at.infer(x, x0)

    good = layer(MAP, w, 16).infer(x, x0)
    halves = [Ring(17).add(*shares) >> 1 for shares in ((server, client), good[:2])]
    assert (halves[0] != halves[1]).any() and np.abs(errors).max() >= own.room


@pytest.mark.parametrize("dropped", [0, 1, 5])
def test_rounding_errors_have_the_variance_and_mean_that_the_bound_takes(dropped):
    values = np.arange(1 << dropped)
    off = ((values + ((1 << dropped) >> 1)) >> dropped << dropped) - values

    assert off.var() == rounding_variance(dropped) and off.mean() == (0.5 if dropped else 0)
