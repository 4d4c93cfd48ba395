"""A batch: as many answers in the flows of one, each the reference's, at the bits predicted."""

import dataclasses
import json

import numpy as np
import pytest
from networks import ENCRYPTED, EXACT, MERGED, mini_onn, random_network, resnet32, run_both
from pairs import left_over, stored
from serving import serving

import pqjax
from pqjax.cli import main
from pqjax.engine import memory
from pqjax.engine.memory import check_memory, least_bytes
from pqjax.errors import InputError, PlanError
from pqjax.graph import Graph, Input, Product, TensorType
from pqjax.linear import VARIANTS, ByOt, Job, LinearMap
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner import find_preset, plan, read_plan
from pqjax.planner.wishes import MOST_BATCH

RUNS = {**EXACT, "encrypted": ENCRYPTED, "merged": MERGED}


def inputs(graph, n, seed=0):
    first = graph.input.out
    return np.random.default_rng(seed).integers(first.low, first.high + 1, (n, *first.shape))


def assert_exact(graph, weights, made, n):
    """Every image's answer is the reference's, and both parties' books are the plan's."""
    x = inputs(graph, n)

    (_, trace0, party0), (y, trace1, party1) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []
    for party in (party0, party1):
        assert stored(party) == left_over(made, party)


@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("seed,n", [(0, 2), (1, 3)])
def test_every_image_of_a_batch_is_exact_and_costs_what_was_predicted(seed, n, run):
    graph, weights, _ = random_network(seed)

    assert_exact(graph, weights, plan(graph, RUNS[run], batch=n), n)


@pytest.mark.slow
@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("seed", range(2, 15))
@pytest.mark.parametrize("n", [2, 3])
def test_many_more_batches(seed, n, run):
    test_every_image_of_a_batch_is_exact_and_costs_what_was_predicted(seed, n, run)


@pytest.mark.slow
@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("n", [2, 3])
def test_batches_of_mini_onn(n, run):
    graph, weights, _ = mini_onn()

    assert_exact(graph, weights, plan(graph, RUNS[run], batch=n), n)


def attention():
    """(x x^T) x in two heads, of the input itself."""
    shape = (3, 1, 8)
    scores, out = TensorType((3, 1, 6), 10, 0), TensorType(shape, 16, 0)
    return Graph((
        Input("x", (), TensorType(shape, 4, 0)),
        Product("scores", ("x", "x"), scores, 2, True),
        Product("values", ("scores", "x"), out, 2),
    ))  # fmt: skip


@pytest.mark.parametrize("method", ["shared-ot", "shared-rlwe"])
def test_products_of_a_batch_multiply_every_image_with_itself(method):
    graph, preset = attention(), find_preset("pqjax")
    every = (*preset.products, *find_preset("privquant").products)
    ways = tuple(choice for choice in every if choice.method == method)

    made = plan(graph, dataclasses.replace(preset, products=ways), batch=3)

    assert {s.task.choice.method for s in made.steps if s.task.choice} == {method}
    assert_exact(graph, {}, made, 3)


@pytest.mark.parametrize("run", list(RUNS))
def test_a_batch_of_equal_choices_takes_the_flows_of_one_and_at_most_as_much_of_the_rest(run):
    graph = random_network(1)[0]
    preset = dataclasses.replace(RUNS[run], batch=1)
    one = plan(graph, preset)
    choices = {s.node.name: s.task.choice for s in one.steps if s.task.choice}
    made = plan(graph, preset, batch=4, variants=choices)
    many = {step.node.name: step.cost for step in made.steps}

    for step in one.steps:
        if step.node.multiplies:
            each = many[step.node.name]
            assert each.install.bits == step.cost.install.bits
            assert each.both.flows == step.cost.both.flows
            assert step.cost.bits <= each.bits <= 4 * step.cost.bits
            for more, few in zip(each.both.rots, step.cost.both.rots, strict=True):
                assert few <= more <= 4 * few
    assert made.secrets.count == 4 * one.secrets.count


