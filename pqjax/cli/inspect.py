"""`pqjax inspect`: what is in a network file: layers, widths, ranges, products, bytes by layer."""

import argparse
import json
import typing

from pqjax.cli.options import MANY as INFERENCES
from pqjax.cli.options import Commands, command, json_option
from pqjax.graph import Graph, Linear, Weights, load_model, validate
from pqjax.planner import plan
from pqjax.planner.report import format_of
from pqjax.search.costs import owner, owners
from pqjax.wire.cost import total

PRESETS = ("pqjax", "pqjax-ot", "privquant")


def add(commands: Commands) -> None:
    """Adds the command."""
    text = "print what is in a network file: layers, widths, ranges, products, bytes by layer"
    made = command(
        commands, "inspect", _inspect, text,
        "inspect model.npz", "inspect model.npz --protocols pqjax cheetah", "inspect model.npz --json",
    )  # fmt: skip
    made.add_argument("model", help="network file (.npz)")
    presets = "whose bytes are shown"
    made.add_argument("--protocols", nargs="+", default=PRESETS, metavar="PRESET", help=presets)
    json_option(made)


def _inspect(args: argparse.Namespace) -> int:
    graph, weights, meta = load_model(args.model)
    layers, whole = inspected(graph, weights, args.protocols)
    told = {key: value for key, value in meta.items() if key != "classes"}
    told["classes"] = len(meta.get("classes", ()))
    if args.json:
        print(json.dumps({"description": told, "layers": layers, "bytes": whole}))
        return 0
    out = graph.input.out
    parameters = sum(layer["parameters"] for layer in layers)
    products = sum(layer["products"] for layer in layers)
    print(
        f"{args.model}: reads {'x'.join(map(str, out.shape))} {format_of(out)}, {len(layers)} layers, "
        f"{parameters:,} weights, {products:,} products\n"
    )
    print(_table(layers, whole))
    print(f"\nMB of an inference, of {INFERENCES} that a client asks for")
    for key, value in told.items():
        print(f"{key}: {json.dumps(value)}")
    return 0


def inspected(
    graph: Graph, weights: Weights, presets: typing.Sequence[str]
) -> tuple[list[dict[str, typing.Any]], dict[str, int]]:
    """A row for every linear layer, what follows it counted as its own; and all bytes by preset.

    Bytes are of an inference, with what falls to it of what a client gets once; in all there are a few
    more, of what precedes the first layer and of OTs in whole batches.
    """
    reached, belongs = validate(graph, weights), owners(graph)
    rows: dict[str, dict[str, typing.Any]] = {}
    order = list(graph)
    for node in order:
        if isinstance(node, Linear):
            source = graph.source(node)
            last = max((n for n in order if belongs[n.name] == node.name), key=order.index)
            rows[node.name] = {
                "layer": node.name,
                "kind": node.kind,
                "shape": list(node.out.shape),
                "weight_bits": node.weight_bits,
                "reads": format_of(source),
                "sum_bits": node.out.bits,
                "makes": format_of(last.out),
                "range": [int(each) for each in reached[last.name][:2]],
                "parameters": sum(
                    int(weights[key].size)
                    for key in graph.parameters()
                    if key.split("/")[0] == node.name
                ),
                "products": node.terms(source) * node.out.n,
                "bytes": {},
            }
    whole = {}
    for preset in presets:
        made = plan(graph, preset, inferences=INFERENCES)
        for name, row in rows.items():
            mine = [step for step in made.steps if owner(belongs, step.node.name) == name]
            cost = total(step.cost.both for step in mine)
            cost = cost + made.preset.source.share(cost.rots)
            once = sum(step.cost.install.bits for step in mine) / INFERENCES
            row["bytes"][preset] = round((cost.bits + once) / 8)
        later = sum(line.cost.bits for line in made.schedule(1))
        whole[preset] = round((later + made.cost("install").bits / INFERENCES) / 8)
    return list(rows.values()), whole


def _table(layers: list[dict[str, typing.Any]], whole: dict[str, int]) -> str:
    head = ["layer", "kind", "makes", "weights", "reads", "sums", "format", "range", "products"]
    rows = [[*head, *(f"{preset} MB" for preset in whole)]]
    for layer in layers:
        low, high = layer["range"]
        rows.append([
            layer["layer"], layer["kind"], "x".join(map(str, layer["shape"])), str(layer["weight_bits"]),
            layer["reads"], str(layer["sum_bits"]), layer["makes"], f"{low}..{high}",
            f"{layer['products']:,}", *(f"{layer['bytes'][p] / 1e6:.3f}" for p in whole),
        ])  # fmt: skip
    rows.append(["all", *[""] * (len(head) - 1), *(f"{n / 1e6:.3f}" for n in whole.values())])
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows
    )
