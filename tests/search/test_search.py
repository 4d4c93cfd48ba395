"""The search against brute force, and what it says where nothing fits."""

import dataclasses
import itertools
import pathlib

import numpy as np
import pytest
from networks import random_network, resnet32

from experiments.width_baselines import at, proxy_search, uniform_widths
from pqjax.errors import CheckpointError, GraphError, InputError, PlanError
from pqjax.graph import (
    Clamp,
    Concat,
    Conv,
    Dense,
    Graph,
    Input,
    Narrow,
    Node,
    Requantize,
    TensorType,
    Truncate,
    load_model,
    validate,
)
from pqjax.graph.sensitivity import Sensitivities, Sensitivity
from pqjax.graph.widths import Widths, operands, residuals, widths_of, with_widths
from pqjax.planner import PRESETS, plan
from pqjax.search import Limit, Space, loss_of, search
from pqjax.search.costs import Pricer, domains, tables
from pqjax.wire.link import Link

WIDE = Link(mbps=200, rtt_ms=13)
TINY = resnet32(4, blocks=1, stages=(4, 8))[0]
CHECKPOINTS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"


def drawn(graph, seed):
    """Sensitivities that fall with the width, otherwise random."""
    rng = np.random.default_rng(seed)

    def one():
        size = float(rng.lognormal(0, 2))
        omega = {b: size * 3.0**-b * float(rng.uniform(0.7, 1.3)) for b in range(1, 17)}
        return Sensitivity(size, 0.1 * size, 9, omega)

    names = (list(widths_of(graph).weights), operands(graph), residuals(graph))
    tables = [{name: one() for name in group} for group in names]
    return Sensitivities("drawn", *tables, settings={})


def every_plan(graph, found, protocol, space, limit):
    """(loss, exact cost, widths) of every assignment."""
    for like in space.kept(graph):
        fits = domains(graph, like, space.weights)
        for bits in itertools.product(*fits.values()):
            widths = dataclasses.replace(like, weights=dict(zip(fits, bits, strict=True)))
            made = plan(with_widths(graph, widths), protocol, limit.link)
            yield loss_of(graph, found, widths), limit.of(made), widths


def check_against_brute_force(graph, seed, protocol, space, kind):
    found = drawn(graph, seed)
    all_of_them = list(every_plan(graph, found, protocol, space, kind))
    costs = sorted(cost for _, cost, _ in all_of_them)
    for share in (0.05, 0.4, 0.8):
        limit = dataclasses.replace(kind, value=costs[int(share * len(costs))] * (1 + 1e-9))
        wanted = min(loss for loss, cost, _ in all_of_them if cost <= limit.value)

        best = search(graph, found, limit, protocol, space)

        assert best.loss == pytest.approx(wanted, rel=1e-9), (seed, protocol, share)
        assert best.cost <= limit.value
        assert best.cost == limit.of(plan(best.graph, protocol, limit.link))
        assert best.proven
    with pytest.raises(PlanError, match="smallest feasible limit is") as refused:
        search(graph, found, dataclasses.replace(kind, value=costs[0] * 0.99), protocol, space)
    assert f"smallest feasible limit is {kind.text(costs[0])}" in str(refused.value)


BITS, ONLINE, SECONDS = Limit(1), Limit(1, online=True), Limit(1, link=WIDE)


@pytest.mark.parametrize("protocol", ["privquant", "pqjax", "sirnn"])
@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(s, marks=pytest.mark.slow) for s in range(3, 12))]
)
def test_the_search_is_brute_force_on_random_networks(seed, protocol):
    graph = random_network(seed)[0]
    kind = (BITS, ONLINE, SECONDS)[seed % 3]

    check_against_brute_force(graph, seed, protocol, Space(weights=(2, 4, 7)), kind)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["privquant", "pqjax"])
def test_the_search_is_brute_force_over_activations_and_residuals_too(protocol):
    space = Space(weights=(3, 5), activations=(4, 6), residuals=(6, 8))

    check_against_brute_force(TINY, 3, protocol, space, BITS)


@pytest.mark.parametrize("protocol", sorted(PRESETS))
def test_tables_sum_to_plans_within_their_error(protocol):
    graph = load_model(CHECKPOINTS / "minionn_w4a4.npz")[0]
    pricer = Pricer(graph, widths_of(graph), protocol, BITS)
    fits = domains(graph, widths_of(graph), (2, 5, 8))

    made = tables(pricer, fits)

    rng = np.random.default_rng(0)
    for _ in range(5):
        weights = {layer: int(rng.choice(of)) for layer, of in fits.items()}
        assert abs(made.total(weights) - pricer.exact(weights)) <= made.error + 1e-6 * made.constant
    if protocol == "privquant":  # its truncations fuse with the next layer's extension
        assert made.pairs


