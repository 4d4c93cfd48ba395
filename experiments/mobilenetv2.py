"""`make exp-mobilenetv2`: private MobileNetV2 on 224x224 photographs, two processes.

    IMAGE=path   asks about a picture of yours
    LABELLED=n   asks about n labelled photographs (needs PQJAX_DATA) instead of scikit-image's
    QUICK=1      a few blocks between two processes, the rest predicted: a first answer

With PQJAX_DATA set the network is Google's, quantized here, and knows ImageNet's classes; without it, it
is random weights from a seed, and everything that shows its answers says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from experiments import progress, timeline
from experiments.command import parser, run
from experiments.images import photographs, questions
from experiments.record import table
from experiments.resnet50 import (
    MAKING,
    check_machine,
    compute_full,
    compute_quick,
    picture_options,
    quick_report,
    quoted,
)
from experiments.rows import LINK, NOTE, columns
from nets.architecture import MOBILENETV2
from nets.mobilenet import SHA256
from nets.mobilenet_quantized import RECIPE, SETTINGS, kept_mobilenet
from nets.untrained import UNTRAINED, kept_untrained
from pqjax import load_model
from pqjax.engine.process import cache_folder, settle

SEED = 2
TRAINED = "Google's 8-bit weights, quantized again"
TOP = 10
QUICK_BLOCKS = ("s1b1", "s3b2", "s5b2", "s7b1")  # with and without a sum, at four sizes
SIDE = (224, 224)


def model_file(setting: str) -> tuple[pathlib.Path, str]:
    """The network's file, made on the first run, and what its weights are."""
    if os.environ.get("PQJAX_DATA"):

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        return kept_mobilenet(SETTINGS[setting], say), TRAINED
    images, _ = photographs(SIDE)
    bits = SETTINGS[setting]
    label = re.sub(r"[^\w]+", "-", bits.name).lower()
    path = kept_untrained(MOBILENETV2, bits.widths(), label, images, SEED, cache_folder())
    return path, UNTRAINED


def likeliest(outputs: Int[np.ndarray, "n classes"], classes: Sequence[str]) -> list[list[str]]:
    """The ten largest outputs of every answer, by name where there are names."""
    found = []
    for y in outputs:
        order = np.argsort(-y, kind="stable")[:TOP]
        found.append([classes[i] if classes else str(i) for i in order])
    return found


def compute(args: argparse.Namespace) -> dict:
    """The whole network between two processes, with each preset."""
    settle()
    check_machine()
    about = "MobileNetV2 at 224x224, between two processes, every bit checked"
    took: dict[str, float] = {}
    names = [MAKING, *args.protocols]
    protocols = progress.stages(result_name(args), about, names, took)
    next(protocols)
    path, weights = model_file(args.setting)
    graph, _, meta = load_model(path)
    asked = questions(graph, args.image, args.labelled, args.images)
    config = {
        "seed": SEED if weights == UNTRAINED else RECIPE.seed,
        "weights": weights,
        "source": SHA256 if weights == TRAINED else None,
        "setting": dataclasses.asdict(SETTINGS[args.setting]),
        "pictures": asked.names,
        "link": str(LINK),
        "quick": args.quick,
    }
    if args.quick:
        found = compute_quick(path, asked.inputs, protocols, QUICK_BLOCKS)
        return {"config": config, **found, "stages": took}
    runs = compute_full("mobilenetv2", protocols, path, asked.inputs, args.wan_images)
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


def report(tree: dict) -> str:
    """Tables, the answers by name, published rows, and the profile."""
    config = tree["config"]
    if config["quick"]:
        return (
            "# MobileNetV2, 224x224: some blocks in two processes\n\n"
            f"**{config['weights']}**, {config['setting']['name']}; picture: "
            f"{config['pictures'][0]}.\n\n" + quick_report(tree)
        )
    answers, untrained = tree["answers"], config["weights"] == UNTRAINED
    means = ": the predictions mean nothing; bits, flows and seconds are those of any weights"
    shown = [{"system": r["protocol"], "pictures": r["images"], **columns(r)} for r in tree["runs"]]
    text = (
        "# MobileNetV2, 224x224: private inference in two processes\n\n"
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
        text += timeline.profile(f"mobilenetv2_{protocol}", f"MobileNetV2, {protocol}")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Writes `results/mobilenetv2.json`, `.md`, traces and pictures."""
    options = parser("exp-mobilenetv2", __doc__)
    picture_options(options)
    options.add_argument("--setting", default="W8A8", choices=list(SETTINGS), help="bits")
    return run(options, compute, report, arguments, result_name)


def result_name(args: argparse.Namespace) -> str:
    """A quick answer does not replace a full one."""
    return "mobilenetv2_quick" if args.quick else "mobilenetv2"


if __name__ == "__main__":
    sys.exit(main())
