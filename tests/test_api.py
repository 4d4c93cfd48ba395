"""The names that users meet and that they do what they promise."""

import inspect

import numpy as np
from networks import random_network

import pqjax
from pqjax import errors


def test_every_public_name_is_there_and_described():
    for name in pqjax.__all__:
        assert inspect.getdoc(getattr(pqjax, name)), name
    promised = {"Graph", "reference", "plan", "Link", "run_local", "serve", "connect"}
    assert promised <= set(pqjax.__all__)


def test_every_error_is_a_pqjax_error_and_says_what_it_means():
    found = [e for e in vars(errors).values() if inspect.isclass(e)]

    assert len(found) > 8
    for error in found:
        assert issubclass(error, pqjax.PqjaxError) and error.__doc__


def test_the_documented_steps_work_from_a_graph_to_an_answer(tmp_path):
    graph, weights, x = random_network(7)
    pqjax.save_model(tmp_path / "net.npz", graph, weights)
    graph, weights, _ = pqjax.load_model(tmp_path / "net.npz")

    plan = pqjax.plan(graph, protocol="pqjax", link=pqjax.Link(mbps=200, rtt_ms=13))
    result = pqjax.run_local(plan, weights, x)

    np.testing.assert_array_equal(result.output, pqjax.reference(graph, weights, x))
    assert result.trace.bits()[0] > 0 and "total" in plan.table()


def test_a_result_is_integers_of_the_networks_output():
    graph, weights, x = random_network(2)

    y = pqjax.run_local(pqjax.plan(graph), weights, x).output

    assert y.dtype.kind == "i" and y.shape == graph.output.out.shape
