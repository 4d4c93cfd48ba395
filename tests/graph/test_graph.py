import contextlib
import dataclasses
import json
import zipfile
from typing import Any

import jax
import numpy as np
import pytest
from interpreter import every_value_slowly
from networks import random_network

from pqjax.errors import CheckpointError, GraphError, InputError, PlanError
from pqjax.graph import (
    Add,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Relu,
    Requantize,
    TensorType,
    every_value,
    load_model,
    reference,
    save_model,
    validate,
    width_for,
    wrap_rates,
)
from pqjax.linear.choice import Choice
from pqjax.planner import plan, read_plan
from pqjax.wire.link import Link


@pytest.mark.parametrize("seed", range(25))
def test_reference_equals_python_integers(seed):
    graph, weights, x = random_network(seed)

    y = reference(graph, weights, x)

    slowly = every_value_slowly(graph, weights, x)[graph.output.name]
    np.testing.assert_array_equal(y, slowly.astype(np.int64))
    np.testing.assert_array_equal(reference(graph, weights, np.stack([x, x])), np.stack([y, y]))
    np.testing.assert_array_equal(
        jax.jit(lambda x: reference(graph, weights, x))(x.astype(np.int32)), y
    )


@pytest.mark.parametrize("seed", range(8))
def test_graphs_and_models_survive_a_round_trip(seed, tmp_path):
    graph, weights, _ = random_network(seed)

    save_model(tmp_path / "net.npz", graph, weights, {"seed": seed})
    loaded, found, meta = load_model(tmp_path / "net.npz")

    assert loaded == graph == Graph.from_json(graph.to_json()) and meta == {"seed": seed}
    assert set(found) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value)


