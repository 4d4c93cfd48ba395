"""What plans say about themselves: every layer, every variant, and why."""

import dataclasses
import pathlib

import pytest

import pqjax
from pqjax.cli import main
from pqjax.crypto.crhash import BOUND_BITS
from pqjax.errors import GraphError, PlanError
from pqjax.graph import Add, Conv, Dense, Graph, Input, Requantize, TensorType, load_model
from pqjax.layers.linear import LINEAR
from pqjax.ot import SOURCES
from pqjax.planner import PRESETS, read_plan
from pqjax.planner.presets import OTS
from pqjax.planner.price import fitting, priced, task_cost
from pqjax.planner.report import security

MODEL = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints" / "minionn_w2a4.npz"
GRAPH = load_model(MODEL)[0]


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_every_layer_is_explained(protocol):
    made = pqjax.plan(GRAPH, protocol)

    for node in GRAPH:
        text = made.explain(node.name)
        assert text.startswith(f"{node.name}: {node.kind}")
        if isinstance(node, (Conv, Dense)):
            fits = fitting(made.preset, made.step(node.name).task)
            assert fits and all(choice.variant in text for choice in fits)
            assert text.count("<- chosen") == 1
        else:
            assert "Runs as" in text or "no step of its own" in text


def test_a_batch_that_runs_in_tiles_says_in_how_many():
    one, many = pqjax.plan(GRAPH), pqjax.plan(GRAPH, batch=16)
    most = many.setting.tuning.tile_elements

    assert "tiles" not in one.explain("relu2")
    n = many.step("relu2").task.elements
    said = (
        f"relu2 runs in {-(-n // most)} tiles, one after the other: the plan allows {most} elements"
    )
    assert said in many.explain("relu2") and n > most


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_the_variant_chosen_is_the_cheapest_of_those_listed(protocol):
    made = pqjax.plan(GRAPH, protocol)
    for step in made.steps:
        if isinstance(step.node, (Conv, Dense)):
            tasks = [
                dataclasses.replace(step.task, choice=choice)
                for choice in fitting(made.preset, step.task)
            ]
            costs = [
                task_cost(made.setting, task)
                for task in tasks
                if LINEAR.secrets(task).within(made.secrets)  # others need more keys
            ]
            least = min(priced(cost, made.preset, None) for cost in costs)
            assert priced(step.cost, made.preset, None) == least


def test_a_forced_variant_says_so():
    made = pqjax.plan(GRAPH, "privquant", variants={"conv2": "1-extend-w-choose-x"})

    assert "asked for by the caller" in made.explain("conv2")
    assert "(4-extend-x-choose-w)" in made.table(variants=True)
    assert "1-extend-w-choose-x" in next(t for t in made.table().splitlines() if "conv2" in t)


def test_passes_say_what_they_saved():
    made = pqjax.plan(GRAPH, "privquant")

    text = made.explain("act1")

    assert "trunc-by-tr" in text and "MiB" in text and "Trunc(l, s) = Ext" in text
    for applied, following in zip(made.applied, made.applied[1:], strict=False):
        assert applied.after == following.before
        if applied.rewrite.site is not None:
            assert applied.after <= applied.before


def test_unknown_layers_are_refused_with_names_that_are_near():
    made = pqjax.plan(GRAPH)

    with pytest.raises(PlanError, match="no layer named 'conv22'; did you mean conv2"):
        made.explain("conv22")


@pytest.mark.parametrize("protocol", list(PRESETS))
def test_the_command_explains(protocol, capsys):
    assert main(["explain", str(MODEL), "conv2", "--protocol", protocol, "--link", "lan"]) == 0
    assert "<- chosen" in capsys.readouterr().out
    assert main(["plan", str(MODEL), "--protocol", protocol, "--variants"]) == 0
    said = capsys.readouterr().out
    bits = BOUND_BITS - (PRESETS[protocol].source is OTS["silent"])
    assert "conv7" in said and f"hashes {bits} bits" in said
    assert ("may be off by one" in said) is not PRESETS[protocol].exact


def test_a_correlation_with_a_public_bit_is_counted_without_it():
    said = security(SOURCES["silent-b11-b12"])

    assert "127 bits computational by AES and LPN with regular noise" in said
    assert f"hashes {BOUND_BITS - 1} bits" in said
    assert "128 bits computational by AES;" in security(SOURCES["softspoken4"])


@pytest.mark.parametrize("words", [["explain", str(MODEL), "relu99"],
                                   ["explain", str(MODEL), "conv1", "--protocol", "nope"]])  # fmt: skip
def test_the_command_refuses_unknown_names_in_one_line(words, capsys):
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("pqjax: ") and said.count("\n") == 1


def test_a_width_beyond_the_uniform_ring_names_its_node():
    nodes = list(GRAPH.nodes)
    wide = dataclasses.replace(nodes[1].out, bits=40)
    nodes[1] = dataclasses.replace(nodes[1], out=wide)
    nodes[2] = dataclasses.replace(nodes[2], out=dataclasses.replace(wide, nonnegative=True))

    with pytest.raises(GraphError, match="conv1.*40 bits.*37"):
        pqjax.plan(Graph(tuple(nodes)), "cryptflow2")


def test_additions_that_are_not_aligned_name_their_node():
    image = Input("x", (), TensorType((2,), 4, 1))
    other = Requantize("y", ("x",), TensorType((2,), 4, 0), rounding="floor")
    total = Add("sum", ("x", "y"), TensorType((2,), 5, 1))

    with pytest.raises(GraphError, match="sum.*scale must agree, got 1 and 0: requantize"):
        pqjax.plan(Graph((image, other, total)))


def test_a_preset_of_ones_own_is_planned_and_run():
    from networks import random_network

    graph, weights, x = random_network(3)
    mine = dataclasses.replace(PRESETS["privquant"], name="mine", passes=PRESETS["sirnn"].passes)

    result = pqjax.run_local(pqjax.plan(graph, mine), weights, x)

    assert (result.output == pqjax.reference(graph, weights, x)).all()
    again = read_plan(pqjax.plan(graph, mine).document)
    assert again.protocol == "mine" and again.schedule() == pqjax.plan(graph, mine).schedule()
