"""A network of ImageNet's classes on 224x224 photographs: private answers by name, two processes.

IMAGE=path   asks about a picture of yours
LABELLED=n   asks about n labelled photographs (needs PQJAX_DATA) instead of scikit-image's
QUICK=1      a few blocks between two processes, the rest predicted: a first answer
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from experiments import progress, timeline
from experiments.command import parser, run
from experiments.images import photographs, questions
from experiments.record import table
from experiments.resnet50 import (
    MAKING,
    USUAL,
    check_machine,
    compute_full,
    compute_quick,
    picture_options,
    quick_report,
    quoted,
)
from experiments.rows import LINK, NOTE, columns
from nets.architecture import MOBILENETV2
from nets.importing.kept import kept
from nets.importing.named import NAMED
from nets.importing.quantize import RECIPE
from nets.setting import SETTINGS
from nets.untrained import UNTRAINED, kept_untrained
from pqjax import load_model
from pqjax.cli.console import Bar
from pqjax.engine.process import cache_folder, settle

SEED = 2
TOP = 10
QUICK_BLOCKS = ("s1b1", "s3b2", "s5b2", "s7b1")  # with and without a sum, at four sizes
SIDE = (224, 224)


@dataclasses.dataclass(frozen=True)
class Network:
    """One of `NAMED` as an experiment.

    Attributes:
      result: the command is `make exp-<result>`.
      name: in `NAMED`.
      protocols: presets that it is run with, if nobody says otherwise.
      bundled: whether its weights come from a package; else they are in PQJAX_DATA, or random.
    """

    result: str
    name: str
    protocols: tuple[str, ...] = USUAL
    bundled: bool = False

    @property
    def title(self) -> str:
        """As readers call it."""
        return NAMED[self.name].title

    def result_name(self, args: argparse.Namespace) -> str:
        """A quick answer does not replace a full one."""
        return f"{self.result}_quick" if args.quick else self.result


def model_file(network: Network, setting: str) -> tuple[pathlib.Path, str, str | None]:
    """The network's file, made on the first run; whose weights it has, and their SHA-256."""
    if network.bundled or os.environ.get("PQJAX_DATA"):
        path = kept(network.name, SETTINGS[setting], Bar())
        return path, NAMED[network.name].weights, load_model(path)[2]["source"]["sha256"]
    images, _ = photographs(SIDE)
    bits = SETTINGS[setting]
    label = re.sub(r"[^\w]+", "-", bits.name).lower()
    widths = bits.widths(MOBILENETV2)
    path = kept_untrained(MOBILENETV2, widths, label, images, SEED, cache_folder())
    return path, UNTRAINED, None


def likeliest(outputs: Int[np.ndarray, "n classes"], classes: Sequence[str]) -> list[list[str]]:
    """The ten largest outputs of every answer, by name where there are names."""
    found = []
    for y in outputs:
        order = np.argsort(-y, kind="stable")[:TOP]
        found.append([classes[i] if classes else str(i) for i in order])
    return found


def compute(network: Network, args: argparse.Namespace) -> dict:
    """The whole network between two processes, with each preset."""
    settle()
    check_machine()
    about = f"{network.title} at 224x224, between two processes, every bit checked"
    took: dict[str, float] = {}
    names = [MAKING, *args.protocols]
    protocols = progress.stages(network.result_name(args), about, names, took)
    next(protocols)
    path, weights, source = model_file(network, args.setting)
    graph, _, meta = load_model(path)
    shorter = meta.get("shorter")
    asked = questions(graph, args.image, args.labelled, args.images, shorter)
    config = {
        "seed": SEED if weights == UNTRAINED else RECIPE.seed,
        "weights": weights,
        "source": source,
        "setting": dataclasses.asdict(SETTINGS[args.setting]),
        "pictures": asked.names,
        "link": str(LINK),
        "quick": args.quick,
    }
    if args.quick:
        found = compute_quick(path, asked.inputs, protocols, QUICK_BLOCKS)
        return {"config": config, **found, "stages": took}
    runs = compute_full(network.result, protocols, path, asked.inputs, args.wan_images)
    outputs = [np.array(row.pop("outputs")) for row in runs]
    classes = meta.get("classes", ())
    answers = [
        {
            "picture": picture,
            "label": None if label is None or not classes else classes[label],
            "right": None if label is None else bool(y.argmax() == label),
            "likeliest": names,
        }
        for picture, label, y, names in zip(
            asked.names, asked.labels, outputs[0], likeliest(outputs[0], classes), strict=False
        )
    ]
    return {"config": config, "runs": runs, "answers": answers, "stages": took}


def report(network: Network, tree: dict) -> str:
    """Tables, the answers by name, published rows, and the profile."""
    config = tree["config"]
    if config["quick"]:
        return (
            f"# {network.title}, 224x224: some blocks in two processes\n\n"
            f"**{config['weights']}**, {config['setting']['name']}; picture: "
            f"{config['pictures'][0]}.\n\n" + quick_report(tree)
        )
    answers, untrained = tree["answers"], config["weights"] == UNTRAINED
    means = ": the predictions mean nothing; bits, flows and seconds are those of any weights"
    shown = [{"system": r["protocol"], "pictures": r["images"], **columns(r)} for r in tree["runs"]]
    text = (
        f"# {network.title}, 224x224: private inference in two processes\n\n"
        f"**{config['weights']}**, {config['setting']['name']}, residuals of "
        f"{config['setting']['residual']} bits{means if untrained else ''}.\n\n"
        + table(shown)
        + "\n\nEvery answer equals the integer reference bit for bit, except by `cheetah`, whose sums "
        f"may be off by one. {NOTE}\n\n"
    )
    known = [a for a in answers if a["right"] is not None]
    if known and not untrained:
        right = sum(a["right"] for a in known)
        text += f"Likeliest class = label: {right} of {len(known)}.\n\n"
    title = "likeliest (untrained)" if untrained else "likeliest, the server learning nothing"
    rows = [
        {"picture": a["picture"], "label": a["label"] or "", title: "; ".join(a["likeliest"])}
        for a in answers
    ]
    text += table(rows, ["picture", *(["label"] if known else []), title]) + "\n\n" + quoted()
    for protocol in (r["protocol"] for r in tree["runs"]):
        text += timeline.profile(f"{network.result}_{protocol}", f"{network.title}, {protocol}")
    return text


def main(network: Network, about: str | None, arguments: list[str] | None = None) -> int:
    """Writes `results/<result>.json`, `.md`, traces and pictures."""
    options = parser(f"exp-{network.result}", about)
    picture_options(options)
    options.set_defaults(protocols=list(network.protocols))
    options.add_argument("--setting", default="W8A8", choices=list(SETTINGS), help="bits")
    computed = functools.partial(compute, network)
    reported = functools.partial(report, network)
    return run(options, computed, reported, arguments, network.result_name)