def test_widths_as_they_are_change_nothing():
    for graph in [TINY, *(random_network(seed)[0] for seed in range(8))]:
        assert with_widths(graph, widths_of(graph)) == graph


def test_other_widths_are_found_again_and_can_be_planned():
    for residual, activations in ((8, 4), (10, 6), (6, 6)):
        bits = [3, 5, 2, 8, 6, 4, 7, 2, 3][: len(widths_of(TINY).weights)]
        widths = Widths(
            dict(zip(widths_of(TINY).weights, bits, strict=True)), activations, residual
        )

        try:
            graph = with_widths(TINY, widths)
        except GraphError as error:
            assert "finer than the accumulator's" in str(error)
            continue

        assert dataclasses.replace(widths_of(graph), activations=activations) == widths
        assert plan(graph).cost().bits > 0


def test_worst_case_accumulators_are_exact():
    graph = random_network(1)[0]
    first = next(node for node in graph if isinstance(node, Conv))
    source = graph.source(first)
    terms = first.kernel[0] * first.kernel[1] * source.shape[2]
    most = max(-source.low, source.high) * 2 ** (first.weight_bits - 1) * terms
    out = dataclasses.replace(first.out, bits=1 + most.bit_length())
    worst = dataclasses.replace(first, widths="worst", out=out)
    wide = Graph(tuple(worst if node is first else node for node in graph.nodes[:2]))

    for bits in (2, 5, 9):
        made = with_widths(wide, Widths({first.name: bits}))[first.name]
        largest = max(-source.low, source.high) * 2 ** (bits - 1) * terms
        assert made.out.bits == 1 + largest.bit_length()


def test_a_node_that_cannot_change_is_named():
    node = TINY.nodes[-2]
    low = Narrow("odd", (node.name,), node.out)
    graph = Graph((*TINY.nodes[:-1], low))

    with pytest.raises(GraphError, match="odd: Narrow cannot be given other widths"):
        with_widths(graph, widths_of(graph))


def capped(shift=4):
    """Convolutions whose results are clamped to [0, 6], as ReLU6 is, and shifted before."""
    shape, none = (3, 3, 2), ((0, 0), (0, 0))
    nodes: list[Node] = [Input("x", (), TensorType(shape, 6, 3))]
    for i in range(3):
        last = nodes[-1]
        acc = TensorType(shape, 15, last.out.scale + 3)
        conv = Conv(f"conv{i}", (last.name,), acc, (1, 1), (1, 1), none, 4, 3)
        out = dataclasses.replace(acc, scale=acc.scale - shift)
        nodes += [conv, Truncate(f"shift{i}", (conv.name,), out, shift)]
        short = TensorType(shape, 5, out.scale, signed=False)
        nodes.append(Clamp(f"act{i}", (f"shift{i}",), short, 0, min(6 << out.scale, 31)))
    wide = TensorType(shape, 9, nodes[-1].out.scale + 2)
    nodes.append(Conv("last", (nodes[-1].name,), wide, (1, 1), (1, 1), none, 3, 2))
    return Graph((*nodes, Clamp("end", ("last",), wide, wide.low, 3 << wide.scale)))


def test_a_clamp_keeps_its_real_limits_in_other_widths():
    graph = capped()
    here = widths_of(graph)
    assert (here.activations, operands(graph)) == (5, ("act0", "act1", "act2"))

    made = with_widths(graph, dataclasses.replace(here, activations=7))

    validate(made)
    assert dataclasses.replace(here, activations=7) == widths_of(made)
    for old, new in zip(graph, made, strict=True):
        if isinstance(old, Clamp):
            more = new.out.scale - old.out.scale
            assert isinstance(new, Clamp) and more == 2 and new.out.bits == old.out.bits + more
            ends = {graph[old.name].out.low: new.out.low, graph[old.name].out.high: new.out.high}
            assert new.low == ends.get(old.low, old.low << more)
            assert new.high == ends.get(old.high, old.high << more)
    finer = with_widths(graph, dataclasses.replace(here, weights={**here.weights, "conv1": 7}))
    validate(finer)
    before, after = graph["shift1"], finer["shift1"]
    assert isinstance(before, Truncate) and isinstance(after, Truncate)
    assert after.shift == before.shift + 3
    assert [finer[f"act{i}"] for i in range(3)] == [graph[f"act{i}"] for i in range(3)]
    with pytest.raises(GraphError, match="shift0.*would shift by 0"):
        with_widths(graph, dataclasses.replace(here, activations=9))


