"""Graphs and plan documents: every field has an exact type and bounds; whatever is wrong is named."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hostile import canonical, refused
from networks import random_network

from pqjax.errors import GraphError, InputError, PlanError
from pqjax.graph import (
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Dense,
    Graph,
    Input,
    Relu,
    ScaleUp,
    TensorType,
    save_model,
)
from pqjax.graph.strict_json import parse
from pqjax.planner import PRESETS, plan, read_plan

IMAGE = Input("x", (), TensorType((4, 4, 2), 4, 0))
ACC = TensorType((4, 4, 2), 20, 1)
CONV = Conv("c", ("x",), ACC, (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 1)


DOCUMENT = plan(random_network(0)[0], "cryptflow2").document
TREE = json.loads(DOCUMENT)
AS_IT_IS = dataclasses.replace(PRESETS["privquant"], passes=())
CHOICE = next(iter(TREE["choices"].values()))


def with_field(node, path, value):
    """A plan document of one node after the image, with one field of it made something else."""
    graph = Graph((IMAGE, node))
    tree = json.loads(plan(graph, AS_IT_IS).document)
    here = tree["graph"]["nodes"][1]
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return canonical(tree)


UP = ScaleUp("u", ("x",), dataclasses.replace(IMAGE.out, bits=6, scale=2), 2)
CLAMP = Clamp("k", ("x",), dataclasses.replace(IMAGE.out, bits=3), -3, 3)
POOL = AvgPool("p", ("x",), IMAGE.out, (1, 1), (1, 1))
GROUPED = dataclasses.replace(CONV, groups=2)
APART = dataclasses.replace(CONV, dilation=(2, 2), padding=((2, 2), (2, 2)))
BOTH = Concat("b", ("x", "x"), dataclasses.replace(IMAGE.out, shape=(4, 4, 4)))
FIELDS = [
    (UP, ["shift"], 10**9, r"u \(ScaleUp\): shift in 1..63|'u' \(ScaleUp\): shift in 1..63"),
    (GROUPED, ["kernel"], [4001, 4001], r"kernel\[0\] in 1..256"),
    (GROUPED, ["kernel"], [200, 200], "kernel of product at most 4096"),
    (GROUPED, ["groups"], 0, "groups in 1.."),
    (CONV, ["out", "shape"], [2**60], "out.shape"),
    (CONV, ["out", "shape"], [2**22, 2**22, 2**22], "out.shape of product"),
    (CONV, ["out", "shape"], [], "out.shape of length 1..3"),
    (CONV, ["out", "shape"], [1] * 4, "out.shape of length 1..3"),
    (CONV, ["stride"], [float("inf"), 1], "finite numbers expected, got Infinity"),
    (CONV, ["stride"], [1.0, 1], r"stride\[0\] an integer expected, got 1.0"),
    (CONV, ["stride"], [[1], 1], r"stride\[0\] an integer expected, got \[1\]"),
    (CONV, ["stride"], 1, "stride a list"),
    (CONV, ["stride"], [1, 1, 1], "stride 2 entries"),
    (CONV, ["padding"], [[1, 1], [1, 10**9]], r"padding\[1\]\[1\] in 0..4096"),
    (APART, ["dilation"], [0, 1], r"dilation\[0\] in 1..4096"),
    (APART, ["dilation"], [1, 4097], r"dilation\[1\] in 1..4096"),
    (APART, ["dilation"], 2, "dilation a list"),
    (APART, ["dilation"], [4096, 4096], r"of shape \(-8184, -8184, 2\)"),
    (CONV, ["dilation"], None, "dilation a list"),
    (CONV, ["dilation"], [1, 1], "not written as this version writes it"),  # it is not written so
    (BOTH, ["sources"], ["x"], r"b \(Concat\): 2 to 64 sources expected, got 1"),
    (BOTH, ["sources"], ["x"] * 65, "2 to 64 sources expected, got 65"),
    (BOTH, ["sources"], ["x"] * 3, r"makes a tensor of shape \(4, 4, 6\), but declares \(4, 4, 4\)"),
    (CONV, ["weight_bits"], True, "weight_bits an integer expected, got True"),
    (CONV, ["weight_bits"], 65, "weight_bits in 1..64"),
    (CONV, ["square_bits"], -1, "square_bits in 0..160 or null expected, got -1"),
    (CONV, ["square_bits"], 161, "square_bits in 0..160"),
    (CONV, ["square_bits"], "8", "square_bits"),
    (CONV, ["square_bits"], None, "not written as this version writes it"),
    (CONV, ["weight_scale"], 10**6, "weight_scale in -256..256"),
    (CONV, ["widths"], "best", "widths worst or weights or empirical expected, got 'best'"),
    (CONV, ["widths"], None, "widths worst or"),
    (CONV, ["out", "bits"], 1.5, "out.bits an integer expected, got 1.5"),
    (CONV, ["out", "bits"], [8], "out.bits an integer"),
    (CONV, ["out", "signed"], 1, "out.signed true or false expected, got 1"),
    (CONV, ["out", "scale"], 10**9, "out.scale in -256..256"),
    (CONV, ["out"], None, r"out an object \(TensorType\)"),
    (CONV, ["more"], 1, "no field but"),
    (CONV, ["out", "more"], 1, "out no field but shape, bits"),
    (CONV, ["kind"], "Relu", "no field but name, sources, out expected"),
    (CONV, ["kind"], ["Conv"], "a node with its kind"),
    (CONV, ["kind"], "Node", "unknown node kind 'Node'"),
    (CONV, ["name"], "\x1b[2J", "name of printable characters expected, got"),
    (CONV, ["name"], "", "name of length"),
    (CONV, ["name"], "n" * 257, "name of length 1..256"),
    (CONV, ["sources"], ["y"], "is not an earlier node"),
    (CONV, ["sources"], "x", "sources a list"),
    (POOL, ["multiplier"], 10**18, "multiplier in 1.."),
    (POOL, ["window"], [256, 257], r"window\[1\] in 1..256"),
    (CLAMP, ["high"], 2**63, "high in"),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", FIELDS, ids=[f"{c[0].kind}-{c[1]}-{i}" for i, c in enumerate(FIELDS)]
)
def test_a_field_out_of_bounds_is_one_plan_error_that_names_it(case):
    node, path, value, message = case

    with pytest.raises(PlanError, match=message):
        read_plan(with_field(node, path, value), deadline_s=20)


@pytest.mark.parametrize(
    "node", [UP, CLAMP, CONV, GROUPED, APART, BOTH, POOL], ids=lambda node: node.name
)
def test_the_documents_of_these_cases_are_well_formed_but_for_that_field(node):
    text = with_field(node, ["name"], node.name)

    assert Graph.from_tree(json.loads(text)["graph"]) == Graph((IMAGE, node))


@pytest.mark.parametrize("change", [
    {"kernel": (4001, 4001)}, {"kernel": [3, 3]}, {"stride": (1.0, 1)}, {"groups": True}, {"groups": 0},
    {"weight_bits": np.int64(3)}, {"padding": ((0, 0), (0, -1))}, {"widths": ["best"]}, {"name": "\x07"},
    {"name": 7}, {"sources": ["x"]}, {"out": None}, {"out": dataclasses.replace(ACC, shape=(2**40,))},
    {"out": dataclasses.replace(ACC, shape=())}, {"out": dataclasses.replace(ACC, bits=10**5000)},
    {"out": dataclasses.replace(ACC, bits=[10**5000])}, {"out": dataclasses.replace(ACC, nonnegative=0)},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_graphs_built_in_python_are_held_to_the_same_bounds(change):
    with pytest.raises(GraphError, match="expected, got") as raised:
        Graph((IMAGE, dataclasses.replace(CONV, **change)))

    assert str(raised.value).isprintable() and len(str(raised.value)) < 300


def test_the_number_of_elements_is_exact_for_any_shape():
    assert TensorType((2**40, 2**40, 3), 8, 0).n == 3 * 2**80
    assert TensorType((), 8, 0).n == 1


def chain(n, make, first=IMAGE):
    """A graph of n nodes, each made of the name and format before it."""
    nodes = [first]
    for i in range(1, n):
        nodes.append(make(f"n{i}", nodes[-1].name, nodes[-1].out))
    return Graph(tuple(nodes))


LONG = Input("x", (), TensorType((2**22,), 4, 0))
BROAD = Dense("d", ("x",), TensorType((2**14,), 40, 0), 3, 0)
RELU = lambda name, x, out: Relu(name, (x,), out)
WHOLE = {
    "at most 4096 nodes, got 4097": chain(4097, RELU),
    "64 nodes that read x, got 69": chain(70, lambda name, x, out: Relu(name, ("x",), out)),
    "at most 268435456 elements": chain(70, RELU, LONG),
    "at most 268435456 weights": Graph(
        (dataclasses.replace(LONG, out=TensorType((2**15,), 4, 0)), BROAD)
    ),
    "at most 128 characters": Graph((IMAGE, dataclasses.replace(CONV, name="n" * 129))),
}


@pytest.mark.parametrize("message", list(WHOLE))
def test_a_network_is_bounded_as_a_whole_wherever_it_comes_from(message, tmp_path):
    graph = WHOLE[message]

    with pytest.raises(GraphError, match=message):
        plan(graph)
    with pytest.raises(GraphError, match=message):
        save_model(tmp_path / "net.npz", graph, {})
    with pytest.raises(GraphError, match=message):
        Graph.from_json(graph.to_json())


@pytest.mark.parametrize(
    "change,message",
    [
        ({"link": {"mbps": True, "rtt_ms": 1}}, "link.mbps a.* expected, got True"),
        ({"link": {"mbps": "1", "rtt_ms": 1}}, "link.mbps"),
        ({"link": {"mbps": 0, "rtt_ms": 1}}, "above 0"),
        ({"link": {"mbps": 5e-324, "rtt_ms": 1}}, "Mbit/s"),
        ({"link": {"mbps": 10**30, "rtt_ms": 1}}, "Mbit/s"),
        ({"link": {"mbps": 1, "rtt_ms": 1e300}}, "round trip"),
        ({"link": {"mbps": 1}}, "link a field 'rtt_ms'"),
        ({"link": [1, 2]}, "link"),
        ({"choices": []}, "choices an object"),
        ({"choices": {"x": 1}}, r"choices\['x'\] an object"),
        ({"choices": {"\x1b": CHOICE}}, "printable"),
        ({"choices": {"q" * 200: CHOICE}}, "a choice for every linear layer"),
        (
            {"choices": {"x": {**CHOICE, "when": "later"}}},
            "unknown when 'later'; this is pqjax .*, which knows ahead, shared",
        ),
        (
            {"choices": {"x": {**CHOICE, "form": "cubes"}}},
            "unknown form 'cubes'.* plan is of pqjax",
        ),
        (
            {"choices": {"x": {**CHOICE, "variant": "best"}}},
            "unknown variant 'best'.*full-choose-w",
        ),
        (
            {"choices": {"x": {**CHOICE, "method": "luck"}}, "version": "9.1"},
            "'luck'.*of pqjax '9.1'",
        ),
        ({"choices": {"x": {**CHOICE, "variant": ["best"]}}}, "unknown variant"),
        ({"ranges": {"x": [0]}}, r"ranges\['x'\] 2 entries"),
        ({"ranges": {"x": [0, 1]}}, "no other ranges"),
        ({"masked_input": 1}, "masked_input true or false"),
        (
            {"cost": {"bits": [1, 1], "flows": 1}},
            r"says it sends \[1, 1\] bits in 1 flows, by this",
        ),
        ({"tuning": {**TREE["tuning"], "tile_elements": 0}}, "tuning.tile_elements"),
        ({"tuning": {**TREE["tuning"], "chunk_ots": 1 << 40}}, "tuning.chunk_ots"),
        ({"tuning": {**TREE["tuning"], "stream_above": (1 << 25) + 1}}, "tuning.stream_above"),
        ({"forms": {"known_wrap": "hope", "relu_chosen": False}}, "forms.known_wrap"),
        ({"source": ""}, "source of length"),
        ({"source": ["iknp+kkot"]}, "source a text"),
        ({"classes": "abcde"}, "classes a list"),
        ({"classes": ["\x1b]0;", "b", "c", "d", "e"]}, r"classes\[0\] of printable"),
        ({"classes": ["a", "", "c", "d", "e"]}, r"classes\[1\] of length"),
        ({"classes": ["a"] * (1 << 16)}, "classes of length"),
        ({"protocol": ["pqjax"]}, "protocol a text"),
        ({"protocol": "p\n"}, "protocol of printable"),
        ({"format": 3.0}, "format 6 expected, got 3.0"),
        ({"format": True}, "format 6 expected, got True"),
        ({"graph": 1}, "an object"),
        ({"more": 1}, "no field but"),
    ],
)
def test_the_fields_of_a_plan_have_exact_types_and_bounds(change, message):
    tree = {**json.loads(DOCUMENT), **change}

    with pytest.raises(PlanError, match=message):
        read_plan(canonical(tree))


def test_class_names_that_could_steer_a_terminal_are_refused_by_whoever_gives_them():
    graph = random_network(4)[0]

    bad: Any
    for bad in (["a", "b\n", "c", "d", "e"], ["a", "", "c", "d", "e"], [1, 2, 3, 4, 5], {"a": 1}):
        with pytest.raises(PlanError, match="class names are a list of strings"):
            plan(graph, classes=bad)
    assert plan(graph, classes=["Hütte, tench", "日本", "c", "d", "e"]).classes[1] == "日本"


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 33 + b"]" * 33, b"[" * 4_000_000, b'{"a":' * 1_000_000, b'{"a":1,"a":1}', b"NaN",
        b"[1e999]", b"1" * 5000, b"-Infinity", b'"' + b'\\"' * 1_000_000, b'"\xff"', b"", b"{", b"'a'",
        b"[1,]", b"0" * 100, b'{"a":1}' + b" " * (1 << 22), b'"[[[[', b'["]', b"\xef\xbb\xbf[]",
        "[]".encode("utf-16"),
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_text_that_is_not_json_of_bounded_size_is_refused(text):
    with pytest.raises(InputError):
        parse(text, 1 << 22)
    assert refused(text) is not None


def test_json_is_read_as_json_reads_it():
    tree = {"a": [1, -2, 1.5, True, None, '"[{\\'], 'b\\"': {"c": "é\u2028"}, "d": [[[[[[]]]]]] * 3}

    assert parse(json.dumps(tree), 1000) == tree
    assert parse(json.dumps(tree, ensure_ascii=False).encode(), 1000) == tree
