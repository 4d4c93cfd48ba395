"""`pqjax inspect` tells a network's layers, products and bytes."""

import json
import pathlib

import numpy as np
import pytest

from pqjax import load_model, plan
from pqjax.cli import main
from pqjax.cli.inspect import inspected
from pqjax.graph import Linear, every_value

FILE = pathlib.Path(__file__).parents[2] / "nets/checkpoints/minionn_w2a4.npz"


def test_rows_are_the_networks_layers_and_bytes_its_plans():
    graph, weights, _ = load_model(FILE)
    rows, whole = inspected(graph, weights, ("pqjax", "pqjax-ot"))

    assert [row["layer"] for row in rows] == [n.name for n in graph if isinstance(n, Linear)]
    for row in rows:
        node = graph[row["layer"]]
        shape = np.asarray(weights[f"{row['layer']}/weight"]).shape
        assert row["products"] == np.prod(shape[:-1]) * node.out.n
        assert row["parameters"] == np.prod(shape) + node.out.shape[-1]
    for preset in ("pqjax", "pqjax-ot"):
        made = plan(graph, preset, inferences=100)
        once = made.cost("install").bits
        later = sum(line.cost.bits for line in made.schedule(1))
        assert whole[preset] == pytest.approx((later + once / 100) / 8)
        assert 0.85 < sum(row["bytes"][preset] for row in rows) / whole[preset] < 1.01


def test_values_lie_in_the_ranges_told():
    graph, weights, _ = load_model(FILE)
    x = np.random.default_rng(0).integers(-128, 128, (1, *graph.input.out.shape))

    values = every_value(graph, weights, x)

    for row in inspected(graph, weights, ())[0]:
        low, high = row["range"]
        made = [np.asarray(values[n.name]) for n in graph if n.name == row["layer"]]
        assert made and low <= high
    low, high = row["range"]  # the last layer's own sums
    assert low <= made[0].min() and made[0].max() <= high


def test_the_table_and_the_description_are_printed(capsys):
    assert main(["inspect", str(FILE), "--protocols", "privquant"]) == 0
    told = capsys.readouterr().out
    assert "8 layers" in told and "privquant" in told and "top1: 0.8" in told

    assert main(["inspect", str(FILE), "--protocols", "pqjax", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert len(tree["layers"]) == 8 and tree["description"]["classes"] == 10
