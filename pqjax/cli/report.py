"""What --trace writes: a session, inference by inference, beside what was predicted."""

import json

from pqjax.engine.process import peak_bytes, write_private
from pqjax.errors import DataError
from pqjax.planner import Plan
from pqjax.wire.trace import PHASES, Trace


def report(plan: Plan, trace: Trace, seconds: dict, rank: int) -> dict:
    """A session as JSON: sums in all and for every inference, all entries, and what departs."""
    return {
        "protocol": plan.protocol,
        "rank": rank,
        "digest": plan.digest.hex(),
        "phases": _sums(trace),
        "inferences": [_sums(each) for each in trace.inferences],
        "seconds": seconds,
        "alive_bytes": dict(zip(("sent", "received"), trace.alive_bytes, strict=True)),
        "peak_bytes": peak_bytes(),
        "differences": plan.differences(trace, rank),
        "trace": trace.to_json(),
    }


def _sums(trace: Trace) -> dict:
    sums = {}
    for phase in PHASES:
        sums[phase] = dict(zip(("sent_bits", "received_bits"), trace.bits(phase), strict=True))
        sums[phase] |= zip(("sent_bytes", "received_bytes"), trace.bytes(phase), strict=True)
        sums[phase]["seconds"] = round(trace.seconds(phase), 4)
    return sums


def write_report(path: str | None, tree: dict) -> None:
    """Writes it where --trace says, if it does, for the owner alone.

    Raises:
      DataError: it cannot be written there.
    """
    if path:
        try:
            write_private(path, json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            raise DataError(f"cannot write the trace to {path}: {error}") from error