def test_damaged_files_are_refused(tmp_path):
    graph, weights, _ = random_network(0)
    path = tmp_path / "net.npz"
    save_model(path, graph, weights)
    whole = path.read_bytes()

    with pytest.raises(CheckpointError, match="no network"):
        load_model(tmp_path / "other.npz")
    for damaged in (whole[: len(whole) // 2], b"", b"hello", whole[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="net.npz"):
            load_model(path)
    for i in range(0, len(whole), len(whole) // 23):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        try:  # a flip in padding or dates is harmless; anything else must be noticed
            loaded, found, _ = load_model(path)
        except CheckpointError:
            continue
        assert loaded == graph
        assert all((found[name] == weights[name]).all() for name in weights)


def test_a_pickle_in_a_file_is_not_loaded(tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, format=np.array(1), graph=np.array([{"a": 1}], dtype=object))

    with pytest.raises(CheckpointError):
        load_model(path)
    assert zipfile.is_zipfile(path)


IMAGE = Input("image", (), TensorType((4, 4, 2), 4, 0))


def conv(bits=20, **fields):
    made = Conv(
        "c", ("image",), TensorType((4, 4, 3), bits, 1), (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 1
    )
    return dataclasses.replace(made, **fields)


def weights_for(node, fill=3):
    return {"c/weight": np.full((3, 3, 2, 3), fill), "c/bias": np.zeros(3, int)}


def relu(bits=20):
    return Relu("r", ("c",), TensorType((4, 4, 3), bits, 1, nonnegative=True))


@pytest.mark.parametrize(
    "nodes,weights,message",
    [
        ([conv(8)], weights_for(conv()), r"c \(Conv\).*takes 10 bits.*widen out.bits to 10"),
        ([conv(8, widths="worst")], None, r"c \(Conv\).*bits"),
        ([conv(out=TensorType((4, 4, 3), 20, 2))], None, "scale must be 0 \\+ 1"),
        ([conv(out=TensorType((3, 4, 3), 20, 1))], None, r"shape \(4, 4, 3\)"),
        ([conv(groups=2)], None, "groups do not divide"),
        ([conv(), relu(19)], None, "bits must agree, got 20 and 19"),
        ([conv(), Flatten("f", ("c",), TensorType((47,), 20, 1))], None, r"\(48,\)"),
        ([conv(), MaxPool("m", ("c",), TensorType((1, 1, 3), 20, 1), (5, 5), (1, 1))], None, "window"),
        ([conv(), Requantize("q", ("c",), TensorType((4, 4, 3), 4, -25))], None, "would be left"),
        ([conv(), Dense("d", ("c",), TensorType((2,), 30, 1), 2, 0)], None, "flatten first"),
        ([conv(10), Requantize("q", ("c",), TensorType((4, 4, 3), 4, -8))], weights_for(conv()),
         "rounding adds 256.*widen 'c' to 11"),
    ],
)  # fmt: skip
def test_validator_names_the_node_and_what_it_needs(nodes, weights, message):
    with pytest.raises(GraphError, match=message):
        validate(Graph((IMAGE, *nodes)), weights)


def test_malformed_graphs_are_refused():
    with pytest.raises(GraphError, match="starts with an Input"):
        Graph(())
    with pytest.raises(GraphError, match="cyclic"):
        Graph((IMAGE, dataclasses.replace(conv(), sources=("r",)), relu()))
    with pytest.raises(GraphError, match="unique"):
        Graph((IMAGE, conv(), conv()))
    with pytest.raises(GraphError, match="no node named 'x'"):
        Graph((IMAGE,))["x"]
    for text in (
        "",
        "[]",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 1, "nodes": [{"kind": "Input"}]}',
    ):
        with pytest.raises(GraphError):
            Graph.from_json(text)


UNKNOWN: Any = "round"


@pytest.mark.parametrize(
    "node,message",
    [
        (conv(stride=(0, 1)), r"c \(Conv\): stride"),
        (conv(kernel=(3,)), r"c \(Conv\): kernel"),
        (conv(padding=((1, 1), (-1, 1))), r"c \(Conv\): padding"),
        (conv(weight_bits=0), r"c \(Conv\): weight_bits in 1..64"),
        (conv(bits=65), r"c \(Conv\): out.bits in 1..64"),
        (AvgPool("a", ("image",), TensorType((2, 2, 2), 4, 0), (2, 2), (2, 2), 0), "multiplier"),
        (AvgPool("a", ("image",), TensorType((2, 2, 2), 4, 2), (2, 2), (2, 2)), "takes 6 bits"),
        (MaxPool("m", ("image",), TensorType((2, 2, 2), 4, 0), (2, 2), (0, 2)), r"m \(MaxPool\)"),
        (Requantize("q", ("image",), TensorType((4, 4, 2), 2, 0), UNKNOWN), "wrap or saturate"),
        (
            Requantize("q", ("image",), TensorType((4, 4, 2), 3, 0, nonnegative=True), "wrap"),
            "sign bit",
        ),
        (Add("s", ("image", "image"), TensorType((4, 4, 2), 4, 0)), "takes 5 bits"),
        (Relu("r", ("image",), TensorType((4, 4, 2), 4, 0, False, True)), "unsigned"),
    ],
)
def test_validator_refuses_fields_that_make_no_sense(node, message):
    with pytest.raises(GraphError, match=message):
        validate(Graph((IMAGE, node)))


def test_a_node_has_as_many_sources_as_its_kind_takes():
    for node in (
        conv(sources=()),
        conv(sources=("image", "image")),
        Add("s", ("image",), IMAGE.out),
    ):
        with pytest.raises(GraphError, match="sources expected"):
            Graph((IMAGE, node))


def test_weights_must_fit_the_graph():
    graph = Graph((IMAGE, conv()))
    good = weights_for(conv())
    for bad, message in (
        ({}, "missing"),
        ({**good, "d/weight": good["c/bias"]}, "not in it"),
        ({**good, "c/bias": np.zeros(4, int)}, "shape"),
        ({**good, "c/weight": good["c/weight"] * 1.0}, "float64"),
        ({**good, "c/weight": good["c/weight"] + 1}, "take 4 bits, the graph says 3"),
    ):
        with pytest.raises(GraphError, match=message):
            validate(graph, bad)


@pytest.mark.parametrize(
    "low,high,bits", [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-8, 7, 4), (-9, 0, 5)]
)
def test_width_for(low, high, bits):
    assert width_for(low, high) == bits


def test_wrap_rates_count_values_that_leave_the_range():
    quantized = Requantize("q", ("image",), TensorType((4, 4, 2), 3, 0), "wrap")
    graph = Graph((IMAGE, quantized))
    x = np.zeros((4, 4, 2), int)
    x[0, 0, 0], x[0, 0, 1] = 4, -5

    rates = wrap_rates(graph, every_value(graph, {}, x))

    assert rates == {"q": 2 / 32} and reference(graph, {}, x)[0, 0, 0] == -4


def test_inputs_are_checked():
    graph, weights, x = random_network(1)
    with pytest.raises(InputError, match="shape"):
        reference(graph, weights, x[0])
    with pytest.raises(InputError, match="integers expected"):
        reference(graph, weights, x / 2)


def test_plans_are_the_sum_of_their_lines_and_survive_the_wire():
    graph, _, _ = random_network(4)
    made = plan(graph, "privquant", Link(mbps=200, rtt_ms=13))

    again = read_plan(made.document)

    assert again.digest == made.digest and again.cost() == made.cost()
    assert made.cost().bits == sum(
        made.cost(phase).bits for phase in ("setup", "offline", "online")
    )
    assert plan(graph, "pqjax").digest != made.digest
    tree = json.loads(made.document)
    for choice in tree["choices"].values():
        choice["variant"] = "best"
    for document in (b"", b"{}", b"[1]", json.dumps(tree).encode()):
        with pytest.raises(PlanError):
            read_plan(document)


def test_unknown_names_in_plans_are_refused():
    graph, _, _ = random_network(4)
    linear = next(node.name for node in graph if isinstance(node, Conv))
    known = "cheetah, cryptflow2, hequant, pqjax"
    with pytest.raises(PlanError, match=f"unknown protocol 'x'; known: {known}"):
        plan(graph, "x")
    with pytest.raises(PlanError, match="no linear layer named 'zz'"):
        plan(graph, variants={"zz": "full-choose-w"})
    with pytest.raises(PlanError, match="unknown variant"):
        plan(graph, variants={linear: "best"})
    for field, value in (("method", "luck"), ("variant", 3), ("form", "cubes"), ("when", "later")):
        odd = dataclasses.replace(
            Choice("ot", "full-choose-w", "patches", "ahead"), **{field: value}
        )
        with pytest.raises(PlanError, match=f"{linear}: unknown {field} .*; known: "):
            plan(graph, variants={linear: odd})
    with pytest.raises(PlanError, match="does not go with"):
        plan(graph, variants={linear: "4-extend-x-choose-w"})
    forced = plan(graph, variants={linear: "full-choose-x"})
    assert next(s for s in forced.steps if s.node.name == linear).variant == "full-choose-x"
    assert read_plan(forced.document).digest == forced.digest


def test_a_convolution_has_to_meet_its_source_and_says_so_exactly_when_it_does_not():
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        kernel, stride, apart, side = (int(n) for n in rng.integers(1, 5, 4))
        before, after = (int(n) for n in rng.integers(0, 7, 2))
        outputs = (side + before + after - 1 - (kernel - 1) * apart) // stride + 1
        if outputs < 1:
            continue
        out = TensorType((outputs, 1, 1), 16, 0)
        margins = ((before, after), (0, 0))
        node = Conv("c", ("x",), out, (kernel, 1), (stride, 1), margins, 3, 0, dilation=(apart, 1))
        read = [o * stride + t * apart - before for o in range(outputs) for t in range(kernel)]
        meets = any(0 <= row < side for row in read)
        with contextlib.nullcontext() if meets else pytest.raises(GraphError, match="but padding"):
            validate(Graph((Input("x", (), TensorType((side, 1, 1), 4, 0)), node)))
        refused += not meets

    assert refused > 20
