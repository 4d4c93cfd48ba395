"""`pqjax verify` finds answers that are not the integer network's, and where they begin not to be."""

import json

import numpy as np
import pytest
from networks import random_network

from pqjax import plan, run_local
from pqjax.cli import main
from pqjax.cli.verify import first_difference, up_to
from pqjax.graph import Linear, reference, save_model


def test_private_answers_of_random_inputs_are_the_integer_networks(tmp_path, capsys):
    graph, weights, _ = random_network(1)
    save_model(tmp_path / "net.npz", graph, weights)

    assert main(["verify", str(tmp_path / "net.npz"), "--samples", "2"]) == 0

    told, said = capsys.readouterr()
    assert told.count("pqjax = reference") == 2 and "2 of 2 private answers equal" in said


def test_given_inputs_are_verified_as_json(tmp_path, capsys):
    graph, weights, x = random_network(2)
    save_model(tmp_path / "net.npz", graph, weights)
    np.save(tmp_path / "x.npy", x)

    asked = ["verify", str(tmp_path / "net.npz"), str(tmp_path / "x.npy"), "--json"]
    assert main([*asked, "--protocol", "privquant"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["protocol"] == "privquant"
    assert [row["differs"] for row in told["samples"]] == [0]


def test_the_first_layer_that_differs_is_found():
    graph, weights, x = random_network(1)
    layers = [node.name for node in graph if isinstance(node, Linear)]
    wrong = layers[1]
    key = f"{wrong}/bias"
    altered = {**weights, key: np.asarray(weights[key]) - 1}

    def private(part, kept, x):
        used = {name: altered[name] for name in kept}
        return np.asarray(reference(part, used, x[None]))[0]

    assert first_difference(graph, weights, x, private).name == wrong


def test_a_network_up_to_a_layer_makes_its_tensor_privately():
    graph, weights, x = random_network(1)
    layer = next(node for node in graph if isinstance(node, Linear))

    part, kept = up_to(graph, weights, layer.name)

    wanted = np.asarray(reference(part, kept, x[None]))[0]
    np.testing.assert_array_equal(run_local(plan(part), kept, x).output, wanted)
    assert part.output.name == layer.name and len(tuple(part)) < len(tuple(graph))


@pytest.mark.slow
def test_a_network_that_differs_ends_with_status_one(tmp_path, capsys, monkeypatch):
    made = map(random_network, range(20))
    graph, weights, _ = next(net for net in made if isinstance(net[0].output, Linear))
    save_model(tmp_path / "net.npz", graph, weights)
    layer = [node.name for node in graph if isinstance(node, Linear)][-1]
    off = {**weights, f"{layer}/bias": np.asarray(weights[f"{layer}/bias"]) - 1}

    def other(plan, kept, x):
        return run_local(plan, {name: off[name] for name in kept}, x)

    monkeypatch.setattr("pqjax.cli.verify.run_local", other)
    status = main(["verify", str(tmp_path / "net.npz"), "--samples", "1"])

    told = capsys.readouterr().out
    assert status == 1 and "is not reference" in told and f"from {layer} on" in told
