"""Whole runs through the engine: what either party sees of an inference says nothing of the other's.

A picture of many equal pixels through 1x1 convolutions, so that pixels are repetitions. The last layer's
weights are zero, so that the answer is the same whatever the weights before it were.
"""

from dataclasses import replace

import numpy as np
import pytest
from encrypted import layouts
from networks import ENCRYPTED
from views import (
    LIMIT,
    Record,
    bias,
    distance,
    ideal_parties,
    observed,
    sequential_packing,
    statistics,
)

import pqjax
from pqjax.crypto.prg import Randomness
from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.graph import Add, Conv, Graph, Input, Relu, Requantize, TensorType, validate
from pqjax.he import Packing, Version
from pqjax.he.matrix import SEED_BYTES
from pqjax.layers.linear import LINEAR, job_of
from pqjax.planner import plan
from pqjax.protocols.party import run_pair

SIDE = 32
N = SIDE * SIDE
WEIGHTS = [(3, -4), (-3, 7), (1, 0)]  # weight and bias of the first layer
PIXELS = [-8, 5, 7]


def picture(bits, scale, **fields):
    return TensorType((SIDE, SIDE, 1), bits, scale, **fields)


def conv(name, source, out):
    """One weight."""
    return Conv(name, (source,), out, (1, 1), (1, 1), ((0, 0), (0, 0)), 3, 2)


def network():
    """Convolution, ReLU, requantization, a residual sum, and a convolution that multiplies by 0."""
    small = picture(4, 2, nonnegative=True)
    nodes = (
        Input("image", (), picture(4, 3)),
        conv("conv1", "image", picture(8, 5)),
        Relu("relu1", ("conv1",), picture(8, 5, nonnegative=True)),
        Requantize("low", ("relu1",), small),
        conv("conv2", "low", picture(8, 4)),
        Requantize("wide", ("low",), picture(8, 4, nonnegative=True), rule="wrap"),
        Add("sum", ("conv2", "wide"), picture(8, 4)),
        Requantize("cut", ("sum",), picture(4, 1)),
        conv("last", "cut", picture(8, 3)),
    )
    return Graph(nodes)


def weights_of(weight, offset):
    one = {"conv1": (weight, offset), "conv2": (2, 1), "last": (0, 5)}
    made = {}
    for name, (w, b) in one.items():
        made[f"{name}/weight"] = np.full((1, 1, 1, 1), w)
        made[f"{name}/bias"] = np.array([b])
    return made


def seen(made, weights, pixel, who, seed):
    """Rank `who`'s view of one inference in the OT-hybrid model, its preparation included."""
    image = np.full((SIDE, SIDE, 1), pixel)
    make = ideal_parties(made.preset.source, who, seed)
    version = Version(bytes(16), Randomness(seed.to_bytes(16, "little")).block())
    model = ServedModel.of_version(made, weights, version)
    hints = model.hints.by_layer(made) if model.hints else {}

    def side(rank):
        def run(wire):
            party = make(wire, rank)
            mine = Own(hints, version.seed) if rank else model.own
            ready = prepare(party, made, mine)
            return infer(party, made, mine, ready, image if rank == 1 else None), party

        return run

    with sequential_packing():
        (_, party0), (y, party1) = run_pair(side(0), side(1))
    np.testing.assert_array_equal(y, pqjax.reference(made.source, weights, image))
    view = observed((party0, party1)[who], N, revealed=who)
    # A reply's seeds are drawn by the cipher and public (tests/linear/test_by_reply.py).
    view.records = [record for record in view.records if record.bits.size != 8 * SEED_BYTES]
    for name, hint in hints.items() if who else ():
        width = made.step(name).task.choice.packing.hint_bits
        view.records.append(Record("frame", np.unpackbits(hint, bitorder="little"), (width,)))
    return view


def assert_alike(views):
    found = [statistics(view) for view in views]
    for other in found[1:]:
        assert distance(found[0], other) < LIMIT
    for view in views:
        assert bias(view) < LIMIT


PRESETS = [
    ENCRYPTED, "hequant", "pqjax-ot", "privquant", "sirnn",
    pytest.param("cryptflow2", marks=pytest.mark.slow),
    pytest.param("sirnn-choice1", marks=pytest.mark.slow),
]  # fmt: skip
EVERY = pytest.mark.parametrize("protocol", PRESETS, ids=lambda x: getattr(x, "name", x))


@EVERY
def test_the_server_sees_nothing_of_the_input(protocol):
    graph, weights = network(), weights_of(*WEIGHTS[0])
    validate(graph, weights)
    made = plan(graph, protocol)

    assert_alike([seen(made, weights, pixel, 0, 3 * i) for i, pixel in enumerate(PIXELS)])


@EVERY
def test_the_client_sees_nothing_of_the_weights_but_the_answer(protocol):
    made = plan(network(), protocol)

    assert_alike([seen(made, weights_of(*w), 5, 1, 3 * i) for i, w in enumerate(WEIGHTS)])


def test_a_view_of_other_answers_is_told_apart():
    made = plan(network(), "pqjax")
    first, other = weights_of(*WEIGHTS[0]), weights_of(*WEIGHTS[0])
    other["last/bias"] = np.array([4])

    views = [seen(made, w, 5, 1, 3 * i) for i, w in enumerate((first, other))]

    assert distance(*map(statistics, views)) > LIMIT


def packed_network():
    """Two channels that share coefficients in the convolution that reads them."""

    def of(x):
        return replace(x, shape=(SIDE, SIDE, 2))

    small = of(picture(4, 2, nonnegative=True))
    nodes = (
        Input("image", (), picture(4, 3)),
        conv("conv1", "image", of(picture(8, 5))),
        Relu("relu1", ("conv1",), of(picture(8, 5, nonnegative=True))),
        Requantize("low", ("relu1",), small),
        conv("conv2", "low", picture(8, 4)),
        Requantize("cut", ("conv2",), picture(4, 1)),
        conv("last", "cut", picture(8, 3)),
    )
    return Graph(nodes)


def packed_plan():
    graph = packed_network()
    step = next(step for step in plan(graph, "hequant").steps if step.node.name == "conv2")
    return plan(
        graph, "hequant", variants={"conv2": layouts(job_of(step.task), Packing.CROSS)[0][1]}
    )


def packed_weights(weight, offset):
    shapes = {"conv1": (1, 1, 1, 2), "conv2": (1, 1, 2, 1), "last": (1, 1, 1, 1)}
    made = {f"{name}/weight": np.full(shape, weight) for name, shape in shapes.items()}
    made["last/weight"][:] = 0
    biases = {f"{name}/bias": np.full(shape[-1:], offset) for name, shape in shapes.items()}
    return made | biases | {"last/bias": np.array([5])}


def test_neither_party_sees_anything_where_two_sums_share_a_coefficient():
    made, weights = packed_plan(), packed_weights(*WEIGHTS[0])
    assert {"extension", "wraps"} <= set(
        LINEAR.by_part(made.setting, made.step("conv2").task).online
    )

    assert_alike([seen(made, weights, pixel, 0, 3 * i) for i, pixel in enumerate(PIXELS)])
    assert_alike([seen(made, packed_weights(*w), 5, 1, 3 * i) for i, w in enumerate(WEIGHTS)])
