"""What is asked of a plan, and what clients are to be told: bounded and checked, whoever says it."""

import typing
from collections.abc import Sequence

from pqjax.errors import InputError, PlanError, shown
from pqjax.graph.bounds import MOST_ELEMENTS
from pqjax.graph.ir import ArgMax, Graph
from pqjax.planner.price import Aim, Goal
from pqjax.schema import Length, Printable, check
from pqjax.wire.link import Link
from pqjax.wire.work import Rates

SLOWEST_MBPS, FASTEST_MBPS = 1e-6, 1e9  # of a link to plan for: its seconds stay finite
LONGEST_RTT_MS = 1e7
MOST_INFERENCES = 1 << 40  # of a client, to plan for
MOST_BATCH = 1 << 12
MOST_CLASSES = 1 << 15  # ImageNet has 21,841 in all

OBJECTIVES = ("bytes", "online", "total")
_ClassName = typing.Annotated[str, Length(1, 256), Printable()]
ClassNames = typing.Annotated[tuple[_ClassName, ...], Length(0, MOST_CLASSES)]


def goal_of(objective: str | None, link: Link | None, rates: Rates) -> Goal:
    """What is to be least, of one of `OBJECTIVES` or as the link says."""
    if objective is None:
        return link
    if objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise PlanError(f"unknown objective {shown(objective)}; known: {known}")
    return None if objective == "bytes" else Aim(objective == "online", link, rates)


def whole(name: str, wish: object, most: int) -> int:
    """A count of 1 to `most`, as it was given."""
    if type(wish) is not int or not 1 <= wish <= most:
        raise PlanError(f"{name}: 1 to {most} expected, got {shown(wish)}")
    return wish


def check_batch(graph: Graph, batch: int) -> None:
    """A batch's tensors are bounded as one input's are: whoever sent the plan."""
    largest = max(graph, key=lambda node: node.out.n)
    if batch * largest.out.n > MOST_ELEMENTS and batch > 1:
        raise PlanError(
            f"a batch's tensors have at most {MOST_ELEMENTS} elements, {batch} of {largest.name} have "
            f"{batch * largest.out.n}: plan for at most {max(1, MOST_ELEMENTS // largest.out.n)} inputs"
        )


def check_link(link: Link) -> None:
    """Refuses a link on which seconds would not be finite."""
    if not SLOWEST_MBPS <= link.mbps <= FASTEST_MBPS or link.rtt_ms > LONGEST_RTT_MS:
        raise PlanError(
            f"a link to plan for has {SLOWEST_MBPS:g} to {FASTEST_MBPS:g} Mbit/s and a round trip of at "
            f"most {LONGEST_RTT_MS:g} ms, got {link}"
        )


def check_class_names(graph: Graph, names: Sequence[str]) -> tuple[str, ...]:
    """Names of a graph's outputs, checked.

    Raises:
      PlanError: not strings, not printable, or not as many as the network tells classes apart.
    """
    if not isinstance(names, (list, tuple)):
        raise PlanError(f"class names are a list of strings, got {shown(names)}")
    try:
        check(ClassNames, tuple(names))
    except InputError as error:
        raise PlanError(f"class names are a list of strings: {error}") from error
    last = graph.output
    count = graph.source(last).n if isinstance(last, ArgMax) else last.out.n
    if len(names) != count:
        raise PlanError(f"the network tells {count} classes apart, but {len(names)} are named")
    return tuple(names)


def check_shorter(graph: Graph, shorter: int) -> None:
    """Checks what a picture's shorter side is scaled to before it is cut.

    Raises:
      PlanError: less than the input's, more than twice as much, or the input is no picture.
    """
    shape = graph.input.out.shape
    least = min(shape[:2]) if len(shape) == 3 else 0
    if type(shorter) is not int or not least <= shorter <= 2 * least:
        raise PlanError(
            f"pictures' shorter side: {least}..{2 * least} expected, for an input {shape}, got "
            f"{shown(shorter)}"
        )
