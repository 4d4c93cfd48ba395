"""What became of a network by its quantization: answers, overflow, cost, and the layers that hurt."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing.imported import Imported
from nets.importing.pictures import Pictures
from nets.importing.quantize import Progress, Quantized, felt, silent
from pqjax.graph import every_value, reference, wrap_rates
from pqjax.planner import plan

PRESETS = ("pqjax", "pqjax-ot", "privquant")
INFERENCES = 100  # of a client that comes back
ASKED = 256  # pictures that both networks answer
_BATCH, _LOOKED_AT = 32, 8
_WORST = 5
_ROUNDED = 64  # pictures that a quantized source's own runtime answers, one by one


@dataclasses.dataclass(frozen=True)
class Report:
    """A quantized network beside its float one.

    Attributes:
      pictures: asked about.
      agreement: share of them on which both name the same class.
      noise: mean square that logits differ by, over the float ones' variance.
      accuracy: share that the float and the quantized network label rightly; None without labels.
      overflow: share of values that leave their format, by requantization; over a few pictures.
      cost: of every preset: GB of an inference, MB that a client gets once, and flows.
      requantized: of a source that is quantized itself: share of some pictures on which this network
        names the class that the source names with its own rounding; else None.
      hurts: what rounding a layer's weights moves the logits by, see `quantize.felt`.
    """

    pictures: int
    agreement: float
    noise: float
    accuracy: tuple[float, float] | None
    overflow: dict[str, float]
    cost: dict[str, dict[str, float]]
    hurts: dict[str, float]
    requantized: float | None = None

    def tree(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """For readers."""
        lines = [
            f"same class as the float network: {self.agreement:.1%} of {self.pictures} pictures; noise "
            f"of the logits {self.noise:.2%}"
        ]
        if self.requantized is not None:
            lines.append(f"same class as the source with its own rounding: {self.requantized:.1%}")
        if self.accuracy is not None:
            lines.append(
                "as labelled: float {:.1%}, quantized {:.1%}".format(*self.accuracy)
                + " (of the pictures that it was calibrated on)"
            )
        lines.append("clamped, most: " + (_worst(self.overflow, "{:.2%}") or "nothing"))
        lines.append("layers that hurt, most: " + _worst(self.hurts, "{:.2%} noise"))
        for preset, cost in self.cost.items():
            once = f", {cost['once_MB']:.1f} MB once" if cost["once_MB"] else ""
            lines.append(
                f"{preset}: {cost['GB']:.3f} GB an inference{once}, {cost['flows']:.0f} flows"
            )
        return "\n".join(lines)


def _worst(numbers: dict[str, float], form: str) -> str:
    worst = sorted(numbers.items(), key=lambda pair: -pair[1])[:_WORST]
    return ", ".join(f"{name} {form.format(value)}" for name, value in worst if value)


def reported(
    imported: Imported, made: Quantized, pictures: Pictures, progress: Progress = silent
) -> Report:
    """Asks both networks about the pictures, and plans the quantized one."""
    pixels = pictures.pixels[:ASKED]
    parts = [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]
    ours, theirs = [], []
    unscaled = FoldedNet.of(imported.architecture, imported.of_integers())
    for at, part in enumerate(parts):
        progress("answers", at, len(parts))
        x = integer_input(part, imported.architecture.zero)
        answer = np.asarray(reference(made.graph, made.weights, x), np.float64)
        ours.append(answer * 2.0**-made.graph.output.out.scale)
        theirs.append(unscaled.logits(x, batch=_BATCH))
    progress("answers", len(parts), len(parts))
    got, wanted = np.concatenate(ours), np.concatenate(theirs)
    accuracy = None
    if pictures.labels is not None:
        labels = pictures.labels[: len(pixels)]
        right = [float((y.argmax(1) == labels).mean()) for y in (wanted, got)]
        accuracy = (right[0], right[1])
    values = every_value(
        made.graph, made.weights, integer_input(pixels[:_LOOKED_AT], imported.architecture.zero)
    )
    return Report(
        pictures=len(pixels),
        agreement=float((got.argmax(1) == wanted.argmax(1)).mean()),
        noise=float(np.square(got - wanted).mean() / max(wanted.var(), 1e-30)),
        accuracy=accuracy,
        overflow=wrap_rates(made.graph, values),
        cost={name: _cost(made, name) for name in PRESETS},
        hurts=felt(made.net, made.kernels(), pixels, progress),
        requantized=_requantized(imported, pixels[:_ROUNDED], got),
    )


def _requantized(imported: Imported, pixels: np.ndarray, answers: np.ndarray) -> float | None:
    """What other scales than a quantized source's own cost it."""
    if imported.rounding is None:
        return None
    theirs = imported.rounding(imported.pixels.real(pixels))
    if theirs.shape != answers[: len(theirs)].shape:
        return None  # a class alone, or the few likeliest
    return float((theirs.argmax(1) == answers[: len(theirs)].argmax(1)).mean())


def _cost(made: Quantized, preset: str) -> dict[str, float]:
    planned = plan(made.graph, preset, inferences=INFERENCES)
    once = planned.cost("install").bits
    return {
        "GB": (planned.cost().bits - once) / 8e9,
        "once_MB": once / 8e6,
        "flows": (planned.cost("offline") + planned.cost("online")).flows,
    }
