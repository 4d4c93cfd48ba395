"""The committed MiniONN: what it must cost, and the README's example, word for word."""

import pathlib
import re

import numpy as np
import pytest
from networks import run_both

import pqjax
from pqjax.graph import Relu, load_model

ROOT = pathlib.Path(__file__).parents[2]
CHECKPOINTS = ROOT / "nets" / "checkpoints"


def gibibytes(name, protocol):
    graph, _, _ = load_model(CHECKPOINTS / f"{name}.npz")
    return pqjax.plan(graph, protocol).cost().bits / 8 / 2**30


def test_privquant_reproduces_the_published_traffic():
    assert gibibytes("minionn_w2a4", "privquant") == pytest.approx(0.42, rel=0.05)


def test_pqjax_needs_at_most_a_quarter_gibibyte():
    assert gibibytes("minionn_w2a4", "pqjax") <= 0.25


def test_plan_table_names_every_layer():
    graph, _, _ = load_model(CHECKPOINTS / "minionn_w4a4.npz")

    text = pqjax.plan(graph, link=pqjax.Link(mbps=200, rtt_ms=13)).table()

    # A ReLU whose clamp does its work is gone.
    kept = [node for node in graph if not isinstance(node, Relu)]
    assert all(node.name in text for node in kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minionn_w2a4", "minionn_w4a4"])
@pytest.mark.parametrize("protocol", ["pqjax", "privquant"])
def test_committed_networks_run_exactly_and_as_predicted(name, protocol):
    graph, weights, _ = load_model(CHECKPOINTS / f"{name}.npz")
    made = pqjax.plan(graph, protocol)
    x = np.random.default_rng(0).integers(-128, 128, (32, 32, 3))

    (_, trace0, _), (y, trace1, _) = run_both(made, weights, x)

    np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))
    assert made.differences(trace0, 0) == [] and made.differences(trace1, 1) == []


@pytest.mark.slow
def test_the_example_of_the_readme_runs(monkeypatch):
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None
    code = found[1]
    monkeypatch.chdir(ROOT)

    exec(code, {})

    assert len(code.strip().splitlines()) <= 15
