"""What one node costs by itself, as passes and the choice of methods compare it."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping

from pqjax.errors import PlanError
from pqjax.graph.ir import Graph, Node, TensorType
from pqjax.graph.rewrite import Price
from pqjax.layers import Setting, StepCost, Task, choosing_rule, rule_of, task_of
from pqjax.linear.choice import Choice
from pqjax.linear.keys import Secrets, keys_cost
from pqjax.planner.presets import Preset
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL, Timeline
from pqjax.wire.work import Rates


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


def task_cost(at: Setting, task: Task) -> StepCost:
    """What a task costs by itself."""
    return rule_of(task.node).cost(at, task)


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
    """The preset's ways of multiplying that fit a layer: the first of `Preset.ways` that has any."""
    rule = choosing_rule(task.node)
    for choices in preset.ways(task.node):
        each = (dataclasses.replace(task, choice=choice) for choice in choices)
        fits = [at for at in each if rule.unfit(at) is None]
        if fits:
            found = (choice for at in fits for choice in rule.options(at, preset.inferences))
            return list(dict.fromkeys(found))
    return []


def cheapest(preset: Preset, task: Task, goal: Goal) -> Choice:
    """The fitting choice of least price for a linear layer.

    Raises:
      PlanError: none fits; says why.
    """
    choices = fitting(preset, task)
    if not choices:
        rule, every = choosing_rule(task.node), dict.fromkeys(sum(preset.ways(task.node), ()))
        whys = [f"variant {c} {rule.unfit(dataclasses.replace(task, choice=c))}" for c in every]
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
        if node.multiplies:
            task, rule = task_of(graph, node, at), choosing_rule(node)
            own = forced.get(node.name)
            choices = (
                [cheapest(preset, task, goal), *fitting(preset, task)] if own is None else [own]
            )
            options = [
                (
                    price_of_choice(preset, task, choice, goal),
                    rule.secrets(dataclasses.replace(task, choice=choice)),
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
        task = Task(node, sources, batch=preset.batch)
        if not node.multiplies:
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
