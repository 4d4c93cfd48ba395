"""What `pqjax serve` says before it listens: which network, how wide, and what an inference moves."""

from collections.abc import Iterable

from pqjax.graph.ir import Linear
from pqjax.planner import Plan
from pqjax.planner.report import format_of

_MOST_NAMES = 5


def describe(made: Plan, model: str) -> list[str]:
    """The served network in a few lines."""
    graph = made.source
    linear = [node for node in graph if isinstance(node, Linear)]
    given, out = graph.input.out, graph.output.out
    weights = _numbers(node.weight_bits for node in linear)
    read = _numbers(graph.source(node).bits for node in linear)
    once = made.cost("setup").bits
    phases = ", ".join(f"{_mb(made.cost(phase).bits)} {phase}" for phase in ("offline", "online"))
    sent = made.cost("offline") + made.cost("online")
    there, back = (_mb(bits) for bits in sent.sent)
    return [
        f"serving {model}: {len(linear)} linear layers, protocol {made.protocol}",
        f"input {_shape(given.shape)} {format_of(given)}, answer {_shape(out.shape)} {format_of(out)}: "
        + _classes(made.classes),
        f"widths: weights of {weights} bits, layers that read {read} bits",
        f"an inference{_inputs(made.batch)}: {phases} ({there} from the server, {back} from the "
        f"client); {_mb(once)} once a session",
    ]


def _inputs(batch: int) -> str:
    return "" if batch == 1 else f" of {batch} inputs"


def _classes(names: tuple[str, ...]) -> str:
    """How many classes there are, and what the first are called."""
    if not names:
        return "no class names"
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"{len(names)} classes ({', '.join(names[:_MOST_NAMES])}{more})"


def _numbers(values: Iterable[int]) -> str:
    """The numbers that occur, for instance 2, 4-8."""
    found = sorted(set(values))
    runs: list[list[int]] = []
    for n in found:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "no"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _mb(bits: int) -> str:
    return f"{bits / 8e6:.3f} MB"
