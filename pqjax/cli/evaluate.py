"""`pqjax evaluate`: how often a network is right, and whether private answers are the same."""

import argparse
import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from pqjax.cli.console import say
from pqjax.cli.options import Commands, command, json_option, positive
from pqjax.fleet import evaluation
from pqjax.fleet.evaluation import Hands, answers, differences, in_order, parts, right_among
from pqjax.fleet.labelled import Labelled, read_labelled
from pqjax.graph import load_model
from pqjax.planner import find_preset

_PART = 32  # inputs that one question is about
_TOPS = (1, 5)


def add(commands: Commands) -> None:
    """Adds the command."""
    made = command(
        commands, "evaluate", _evaluate, "accuracy on labelled data, and private answers compared",
        "evaluate network.npz test.npz", "evaluate network.npz photos --labels folders --private 10",
        "evaluate network.npz test.npz --ray 192.0.2.7:6379",
    )  # fmt: skip
    made.add_argument("model", help="network file (.npz)")
    data = (
        "an .npz file with x, integers as the network takes them, and y, classes; or a folder of "
    )
    data += "pictures"
    made.add_argument("data", help=data)
    labels = (
        "of pictures: a CSV file with the columns file and label, or folders: each picture's own"
    )
    made.add_argument("--labels", metavar="FILE", help=labels)
    made.add_argument("--samples", type=positive(int), metavar="N", help="the first N at most")
    private = "N inferences between two parties, too, each held to the integer network's answer"
    made.add_argument("--private", type=positive(int), metavar="N", help=private)
    made.add_argument("--protocol", default="pqjax", metavar="PRESET", help="by which preset")
    count = "so many processes of this machine"
    cores = os.cpu_count() or 1
    made.add_argument("--processes", type=positive(int), default=cores, metavar="N", help=count)
    cluster = (
        "a Ray cluster instead: host:port of its head, or auto; its nodes read the same model file"
    )
    made.add_argument("--ray", metavar="ADDRESS", help=cluster)
    json_option(made)


def _evaluate(args: argparse.Namespace) -> int:
    find_preset(args.protocol)  # now, not in every process
    graph, _, meta = load_model(args.model)
    classes, shorter = meta.get("classes", ()), meta.get("shorter")
    data = read_labelled(args.data, graph, args.labels, classes, shorter, args.samples)
    count = len(data.labels)
    privately = min(args.private or 0, count)
    begin = time.perf_counter()
    hands = (
        evaluation.processes(args.processes) if args.ray is None else evaluation.cluster(args.ray)
    )
    with hands as those, _bar(count + privately) as done:
        model = str(pathlib.Path(args.model).resolve())
        right = _right(those, model, data, done)
        same = _same(those, model, args.protocol, data, privately, done)
    outputs = int(np.prod(graph.output.out.shape))
    told = {"samples": count, "seconds": round(time.perf_counter() - begin, 3)}
    told["accuracy"] = {
        f"top{top}": right[top] / count for top in _TOPS if top == 1 or outputs > top
    }
    if privately:
        told["private"] = {"protocol": args.protocol, "samples": privately, "same": same}
    if args.json:
        print(json.dumps(told))
    else:
        for name, share in told["accuracy"].items():
            print(f"{name} {share:.2%} of {count}")
        if privately:
            print(f"{same} of {privately} private answers equal the integer network's, bit for bit")
    return 0 if same == privately else 1


def _right(
    hands: Hands, model: str, data: Labelled, done: Callable[[int], object]
) -> dict[int, int]:
    """How many labels are among the likeliest classes, for each number of those."""
    cuts = parts(len(data.labels), _PART)
    right: dict[int, int] = dict.fromkeys(_TOPS, 0)
    outputs = in_order(hands, answers, ((model, data.read(cut)) for cut in cuts))
    for cut, y in zip(cuts, outputs, strict=True):
        for top in _TOPS:
            right[top] += right_among(y, data.labels[cut], top)
        done(len(y))
    return right


def _same(
    hands: Hands,
    model: str,
    protocol: str,
    data: Labelled,
    count: int,
    done: Callable[[int], object],
) -> int:
    """How many of the first private answers are the integer network's."""
    questions = ((model, protocol, data.read(cut)[0]) for cut in parts(count, 1))
    same = 0
    for at, differing in enumerate(in_order(hands, differences, questions)):
        if differing:
            say(f"pqjax: input {at}: {differing} outputs of the private answer differ")
        same += not differing
        done(1)
    return same


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """One bar for all, on a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit="input", leave=False, dynamic_ncols=True, disable=None) as bar:
        yield bar.update