@pytest.mark.parametrize("protocol", ["privquant", "pqjax"])
def test_networks_with_clamps_are_searched(protocol):
    space = Space(weights=(2, 4), activations=(4, 6))

    check_against_brute_force(capped(), 1, protocol, space, BITS)


def test_what_is_read_from_a_concatenation_is_made_by_all_that_is_in_it():
    shape, both, none = (3, 3, 2), (3, 3, 4), ((0, 0), (0, 0))
    x, acc, act = TensorType(shape, 6, 3), TensorType(shape, 14, 6), TensorType(shape, 5, 2)
    conv = Conv("conv", ("x",), acc, (1, 1), (1, 1), none, 4, 3)
    graph = Graph(
        (
            Input("x", (), x), conv, Requantize("a", ("conv",), act), Requantize("b", ("x",), act),
            Concat("ab", ("a", "b"), dataclasses.replace(act, shape=both)),
            Conv("c", ("ab",), dataclasses.replace(acc, scale=5), (1, 1), (1, 1), none, 4, 3),
        )
    )  # fmt: skip
    here = widths_of(graph)
    assert operands(graph) == ("a", "b") and here.activations == 5

    made = with_widths(graph, dataclasses.replace(here, activations=8))

    assert {made[name].out.bits for name in ("a", "b", "ab")} == {8}
    assert validate(made) and widths_of(made).activations == 8


def test_sensitivities_of_another_network_are_refused():
    graph, other = random_network(1)[0], drawn(TINY, 0)

    with pytest.raises(PlanError, match="do not have .* of another network"):
        search(graph, other, Limit(1e12))
    with pytest.raises(PlanError, match="no sensitivity at 20 bits"):
        loss_of(graph, drawn(graph, 0), Widths(dict.fromkeys(widths_of(graph).weights, 20)))


def test_limits_and_spaces_that_make_no_sense_are_refused():
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError):
            Limit(value)
    with pytest.raises(InputError, match="without online"):
        Limit(1, online=True, link=WIDE)
    with pytest.raises(PlanError):
        Space(weights=())
    with pytest.raises(PlanError, match="at least as many bits"):
        search(TINY, drawn(TINY, 0), Limit(1e12), space=Space(activations=(9,), residuals=(8,)))
    with pytest.raises(CheckpointError):
        Sensitivity(float("nan"), 0.0, 1, {2: 1.0})


@pytest.mark.parametrize("protocol", ["privquant", pytest.param("pqjax", marks=pytest.mark.slow)])
def test_baselines_keep_to_the_limit_and_are_not_better(protocol):
    graph = load_model(CHECKPOINTS / "minionn_w4a4.npz")[0]
    found = drawn(graph, 5)
    limit = Limit(plan(graph, protocol).cost().bits)

    best = search(graph, found, limit, protocol)
    proxy = proxy_search(graph, found, limit, protocol)
    uniform = [
        at(graph, found, limit, protocol, uniform_widths(widths_of(graph), bits))
        for bits in Space().weights
    ]

    assert proxy.cost <= limit.value and len({each.cost <= limit.value for each in uniform}) == 2
    for other in (proxy, *(each for each in uniform if each.cost <= limit.value)):
        assert other.loss >= best.loss * (1 - 1e-9)
        assert other.loss == pytest.approx(loss_of(graph, found, other.widths))
    for bits, each in zip(Space().weights, uniform, strict=True):
        assert set(list(each.widths.weights.values())[1:-1]) == {bits}
    with pytest.raises(PlanError, match="smallest feasible limit"):
        proxy_search(graph, found, Limit(1e3), protocol)


def test_a_layer_keeps_its_name_and_kind():
    graph = random_network(2)[0]
    names = {n.name: type(n) for n in graph}

    made = with_widths(
        graph,
        dataclasses.replace(widths_of(graph), weights=dict.fromkeys(widths_of(graph).weights, 3)),
    )

    assert {n.name: type(n) for n in made} == names
    assert all(n.weight_bits == 3 for n in made if isinstance(n, (Conv, Dense)))