@pytest.mark.parametrize("form", ["patches", "pixels"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_bits_of_weights_choose_once_for_all_images(variant, form):
    one = LinearMap((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 2, 3)
    many = dataclasses.replace(one, images=8)
    x = TensorType(one.in_shape, 16, 0)

    costs = [ByOt(variant, form).cost(SoftSpoken(4), Job(m, 3, x, 16)) for m in (one, many)]

    few, more = costs
    grown = 1 if VARIANTS[variant].chosen == "weights" else 8
    assert more.rots == tuple(grown * n for n in few.rots) and any(few.rots)
    assert few.bits < more.bits <= 8 * few.bits
    assert more.flows == few.flows


def test_a_session_takes_as_many_as_planned_and_says_how_many():
    graph, weights, _ = random_network(3)
    made, x = plan(graph, batch=2), inputs(graph, 3)

    with serving(plan=made, weights=weights) as (address, _):
        with pqjax.connect(address) as session:
            assert session.plan.batch == 2
            for bad in (x, x[:1], x[0]):
                with pytest.raises(InputError, match=r"the plan is for 2 inputs of shape \("):
                    session.infer(bad)
            results = [session.infer(x[:2]), session.infer(x[1:])]
            assert session.plan.differences(session.trace, 1) == []

    want = pqjax.reference(graph, weights, x)
    np.testing.assert_array_equal(results[0].output, want[:2])
    np.testing.assert_array_equal(results[1].output, want[1:])
    with pytest.raises(InputError, match=r"the plan is for one input of shape .* got \(2, "):
        pqjax.run_local(plan(graph), weights, x[:2])


@pytest.mark.slow
def test_a_batch_of_resnet32_over_tcp():
    graph, weights, _ = resnet32()
    made, x = plan(graph, batch=4), inputs(graph, 4)

    with serving(plan=made, weights=weights, deadline_s=120.0) as (address, ends):
        with pqjax.connect(address, deadline_s=120.0) as session:
            y = session.infer(x).output
            assert made.differences(session.trace, 1) == []
        assert made.differences(ends.get(timeout=30), 0) == []

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))


def test_the_document_says_of_how_many_and_is_checked():
    graph = random_network(0)[0]
    one, made = plan(graph), plan(graph, batch=3)

    assert b"batch" not in one.document and read_plan(one.document).batch == 1
    assert read_plan(made.document) == made and read_plan(made.document).batch == 3
    assert "total of 3 inputs" in made.table()
    for value in (0, -1, True, 1.0, "2", MOST_BATCH + 1, 2):
        tree = json.loads(made.document) | {"batch": value}
        with pytest.raises(PlanError):
            read_plan(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("batch", [0, True, 2.0, MOST_BATCH + 1])
def test_no_batch_that_is_none_or_too_large_is_planned(batch):
    with pytest.raises(PlanError, match=f"batch: 1 to {MOST_BATCH} expected"):
        plan(random_network(0)[0], batch=batch)


def test_a_batch_too_large_for_memory_or_for_any_tensor_says_so(monkeypatch):
    large = Graph((Input("x", (), TensorType((512, 512, 64), 4, 0)),))
    with pytest.raises(PlanError, match="of x have .*: plan for at most 2 inputs"):
        plan(large, batch=3)

    graph = random_network(0)[0]
    one, many = plan(graph, ENCRYPTED), plan(graph, ENCRYPTED, batch=64)
    between = (least_bytes(one) + least_bytes(many)) // 2
    monkeypatch.setattr(memory, "available_bytes", lambda: between)
    check_memory(one)
    with pytest.raises(PlanError, match="or a smaller batch"):
        check_memory(many)


def test_the_command_line_asks_batch_by_batch(tmp_path, capsys):
    graph, weights, _ = random_network(3)
    x = inputs(graph, 4)
    np.save(tmp_path / "four.npy", x)
    np.save(tmp_path / "one.npy", x[0])
    for n, name in ((4, "four"), (1, "one")):
        assert np.load(tmp_path / f"{name}.npy").size == n * x[0].size

    with serving(plan=plan(graph, batch=2), weights=weights) as (address, _):
        files = [str(tmp_path / f"{name}.npy") for name in ("four", "one")]
        common = ["--json", "--hints", str(tmp_path)]
        assert main(["infer", address, files[0], *common]) == 0
        told = capsys.readouterr()
        assert main(["infer", address, files[1], files[1], *common]) == 0
        twice = json.loads(capsys.readouterr().out)
        assert main(["infer", address, *files, *common]) == 1
        assert "answers 2 inputs at a time, got 5" in capsys.readouterr().err

    want = pqjax.reference(graph, weights, x)
    found = json.loads(told.out)
    np.testing.assert_array_equal(found["outputs"], want)
    assert len(found["seconds"]["each"]) == 2 and "2 inferences of 2 inputs" in told.err
    np.testing.assert_array_equal(twice["outputs"], want[[0, 0]])
