"""What may overflow is derived, what cannot be known is not accepted, and nothing hangs on the way."""

import dataclasses

import jax
import numpy as np
import pytest
from interpreter import every_value_slowly
from pitfalls import IMAGE, ONE, PITFALLS, POOL, SMALL, fmt, graph, relu, twice

from pqjax.errors import GraphError
from pqjax.graph import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Conv,
    Extend,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Narrow,
    Relu,
    Requantize,
    ScaleUp,
    Truncate,
    TruncateReduce,
    every_value,
    may_overflow,
    overflowing,
    reach,
    validate,
    wrap_rates,
)
from pqjax.graph import passes as all_passes
from pqjax.graph.baselines import EXTENDED_RESIDUALS, WORST_CASE_WIDTHS, uniform_ring
from pqjax.graph.passes import LOWER


def free(graph, node):
    return 0.0


def test_overflow_ends_at_a_shift_a_clamp_and_a_product():
    made, _, _ = graph(
        fmt(6), twice(6), relu(6), Add("sum", ("relu", "x"), fmt(6)), Extend("wide", ("sum",), fmt(9)),
        Narrow("low", ("wide",), fmt(5)), Clamp("clamp", ("low",), fmt(3), -2, 3),
        TruncateReduce("tr", ("low",), fmt(3, -2), 2), ScaleUp("up", ("low",), fmt(7, 2), 2),
        Requantize("q", ("low",), fmt(4), rule="wrap"), twice(9, "weights", "low", name="next"),
        twice(9, "empirical", "x", name="loose"),
    )  # fmt: skip

    found = overflowing(made)

    assert found == {"conv", "relu", "sum", "wide", "low", "loose"}
    assert found == {node.name for node in made if may_overflow(made, node.name)}


def test_overflow_is_found_in_a_graph_where_every_tensor_is_added_to_itself():
    nodes = [Input("n0", (), fmt(60)), twice(60, source="n0", name="n1")[0]]
    nodes += [Add(f"n{i}", (f"n{i - 1}",) * 2, fmt(60)) for i in range(2, 400)]
    made = Graph(tuple(nodes))

    assert may_overflow(made, "n399") and len(overflowing(made)) == 399
    assert len(validate(made)) == 400


@pytest.mark.parametrize("name", PITFALLS)
def test_the_reference_computes_in_the_ring_at_every_step(name):
    made, weights, x = PITFALLS[name]

    with jax.disable_jit():
        fast = every_value(made, weights, x)

    slow = every_value_slowly(made, weights, x)
    for node in made:
        np.testing.assert_array_equal(fast[node.name][0], slow[node.name].astype(np.int64))


SITES = [p for p in vars(all_passes).values() if isinstance(p, all_passes.Pass) and p.site]


@pytest.mark.parametrize("name", PITFALLS)
def test_every_pass_keeps_a_pitfalls_answer_wherever_it_applies(name):
    made, weights, x = PITFALLS[name]
    wanted = every_value_slowly(made, weights, x)[made.output.name].tolist()

    for first in (None, WORST_CASE_WIDTHS, EXTENDED_RESIDUALS):
        begun = LOWER(made if first is None else first(made, free), free)
        for each in SITES:
            assert each.site is not None
            for node in begun:
                if isinstance(each.site(begun, node), str):
                    continue
                after = each.at(begun, node.name)
                validate(after, weights, given=validate(made, weights))
                values = every_value_slowly(after, weights, x)
                assert values[after.output.name].tolist() == wanted, each.name
                for other in after:
                    assert min(values[other.name].ravel()) >= other.out.low, (each.name, other.name)


