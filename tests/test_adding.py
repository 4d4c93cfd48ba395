"""docs/adding.md is true: a toy method, a toy source and a toy node, each by what is listed there."""

import dataclasses
import importlib
import typing
from unittest import mock

import numpy as np
import pytest
from networks import random_network

import pqjax
from pqjax.errors import PlanError
from pqjax.graph import Graph, reference
from pqjax.graph.ir import KINDS, Input, Node, Requantize, TensorType
from pqjax.layers.rule import Local
from pqjax.layers.table import RULES
from pqjax.linear.choice import Choice
from pqjax.linear.job import Encoded
from pqjax.linear.method import METHODS
from pqjax.ot import SOURCES
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner import find_preset, read_plan
from pqjax.ring import Ring, conv
from pqjax.wire.cost import message


@dataclasses.dataclass(frozen=True)
class InTheClear:
    """A toy of a method: rank 1 sends c, masked by nothing. What it computes is right."""

    variant: str
    form: str = "pixels"
    name = "in-the-clear"
    variants = ("full",)

    def extended(self, job):
        return job.bits

    def fits(self, job, plain):
        return None

    def cost(self, source, job):
        return message(1, job.map.pixels * job.bits)

    def encode(self, job, weights):
        return Encoded(np.array(weights).reshape(job.map.weight_shape))

    def serve(self, party, job, encoded):
        m, ring = job.map, Ring(job.bits)
        c = party.messenger.receive_elements(m.pixels, ring).reshape(m.in_shape)
        y = conv(
            c[None], ring.reduce(encoded.weights), ring, m.stride, m.padding, m.groups, m.dilation
        )
        return np.asarray(y)[0]

    def ask(self, party, job, c):
        ring = Ring(job.bits)
        party.messenger.send_elements(c, ring)
        return np.zeros(job.map.out_shape, ring.dtype)


@pytest.mark.parametrize("when", ["ahead", "shared"])
def test_a_method_is_a_class_and_a_line_in_the_table(when):
    graph, weights, x = random_network(3)
    toy = (Choice("in-the-clear", "full", "pixels", when),)
    preset = dataclasses.replace(find_preset("pqjax"), choices=toy, otherwise=())

    with mock.patch.dict(METHODS, {"in-the-clear": InTheClear}):
        made = pqjax.plan(graph, preset)
        result = pqjax.run_local(made, weights, x)

        np.testing.assert_array_equal(result.output, reference(graph, weights, x))
        assert made.differences(result.trace, 1) == []
        assert {s.task.choice for s in made.steps if s.task.choice} == {*toy}
        assert read_plan(made.document).schedule() == made.schedule()
    with pytest.raises(PlanError, match="unknown method 'in-the-clear'.* the plan is of pqjax"):
        read_plan(made.document)


@dataclasses.dataclass(frozen=True)
class Twice(SoftSpoken):
    """A toy of a source: SoftSpoken under another name."""

    @property
    def name(self):
        return "twice"


def test_a_source_is_a_class_and_a_line_in_the_table():
    graph, weights, x = random_network(3)
    made = pqjax.plan(graph, dataclasses.replace(find_preset("pqjax"), source=Twice(4)))

    with mock.patch.dict(SOURCES, {"twice": Twice(4)}):
        again = read_plan(made.document)
        result = pqjax.run_local(again, weights, x)
    np.testing.assert_array_equal(result.output, reference(graph, weights, x))
    assert made.differences(result.trace, 1) == []
    with pytest.raises(PlanError, match="unknown source of OTs 'twice'.*version"):
        read_plan(made.document)


@dataclasses.dataclass(frozen=True)
class Negate(Node):
    """A toy of a node: 0 - x, in its source's ring."""

    same: typing.ClassVar[tuple[str, ...]] = ("bits", "scale", "signed")
    hands_on: typing.ClassVar[bool] = True

    def reach(self, *x):
        return -x[0].high, -x[0].low


def negated(node, x):
    return Ring(node.out.bits).neg(x)


def test_a_node_kind_is_a_class_with_its_facts_a_line_in_each_table_and_a_branch_in_the_reference():
    out = TensorType((2, 3, 2), 6, 1)
    image = Input("x", (), dataclasses.replace(out, bits=5))
    wide = Requantize("w", ("x",), out)
    graph = Graph((image, wide, Negate("n", ("w",), out), Requantize("y", ("n",), image.out)))
    x = np.random.default_rng(0).integers(-16, 16, out.shape)
    page = importlib.import_module("pqjax.graph.reference")
    step = page._step

    def with_negate(graph, node, values, weights):
        if isinstance(node, Negate):
            return -values[node.sources[0]]
        return step(graph, node, values, weights)

    with (
        mock.patch.dict(KINDS, {"Negate": Negate}),
        mock.patch.dict(RULES, {Negate: Local(negated)}),
        mock.patch.object(page, "_step", with_negate),
    ):
        for protocol in ("pqjax", "privquant", "sirnn", "cryptflow2"):
            made = pqjax.plan(graph, protocol)
            again = read_plan(made.document)
            result = pqjax.run_local(again, {}, x)
            np.testing.assert_array_equal(result.output, np.clip(-x, -16, 15))
            assert made.differences(result.trace, 1) == []
    with pytest.raises(PlanError, match="unknown node kind 'Negate'"):
        read_plan(made.document)


def test_every_node_kind_has_a_rule():
    assert set(RULES) == set(KINDS.values())
