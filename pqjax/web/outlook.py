"""What a network is predicted to take by a preset."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pqjax.engine.process import cache_folder
from pqjax.engine.rates import kept_rates
from pqjax.errors import DataError, PlanError, PqjaxError
from pqjax.graph import load_model
from pqjax.planner import PRESETS, Plan
from pqjax.planner.forecast import Timed, forecast
from pqjax.planner.plan import STOCK_LAYER
from pqjax.planner.report import format_of
from pqjax.planner.summary import summary
from pqjax.service.kept_plans import kept_plan
from pqjax.service.offer import Planning
from pqjax.web.child import told_by
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.work import Rates

PHASES: tuple[str, ...] = ("install", "offline", "online")
SHOWN = ("pqjax", "pqjax-ot", "privquant")  # presets that the page switches between
INFERENCES = 100  # that plans are made for, as `pqjax serve` does


@dataclasses.dataclass(frozen=True)
class Outlook:
    """A plan's predictions, as data: it travels as JSON.

    Attributes:
      told: bytes and seconds of every phase, and whose the preset is.
      steps: a row for every layer.
      seconds: of every phase of a first inference.
      spans: by phase and layer, when it begins and is over in its phase.
    """

    told: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    spans: Mapping[str, Mapping[str, tuple[float, float]]]

    @classmethod
    def of(cls, made: Plan) -> "Outlook":
        """Of a plan, by its rates."""
        found = summary(made)
        told = {
            "name": made.protocol,
            "about": PRESETS[made.protocol].about,
            "exact": found["exact"],
            "bytes": {phase: found[f"{phase}_bytes"] for phase in PHASES},
            "seconds": {phase: round(found["predicted"][phase], 2) for phase in PHASES},
            "rates": found["predicted"]["rates"],
        }
        spans: dict[str, dict[str, tuple[float, float]]] = {phase: {} for phase in PHASES}
        sums = dict.fromkeys(PHASES, 0.0)
        for line, seconds in _spread(made):
            if line.phase in sums:
                begins = sums[line.phase]
                sums[line.phase] += seconds
                spans[line.phase][line.layer] = begins, sums[line.phase]
        return cls(told, [_row(made, row) for row in found["steps"]], sums, spans)

    def within(self, phase: str, layer: str) -> tuple[float, float]:
        """Predicted seconds of a phase before a layer of it, and with it; without one, of all of it."""
        begin, end = (
            self.spans[phase].get(layer, (0.0, 0.0)) if layer else (self.seconds[phase],) * 2
        )
        return begin, end


def foreseen(model: pathlib.Path, preset: str) -> Outlook:
    """Of a network file, found by another process: planning takes a while, and all of an interpreter.

    Raises:
      PlanError: the preset cannot run the network; says why.
    """
    for tree in told_by("from pqjax.web.outlook import main\nmain()", str(model), preset):
        if "error" in tree:
            raise PlanError(tree["error"])
        return Outlook(**tree)
    raise PlanError("the process that plans ended without a word")


def main() -> None:
    """What that process does; a plan that a server has made already is the same one."""
    model, preset = sys.argv[1:]
    try:
        (graph, _, meta), rates = load_model(model), _rates()
        planning = Planning(preset, inferences=INFERENCES)
        made = kept_plan(
            cache_folder() / "hints", dataclasses.asdict(planning), graph, meta, rates,
            lambda: planning.plan(graph, meta, rates),
        )  # fmt: skip
        found = Outlook.of(dataclasses.replace(made, rates=rates))
        print(json.dumps(dataclasses.asdict(found)))
    except PqjaxError as error:
        print(json.dumps({"error": str(error)}))


def _rates() -> Rates:
    try:
        return kept_rates() or NOMINAL
    except DataError:
        return NOMINAL  # nobody is the worse for it: predictions say whose rates they are


def _spread(made: Plan) -> list[Timed]:
    """The forecast of a first inference, in which random OTs that are made beside others are theirs."""
    found = forecast(made, inference=0)
    if not made.streamed:
        return found
    beside = {at.line.phase: at.seconds for at in found if at.line.layer == STOCK_LAYER}
    drawn = dict.fromkeys(beside, 0)
    for line, _ in found:
        if line.phase in drawn:
            drawn[line.phase] += sum(line.cost.rots)
    spread = []
    for line, seconds in found:
        if line.layer == STOCK_LAYER:
            seconds = 0.0
        elif drawn.get(line.phase):
            seconds += beside[line.phase] * sum(line.cost.rots) / drawn[line.phase]
        spread.append(Timed(line, seconds))
    return spread


def _row(made: Plan, step: dict[str, Any]) -> dict[str, Any]:
    node = made.step(step["layer"]).node
    source = f"{format_of(made.graph.source(node))} -> " if node.sources else ""
    return {
        "layer": step["layer"],
        "kind": step["kind"],
        "formats": source + format_of(node.out),
        "method": made.step(step["layer"]).variant or "",
        "offline": -(-step["offline_bits"] // 8),
        "online": -(-step["online_bits"] // 8),
        "flows": step["flows"],
        "seconds": round(step["offline_seconds"] + step["online_seconds"], 4),
    }