def test_no_pass_widens_what_may_overflow_or_relies_on_its_carry():
    pooled, _, _ = PITFALLS["a pool widens what overflows"]
    aligned, _, _ = PITFALLS["an alignment widens what overflows"]
    carry, _, _ = graph(
        fmt(6), twice(6), Relu("relu", ("conv",), fmt(6)),
        TruncateReduce("tr", ("relu",), fmt(4, -2), 2, "nearest"),
    )  # fmt: skip
    made = all_passes.POOL_BEFORE_RELU.at(pooled, "max")

    assert made["conv"].out.bits == 6 and made["max.headroom"].out.bits == 7
    with pytest.raises(GraphError, match="wide.*align-residual.*cannot overflow"):
        all_passes.ALIGN.at(aligned, "wide")
    with pytest.raises(GraphError, match="tr.*relu-after-shift.*may wrap around"):
        all_passes.RELU_AFTER_SHIFT.at(carry, "tr")
    assert all(WORST_CASE_WIDTHS(g, free)["conv"].out.bits == 6 for g in (pooled, aligned, carry))


def test_a_sign_stays_open_where_a_reader_needs_it_open():
    made, _, _ = PITFALLS["a rounding without a known sign loses its carry"]

    assert not all_passes.SIGNS(made, free)["relu"].out.nonnegative
    with pytest.raises(GraphError, match="propagate-signs.*a reader rounds it"):
        all_passes.SIGNS.at(made, "relu")


def found(node):
    """How the width of a convolution was found."""
    assert isinstance(node, Conv)
    return node.widths


def test_a_uniform_ring_keeps_how_widths_were_found_and_refuses_what_may_overflow():
    known, _, _ = graph(fmt(6), twice(10, "weights"))
    loose, _, _ = graph(fmt(6), twice(10), relu(10))
    whole, weights, x = graph(fmt(6), twice(37), relu(37))

    assert found(uniform_ring(37)(known, free)["conv"]) == "weights"
    with pytest.raises(
        GraphError, match=r"conv \(Conv\): may overflow its 10 bits.*from the weights"
    ):
        uniform_ring(37)(loose, free)
    made = uniform_ring(37)(whole, free)
    assert found(made["conv"]) == "empirical"
    values = [every_value_slowly(g, weights, x)["relu"].tolist() for g in (made, whole)]
    assert values[0] == values[1]


def test_wraps_of_a_rounding_are_counted():
    made, weights, x = PITFALLS["a rounding loses its carry"]
    x = np.full(IMAGE, 0)
    x[0, 0, 0], x[0, 0, 1], x[0, 1, 0] = 63, 62, 61  # 62 and 63 plus 2 wrap around in 7 bits

    rates = wrap_rates(made, every_value(made, weights, x))

    assert rates == {"q": 2 / 12}


def test_limits_of_a_saturation_stay_in_the_range_of_what_it_clamps():
    for bits in range(1, 9):
        for to in range(1, 9):
            for shift in range(-3, bits):
                for kind in "sun":
                    for out in "sun":
                        q = Requantize("q", ("x",), fmt(to, -shift, out))
                        source = fmt(bits, 0, kind)
                        try:
                            made = Graph((Input("x", (), source), q))
                            validate(made)
                        except GraphError:
                            continue
                        validate(LOWER(made, free))


