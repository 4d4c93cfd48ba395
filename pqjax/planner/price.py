"""What one node costs by itself, as passes and the choice of methods compare it."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence

from pqjax.errors import PlanError
from pqjax.graph.ir import Graph, Linear, Node, TensorType
from pqjax.graph.rewrite import Price
from pqjax.layers import Pieces, Setting, Task, rule_of
from pqjax.layers.linear import LINEAR
from pqjax.linear.choice import Choice
from pqjax.ot.source import Pool, Source
from pqjax.planner.presets import Preset
from pqjax.wire.cost import NOTHING, Cost, total
from pqjax.wire.link import Link

EMPTY: Pool = (0, 0)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One layer's cost: work before the input is known, and after."""

    offline: Cost = NOTHING
    online: Cost = NOTHING

    @property
    def bits(self) -> int:
        """Payload bits of both phases; stored random OTs are counted where they are made."""
        return self.offline.bits + self.online.bits

    @property
    def both(self) -> Cost:
        """One phase after the other."""
        return self.offline + self.online


def spent(at: Setting, pieces: Iterable[Cost], pool: Pool) -> tuple[Cost, Pool]:
    """What pieces cost one after the other, and what they leave in store.

    Where OTs are made as they are used, every piece has those made that it draws.
    """
    costs = []
    for _, run in itertools.groupby(pieces, id):  # tiles of a tensor are all alike but the last
        piece, *more = run
        times = 1 + len(more)
        if not at.streamed:
            costs.append(piece.repeated(times))
            continue
        free = dataclasses.replace(piece, rots=(0, 0))
        while times:
            alike = _served(at.source, pool, piece.rots, times)
            if alike:
                _, pool = at.source.fill(pool, _times(piece.rots, alike))
                costs.append(free.repeated(alike))
            else:
                made, left = at.source.fill(pool, piece.rots)
                alike = times if left == pool else 1
                costs.append((made + free).repeated(alike))
                pool = left
            times -= alike
    return total(costs), pool


def _times(wanted: Pool, n: int) -> Pool:
    return wanted[0] * n, wanted[1] * n


def _served(source: Source, pool: Pool, wanted: Pool, most: int) -> int:
    """How often, of `most`, the pool serves a draw with nothing made."""
    most = min([most, *(left // n for left, n in zip(pool, wanted, strict=True) if n)])
    return bisect.bisect_left(
        range(1, most + 1), True, key=lambda n: source.fill(pool, _times(wanted, n))[0] != NOTHING
    )


def step_costs(at: Setting, steps: Sequence[Pieces], pool: Pool) -> tuple[list[StepCost], Pool]:
    """What the steps of one inference cost, offline first, and what they leave in store."""
    phases = []
    for phase in (0, 1):
        costs = []
        for pieces in steps:
            cost, pool = spent(at, pieces[phase], pool)
            costs.append(cost)
        phases.append(costs)
    return [StepCost(*costs) for costs in zip(*phases, strict=True)], pool


def task_cost(at: Setting, task: Task) -> StepCost:
    """What a task costs by itself."""
    return step_costs(at, [rule_of(task.node).cost(at, task)], EMPTY)[0][0]


def priced(cost: StepCost, source: Source, link: Link | None) -> float:
    """What a layer costs, the making of its stored OTs included: bits, or seconds on a link."""
    both = cost.both
    both += source.share(both.rots)
    return link.seconds(*both.sent, both.flows) if link else both.bits


def fitting(preset: Preset, task: Task) -> list[Choice]:
    """The preset's ways of multiplying that fit a layer: `choices`, or `otherwise` if none does."""
    for choices in (preset.choices, preset.otherwise):
        found = [c for c in choices if LINEAR.unfit(dataclasses.replace(task, choice=c)) is None]
        if found:
            return found
    return []


def cheapest(preset: Preset, task: Task, link: Link | None) -> Choice:
    """The fitting choice of least price for a linear layer.

    Raises:
      PlanError: none fits; says why.
    """
    choices = fitting(preset, task)
    if not choices:
        every = dict.fromkeys((*preset.choices, *preset.otherwise))
        whys = [f"variant {c} {LINEAR.unfit(dataclasses.replace(task, choice=c))}" for c in every]
        raise PlanError(f"{task.node.name}: {'; '.join(whys)}")
    return min(choices, key=lambda choice: price_of_choice(preset, task, choice, link))


def price_of_choice(preset: Preset, task: Task, choice: Choice, link: Link | None) -> float:
    """What a linear layer costs in one way."""
    at = preset.setting()
    return priced(task_cost(at, dataclasses.replace(task, choice=choice)), preset.source, link)


@functools.lru_cache(maxsize=8)
def pricing(preset: Preset, link: Link | None) -> Price:
    """What a node costs under a preset: bits, or seconds on a link; linear layers at their best.

    Formats alone decide, so nodes that differ in name only are priced once. What is kept is little: a
    stranger's plans have links and formats of their own.
    """
    at = preset.setting()

    @functools.lru_cache(maxsize=1 << 12)
    def of(node: Node, *sources: TensorType) -> float:
        task = Task(node, sources)
        if not isinstance(node, Linear):
            return priced(task_cost(at, task), preset.source, link)
        # Where none fits it is not lowered yet: the extension of its operand will come.
        choices = fitting(preset, task)
        return min((price_of_choice(preset, task, c, link) for c in choices), default=0.0)

    def price(graph: Graph, node: Node) -> float:
        return of(node.unnamed, *graph.types(node))

    return price
