"""`pqjax verify`: private answers beside the integer network's, and beside the float network's."""

import argparse
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np
from jaxtyping import Int

from pqjax.answers import likeliest
from pqjax.cli.classes import in_words
from pqjax.cli.console import Bar, say
from pqjax.cli.options import Commands, command, json_option, positive
from pqjax.engine import run_local
from pqjax.engine.process import settle
from pqjax.errors import DataError
from pqjax.graph import Graph, Weights, load_model, reference
from pqjax.graph.ir import Node
from pqjax.planner import plan
from pqjax.questions import fitted, read_question

SOURCES = (
    "pqjax.sources"  # entry points: (path, integers, description) -> a float network's outputs
)

Answer = Callable[[Graph, Weights, Int[np.ndarray, "*shape"]], Int[np.ndarray, "*shape"]]


def add(commands: Commands) -> None:
    """Adds the command."""
    text = "compare private answers with the integer network's, and with the float one's"
    made = command(
        commands, "verify", _verify, text,
        "verify model.npz --samples 5", "verify model.npz cat.png --source model.onnx",
    )  # fmt: skip
    made.add_argument("model", help="network file (.npz)")
    asked = "pictures, or .npy files of integers; without them --samples inputs of noise"
    made.add_argument("input", nargs="*", help=asked)
    samples = "inputs at most"
    made.add_argument("--samples", type=positive(int), default=5, metavar="N", help=samples)
    made.add_argument("--protocol", default="pqjax", metavar="PRESET", help="by which preset")
    source = "what the network was imported from: its float answers are shown beside"
    made.add_argument("--source", metavar="FILE", help=source)
    json_option(made)


def _verify(args: argparse.Namespace) -> int:
    settle()
    graph, weights, meta = load_model(args.model)
    inputs = _inputs(graph, args, meta.get("shorter"))
    floats = None if args.source is None else _floats(args.source, inputs, meta)
    private = _by(args.protocol)
    names, found, bar = meta.get("classes", ()), [], Bar()
    for at, x in enumerate(inputs):
        bar("verifying", at, len(inputs))
        wanted, got = np.asarray(reference(graph, weights, x[None]))[0], private(graph, weights, x)
        row = {"sample": at, "answer": likeliest(graph, got, names, 1)}
        row["differs"] = int((wanted != got).sum())
        if row["differs"]:
            row["first"] = first_difference(graph, weights, x, private).name
        if floats is not None:
            row["float"] = likeliest(graph, floats[at], names, 1)
            row["noise"] = _noise(wanted * 2.0**-graph.output.out.scale, floats[at])
        found.append(row)
        if not args.json:
            print(_line(row, args.protocol), flush=True)
    bar("verifying", len(inputs), len(inputs))
    same = sum(not row["differs"] for row in found)
    if args.json:
        print(json.dumps({"protocol": args.protocol, "samples": found}))
    say(f"pqjax: {same} of {len(found)} private answers equal the integer network's, bit for bit")
    return 0 if same == len(found) else 1


def _by(protocol: str) -> Answer:
    """Two parties in this process."""

    def private(graph: Graph, weights: Weights, x: Int[np.ndarray, "*shape"]) -> np.ndarray:
        return np.asarray(run_local(plan(graph, protocol), weights, x).output)

    return private


def first_difference(
    graph: Graph, weights: Weights, x: Int[np.ndarray, "*shape"], private: Answer
) -> Node:
    """A node whose private value is not the integer network's, though those that it reads are.

    Of an input on which the answers differ. Every trial runs the network up to a node, and no further:
    first by halves, then, as a difference may pass by some nodes on another branch, source by source.
    """

    def right(name: str) -> bool:
        if name == graph.input.name:
            return True  # the client's own
        part, kept = up_to(graph, weights, name)
        wanted = np.asarray(reference(part, kept, x[None]))[0]
        return bool((wanted == private(part, kept, x)).all())

    nodes, same = tuple(graph), 0
    differs = len(nodes) - 1
    while differs - same > 1:
        middle = (same + differs) // 2
        same, differs = (middle, differs) if right(nodes[middle].name) else (same, middle)
    found = nodes[differs]
    while wrong := [name for name in found.sources if not right(name)]:
        found = graph[wrong[0]]
    return found


def up_to(graph: Graph, weights: Weights, name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    """The network that makes one node's tensor, which is its answer, and its weights."""
    needed = {name}
    for node in reversed(tuple(graph)):
        if node.name in needed:
            needed |= set(node.sources)
    part = Graph(tuple(node for node in graph if node.name in needed))
    return part, {key: np.asarray(weights[key]) for key in part.parameters()}


def _inputs(
    graph: Graph, args: argparse.Namespace, shorter: int | None
) -> Int[np.ndarray, "n ..."]:
    if args.input:
        parts = [fitted(graph, read_question(path), shorter)[0] for path in args.input]
        return np.concatenate(parts)[: args.samples]
    out = graph.input.out
    raw = hashlib.shake_256(b"pqjax verify").digest(8 * args.samples * out.n)  # always the same
    drawn = np.frombuffer(raw, np.uint64)
    drawn = (drawn % np.uint64(out.high - out.low + 1)).astype(np.int64) + out.low
    return drawn.reshape(args.samples, *out.shape)


def _floats(path: str, inputs: Int[np.ndarray, "n ..."], meta: dict) -> np.ndarray:
    """What the float network says, by whoever can read it."""
    readers = list(entry_points(group=SOURCES))
    if not readers:
        raise DataError("--source: nothing is installed that reads float networks")
    return readers[0].load()(path, inputs, meta)


def _noise(got: np.ndarray, wanted: np.ndarray) -> float:
    """The mean square that outputs differ by, over the wanted ones' variance."""
    return float(np.square(got - wanted).mean() / max(float(np.var(wanted)), 1e-30))


def _line(row: dict, protocol: str) -> str:
    line = f"sample {row['sample']}: {in_words(row['answer'], False)}; {protocol} = reference"
    if row["differs"]:
        line = line.replace("=", "is not", 1)
        line += f": {row['differs']} outputs differ, from {row['first']} on"
    if "float" in row:
        line += f"; float: {in_words(row['float'], False)}, noise {row['noise']:.2%}"
    return line
