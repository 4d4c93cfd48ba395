"""A plan as a document, and back: what the client is told, and what it checks before it runs that.

The document holds the graph as it is run, a choice for every linear layer and all that shapes a frame.
The client plans nothing anew: it runs what is chosen, by its own rules, so the two sides may be of
different versions as long as both know every choice and agree on what it costs.
"""

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping

from pqjax.errors import PlanError, PqjaxError, shown
from pqjax.graph.bounds import MOST_MADE_NODES, Name, Word
from pqjax.graph.ir import Graph
from pqjax.graph.strict_json import parse
from pqjax.linear.choice import Choice
from pqjax.linear.shared import SHARED
from pqjax.linear.way import unknown
from pqjax.ot import SOURCES
from pqjax.ot.tuning import Tuning
from pqjax.planner.choose import assembled
from pqjax.planner.clock import Clock
from pqjax.planner.plan import Plan
from pqjax.planner.presets import PRESETS, Preset
from pqjax.planner.wishes import (
    MOST_BATCH,
    MOST_INFERENCES,
    ClassNames,
    check_class_names,
    check_link,
    check_shorter,
)
from pqjax.protocols.forms import Forms
from pqjax.schema import Between, Length, read
from pqjax.version import VERSION
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES
from pqjax.wire.link import Link

FORMAT = 6
_FIELDS = {field.name for field in dataclasses.fields(Choice)}


@dataclasses.dataclass(frozen=True)
class _Sent:
    """What a plan says that it costs: a first inference's payload bits by sender, and its flows."""

    bits: tuple[Word, Word]
    flows: Word


@dataclasses.dataclass(frozen=True)
class _Document:
    """The fields of a document."""

    choices: typing.Annotated[Mapping[Name, Choice], Length(0, MOST_MADE_NODES)]
    classes: ClassNames
    cost: _Sent
    exact: bool
    format: typing.Literal[6]
    forms: Forms
    graph: object
    inferences: typing.Annotated[int, Between(1, MOST_INFERENCES)]
    link: Link | None
    masked_input: bool
    protocol: Name
    ranges: typing.Annotated[Mapping[Name, tuple[Word, Word]], Length(0, MOST_MADE_NODES)]
    source: Name
    tuning: Tuning
    version: Name
    batch: typing.Annotated[int, Between(1, MOST_BATCH)] = 1
    shorter: Word | None = None


def write(made: Plan) -> bytes:
    """Canonical JSON: equal plans give equal bytes."""
    cost, preset = made.cost(), made.preset
    choices = {s.node.name: s.task.choice for s in made.steps if s.task.choice}
    tree = {
        "choices": {name: dataclasses.asdict(choice) for name, choice in choices.items()},
        "classes": made.classes,
        "cost": {"bits": cost.sent, "flows": cost.flows},
        "exact": preset.exact,
        "format": FORMAT,
        "forms": dataclasses.asdict(preset.forms),
        "graph": made.graph.tree(),
        "inferences": preset.inferences,
        "link": None if made.link is None else dataclasses.asdict(made.link),
        "masked_input": preset.masked_input,
        "protocol": preset.name,
        "ranges": dict(made.ranges),
        "source": preset.source.name,
        "tuning": dataclasses.asdict(preset.tuning),
        "version": made.version,
    }
    if preset.batch > 1:  # what came later is written where it says something
        tree["batch"] = preset.batch
    if made.shorter is not None:
        tree["shorter"] = made.shorter
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def read_plan(document: bytes, deadline_s: float | None = None) -> Plan:
    """The plan that a document describes, checked. The document may be anything, from anyone.

    Checking may take `deadline_s`, or as long as it likes.

    Raises:
      PlanError: it is no plan, takes too long, holds a choice that this version does not know, or
        costs something else here.
    """
    try:
        return _checked(document, Clock(deadline_s))
    except PlanError:
        raise
    except PqjaxError as error:
        raise PlanError(f"not a plan: {error}") from error
    except Exception as error:
        # Not foreseen, but a stranger's document never gets further than here.
        raise PlanError(f"not a plan: {type(error).__name__} in reading it") from error


def _checked(document: bytes, clock: Clock) -> Plan:
    parsed = parse(document, DOCUMENT_LIMIT_BYTES)
    _check_known(parsed)
    tree = read(_Document, parsed)
    graph = Graph.from_tree(tree.graph, made=True)
    clock.check()
    if tree.link is not None:
        check_link(tree.link)
    every = {node.name for node in graph if node.multiplies}
    if set(tree.choices) != every or not set(tree.ranges) <= every | {graph.input.name}:
        raise PlanError("not a plan: a choice for every linear layer expected, and no other ranges")
    made = assembled(graph, _preset(tree), tree.choices, tree.ranges, clock, tree.link)
    if tree.classes:
        check_class_names(graph, tree.classes)
    if tree.shorter is not None:
        check_shorter(graph, tree.shorter)
    told = {"classes": tree.classes, "shorter": tree.shorter, "version": tree.version}
    made = dataclasses.replace(made, **told)
    cost = made.cost()
    if (cost.sent, cost.flows) != (tree.cost.bits, tree.cost.flows):
        raise PlanError(
            f"the plan (of pqjax {tree.version}) says it sends {list(tree.cost.bits)} bits in "
            f"{tree.cost.flows} flows, by this version (pqjax {VERSION}) it sends {list(cost.sent)} in "
            f"{cost.flows}: use the same version on both sides"
        )
    if made.document != document:
        raise PlanError("not a plan: it is not written as this version writes it")
    return made


def _check_known(tree: typing.Any) -> None:
    """Names a choice, or a source of OTs, that only another version knows; leaves the rest to `read`."""
    if type(tree) is not dict or type(tree.get("choices")) is not dict:
        return
    for name, choice in tree["choices"].items():
        found = unknown(choice) if type(choice) is dict and choice.keys() == _FIELDS else None
        if found is not None:
            raise PlanError(f"{shown(name)}: {_unknown(*found, tree.get('version'))}")


def _unknown(what: str, name: object, known: Iterable[str], version: object) -> str:
    """Says which version knows what this one does not."""
    return (
        f"unknown {what} {shown(name)}; this is pqjax {VERSION}, which knows {', '.join(known)}, and "
        f"the plan is of pqjax {shown(version)}: use that version or a later one"
    )


def _preset(tree: _Document) -> Preset:
    """The preset of that name if it is what the document says, else one of these facts."""
    if tree.source not in SOURCES:
        raise PlanError(_unknown("source of OTs", tree.source, SOURCES, tree.version))
    about, every = "as a plan describes it", dict.fromkeys(tree.choices.values())
    choices = tuple(choice for choice in every if choice.method not in SHARED)
    products = tuple(choice for choice in every if choice.method in SHARED)
    source, masked = SOURCES[tree.source], tree.masked_input
    facts = source, tree.forms, choices, (), (), masked, tree.tuning, tree.inferences, tree.exact
    told = Preset(tree.protocol, about, *facts, products=products, batch=tree.batch)
    if tree.protocol not in PRESETS:
        return told
    known = PRESETS[tree.protocol]
    forms = dataclasses.replace(known.forms, flow_bits=tree.forms.flow_bits)
    shared = {"source": source, "forms": forms}
    shared |= {"inferences": tree.inferences, "batch": tree.batch}
    known = dataclasses.replace(known, **shared)
    same = known.setting() == told.setting() and known.exact == told.exact
    return known if same else told
