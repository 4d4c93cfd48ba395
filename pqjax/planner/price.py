"""What one node costs by itself, as passes and the choice of methods compare it."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pqjax.errors import PlanError
from pqjax.graph.ir import Graph, Linear, Node, TensorType
from pqjax.graph.rewrite import Price
from pqjax.layers import Pieces, Setting, Task, rule_of, task_of
from pqjax.layers.linear import LINEAR
from pqjax.linear.choice import Choice
from pqjax.linear.keys import Secrets, keys_cost
from pqjax.ot.source import Pool, Source
from pqjax.planner.presets import Preset
from pqjax.wire.cost import NOTHING, Cost, total
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL, Timeline
from pqjax.wire.work import Rates

EMPTY: Pool = (0, 0)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One layer's cost: work before the input is known, after it, and once for every client."""

    offline: Cost = NOTHING
    online: Cost = NOTHING
    install: Cost = NOTHING

    @property
    def bits(self) -> int:
        """Payload bits of an inference; stored random OTs are counted where they are made."""
        return self.offline.bits + self.online.bits

    @property
    def both(self) -> Cost:
        """An inference's phases one after the other."""
        return self.offline + self.online


@dataclasses.dataclass(frozen=True)
class Aim:
    """Fewest seconds, of computing and messages together: of the online phase, or of all phases.

    Attributes:
      online: whether only the online phase counts; the others decide between equals.
      link: the network; None for loopback.
      rates: the machine's.
    """

    online: bool
    link: Link | None = None
    rates: Rates = NOMINAL

    def price(self, cost: StepCost, preset: Preset) -> float:
        """Seconds an inference, of OTs their share and of the installation a part."""
        line = Timeline(self.link, self.rates)
        online, offline = line.seconds(cost.online), line.seconds(cost.offline)
        offline += line.busiest(preset.source.share(cost.both.rots))
        offline += line.seconds(cost.install) / preset.inferences
        return online + offline * (_TIE if self.online else 1)


Goal = Aim | Link | None  # seconds; those of a link's messages alone; bits
_TIE = 1e-3


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
    phases.append([total(pieces.install) for pieces in steps])
    return [StepCost(*costs) for costs in zip(*phases, strict=True)], pool


def task_cost(at: Setting, task: Task) -> StepCost:
    """What a task costs by itself."""
    return step_costs(at, [rule_of(task.node).cost(at, task)], EMPTY)[0][0]


def priced(cost: StepCost, preset: Preset, goal: Goal) -> float:
    """What a layer costs an inference, its OTs and its share of what a client gets once included.

    In bits, in seconds on a link, or in those of an aim.
    """
    if isinstance(goal, Aim):
        return goal.price(cost, preset)
    both = cost.both
    both += preset.source.share(both.rots)
    if goal is None:
        return both.bits + cost.install.bits / preset.inferences
    once = goal.seconds(*cost.install.sent, 0)
    return goal.seconds(*both.sent, both.flows) + once / preset.inferences


def fitting(preset: Preset, task: Task) -> list[Choice]:
    """The preset's ways of multiplying that fit a layer: `choices`, or `otherwise` if none does."""
    for choices in (preset.choices, preset.otherwise):
        each = (dataclasses.replace(task, choice=choice) for choice in choices)
        fits = [at for at in each if LINEAR.unfit(at) is None]
        if fits:
            found = (choice for at in fits for choice in LINEAR.options(at, preset.inferences))
            return list(dict.fromkeys(found))
    return []


def cheapest(preset: Preset, task: Task, goal: Goal) -> Choice:
    """The fitting choice of least price for a linear layer.

    Raises:
      PlanError: none fits; says why.
    """
    choices = fitting(preset, task)
    if not choices:
        every = dict.fromkeys((*preset.choices, *preset.otherwise))
        whys = [f"variant {c} {LINEAR.unfit(dataclasses.replace(task, choice=c))}" for c in every]
        raise PlanError(f"{task.node.name}: {'; '.join(whys)}")
    return min(choices, key=lambda choice: price_of_choice(preset, task, choice, goal))


def cheapest_together(
    graph: Graph, preset: Preset, forced: Mapping[str, Choice], goal: Goal
) -> dict[str, Choice]:
    """A choice for every linear layer: those of least price together, where some are forced.

    Encrypted layers share an inference's secrets and keys, and the one that takes most pays for all: so
    of all limits to them the best is taken, none of them among these.
    """
    at, known = preset.setting(), {}
    for node in graph:
        if isinstance(node, Linear):
            task = task_of(graph, node, at)
            own = forced.get(node.name)
            choices = (
                [cheapest(preset, task, goal), *fitting(preset, task)] if own is None else [own]
            )
            options = [
                (
                    price_of_choice(preset, task, choice, goal),
                    LINEAR.secrets(dataclasses.replace(task, choice=choice)),
                    choice,
                )
                for choice in choices
            ]
            known[node.name] = sorted(options, key=lambda option: option[0])
    found: tuple[float, dict[str, Choice]] | None = None
    for limit in _limits(secrets for options in known.values() for _, secrets, _ in options):
        fits = (next((x for x in each if x[1].within(limit)), None) for each in known.values())
        best = [option for option in fits if option is not None]
        if len(best) < len(known):
            continue
        price = sum(option[0] for option in best)
        wanted = Secrets.of_all(option[1] for option in best)
        price += priced(StepCost(keys_cost(wanted)), preset, goal)
        if found is None or price < found[0]:
            found = price, {name: x[2] for name, x in zip(known, best, strict=True)}
    return found[1] if found else {}


def _limits(every: Iterable[Secrets]) -> Iterator[Secrets]:
    """How many secrets, of how many the keys, and their digits, as layers may use them."""
    every = set(every)
    counts, keyed = sorted({x.count for x in every}), [x for x in every if x.digits]
    yield from (Secrets(count) for count in counts)
    sizes = {(len(x.digits), x.digits[0]) for x in keyed}
    enough = {
        Secrets.of_all(x for x in keyed if len(x.digits) <= depths and x.digits[0] <= first).digits
        for depths, first in sizes
    }
    for count, merging, digits in itertools.product(counts, {x.merging for x in keyed}, enough):
        if merging <= count:
            yield Secrets(count, merging, digits)


def price_of_choice(preset: Preset, task: Task, choice: Choice, goal: Goal) -> float:
    """What a linear layer costs in one way."""
    at = preset.setting()
    return priced(task_cost(at, dataclasses.replace(task, choice=choice)), preset, goal)


@functools.lru_cache(maxsize=8)
def pricing(preset: Preset, goal: Goal) -> Price:
    """What a node costs under a preset: bits, or seconds on a link; linear layers at their best.

    Formats alone decide, so nodes that differ in name only are priced once. What is kept is little: a
    stranger's plans have links and formats of their own.
    """
    at = preset.setting()

    @functools.lru_cache(maxsize=1 << 12)
    def of(node: Node, *sources: TensorType) -> float:
        task = Task(node, sources)
        if not isinstance(node, Linear):
            cost = task_cost(at, task)
            # Steps come in forms that trade bits for flows; so they are compared by both.
            flows = cost.both.flows * at.forms.flow_bits if at.source.has_store else 0
            return priced(cost, preset, goal) + (flows if goal is None else 0)
        # Where none fits it is not lowered yet: the extension of its operand will come.
        choices = fitting(preset, task)
        return min((price_of_choice(preset, task, c, goal) for c in choices), default=0.0)

    def price(graph: Graph, node: Node) -> float:
        return of(node.unnamed, *graph.types(node))

    return price
