"""What a network's integers say: the likeliest of its classes, by name."""

import typing
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from pqjax.graph import Graph


def likeliest(
    graph: Graph, y: Int[np.ndarray, "*shape"], labels: Sequence[str], top: int
) -> list[dict[str, typing.Any]]:
    """The classes of the largest outputs, by number, name and score (the output as a real number).

    Of a network that answers with a class, that one, without a score; of one whose output is no vector,
    none. Names are the server's, so what could steer a terminal is left out; so is what it answers, and
    a number that is no class has no name.
    """
    if y.ndim != 1:
        return []
    one = y.size == 1
    order = [int(y[0])] if one else np.argsort(-y, kind="stable")[:top].tolist()
    found = []
    for i in order:
        known = labels[i] if 0 <= i < len(labels) else None
        name = None if known is None else "".join(c for c in known if c.isprintable())
        score = None if one else float(y[i]) * 2.0**-graph.output.out.scale
        found.append({"class": i, "name": name, "score": score})
    return found
