"""Plans of networks that were served before: choosing takes seconds, reading what was chosen does not.

A file's name is the digest of all that a plan is made of: the graph and what is told of its answers,
what was asked for, this machine's rates, and this code.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pqjax
from pqjax.errors import PqjaxError
from pqjax.graph import Graph
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Plan
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.work import Rates


def kept_plan(
    folder: pathlib.Path,
    wishes: Mapping[str, Any],
    graph: Graph,
    meta: Mapping[str, Any],
    rates: Rates,
    make: Callable[[], Plan],
) -> Plan:
    """The plan in the folder, or the one that is made now and kept there.

    Args:
      folder: it may not be there; a plan that cannot be kept is served all the same.
      wishes: what is asked for.
      graph: the network.
      meta: what its file says of it.
      rates: by which it is planned.
      make: plans.
    """
    told = {"classes": meta.get("classes"), "shorter": meta.get("shorter")}
    of = [dict(wishes), told, graph.tree(), dataclasses.asdict(rates), _code()]
    path = folder / f"{hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()}.plan"
    with contextlib.suppress(OSError, PqjaxError):  # none there, or a damaged one
        return read_plan(path.read_bytes(), DEADLINE_S)
    made = make()
    part = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(made.document)
        os.replace(part, path)
    return made


@functools.cache
def _code() -> list[tuple[str, int, int]]:
    """What tells this code from any other: its files, their sizes and times."""
    root = pathlib.Path(pqjax.__file__).parent
    files = sorted(root.rglob("*.py"))
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