BIG = fmt(64)
REFUSED = [
    ("relu of unsigned values", [fmt(5, kind="u"), Relu("r", ("x",), fmt(5, kind="u"))],
     r"r \(Relu\): reads two's complement"),
    ("limits", [fmt(8), Clamp("c", ("x",), fmt(8), -600, 100)],
     r"c \(Clamp\): limits within its source's range \[-128, 127\].*write \[-128, 100\]"),
    ("clamp of unsigned values", [fmt(8, kind="u"), Clamp("c", ("x",), fmt(8), 0, 3)], "signed format"),
    ("clamp of 64 bits", [BIG, Clamp("c", ("x",), fmt(8), -3, 3)], "one bit more"),
    ("comparison of 64 bits", [BIG, MaxPool("m", ("x",), fmt(64, shape=SMALL), **POOL)], "one bit more"),
    ("unsigned 64 bits", [fmt(64, kind="u")], r"x \(Input\): unsigned formats have at most 63 bits"),
    ("headroom", [fmt(5, kind="u"), MaxPool("m", ("x",), fmt(5, kind="u", shape=SMALL), **POOL,
                                              headroom=True)], "no headroom"),
    ("headroom of what overflows", [fmt(2), twice(6), MaxPool(
        "m", ("conv",), fmt(6, shape=SMALL), **POOL, headroom=True)], "no headroom"),
    ("a sign that may overflow", [fmt(6), twice(6), relu(6),
                                  Add("a", ("relu", "relu"), fmt(6, kind="n"))],
     r"a \(Add\): may overflow, so its sign bit cannot be known.*top one of 6 bits may be set"),
    ("a sign that is not there", [fmt(6), Extend("e", ("x",), fmt(8, kind="n"))],
     r"e \(Extend\): .*says that none is negative"),
    ("an extension that cannot hold it", [fmt(6), twice(6), Extend("e", ("conv",), fmt(8, kind="u"))],
     r"e \(Extend\): .*says that none is negative"),
    ("a known sign lost by rounding", [fmt(6), twice(6), relu(6),
                                       Truncate("t", ("relu",), fmt(6, -2), 2, "nearest")],
     r"t \(Truncate\): rounds a value whose sign is known.*Narrow"),
    ("a rounding that does not fit", [fmt(6), Requantize("q", ("x",), fmt(4, -2))],
     r"q \(Requantize\): rounding adds 2 to values up to 31.*widen 'x' to 7"),
    ("the place in an image", [fmt(6), ArgMax("a", ("x",), fmt(4, shape=(1,)))], "flatten first"),
    ("a place that does not fit", [fmt(6, shape=(12,)), ArgMax("a", ("x",), fmt(4, shape=(1,)))],
     r"a \(ArgMax\): a value can be anything in \[0, 11\], which takes 5 bits"),
    ("no groups", [fmt(6), dataclasses.replace(twice(9)[0], groups=0)], "group"),
    ("a convolution without sides", [fmt(6), Conv("c", ("x",), fmt(9, shape=(3,)), **ONE,
                                                   weight_bits=2, weight_scale=0)], "3 sides"),
    ("a multiplier beyond its ring", [fmt(4), AvgPool("a", ("x",), fmt(4, shape=SMALL), **POOL,
                                                      multiplier=16)], "multiplier in 1..15"),
    ("a shift far to the left", [fmt(4), Requantize("q", ("x",), fmt(4, 64), rule="wrap")],
     r"q \(Requantize\): shifts left by 64"),
    ("a step of more than 64 bits", [fmt(40), Requantize("q", ("x",), fmt(30, 40))],
     r"q \(Requantize\): takes 80 signed bits on the way"),
    ("all bits dropped", [fmt(6), TruncateReduce("t", ("x",), fmt(1, -6), 6)], "nothing"),
    ("a clamp that widens", [fmt(6), Clamp("c", ("x",), fmt(8), 0, 3)], "at most its source's 6 bits"),
    ("an extension that narrows", [fmt(6), Extend("e", ("x",), fmt(5))], "at least its source's 6 bits"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
def test_what_protocols_would_get_wrong_is_refused(case):
    _, (source, *nodes), text = case
    with pytest.raises(GraphError, match=text):
        made, weights, _ = graph(source, *nodes)
        validate(made)


def test_a_shift_of_a_billion_is_refused_at_once():
    with pytest.raises(GraphError):
        made, _, _ = graph(fmt(4), Requantize("q", ("x",), fmt(4, 10**9), rule="wrap"))
        validate(made)


def test_sums_beyond_64_bits_are_found():
    node, weights = twice(64, weight=(1 << 40) - 1, weight_bits=41)
    far = (-(1 << 62), (1 << 62) - 1)

    low, high = reach(node, far, weights)

    assert (low, high) == (far[0] * ((1 << 40) - 1), far[1] * ((1 << 40) - 1))


def test_the_answer_of_a_flattened_overflow_keeps_its_property():
    made, _, _ = graph(fmt(6), twice(6), Flatten("f", ("conv",), fmt(6, shape=(12,))))

    assert may_overflow(made, "f") and not may_overflow(made, "x")
