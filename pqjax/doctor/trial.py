"""A network of two layers, served and asked on loopback by two threads: whether all of it works here."""

import threading
import time

import numpy as np

from pqjax.engine.client import connect
from pqjax.engine.server import Server
from pqjax.errors import WireError
from pqjax.graph import Dense, Graph, Input, Relu, TensorType, reference
from pqjax.graph.ir import Weights
from pqjax.planner.choose import plan

_INPUTS, _OUTPUTS, _BITS, _SUM_BITS = 8, 4, 4, 12
_PATIENCE_S = 120.0  # kernels are compiled meanwhile


def trial_network() -> tuple[Graph, Weights]:
    """A dense layer and a comparison, always the same."""
    sums = TensorType((_OUTPUTS,), _SUM_BITS, 2)
    graph = Graph(
        (
            Input("x", (), TensorType((_INPUTS,), _BITS, 0, False)),
            Dense("dense", ("x",), sums, weight_bits=3, weight_scale=2),
            Relu("y", ("dense",), TensorType((_OUTPUTS,), _SUM_BITS, 2, nonnegative=True)),
        )
    )
    weight = np.arange(_INPUTS * _OUTPUTS, dtype=np.int8).reshape(_INPUTS, _OUTPUTS) % 8 - 4
    return graph, {
        "dense/weight": weight.astype(np.int8),
        "dense/bias": np.zeros(_OUTPUTS, np.int64),
    }


def try_out(deadline_s: float = _PATIENCE_S) -> float:
    """Serves it and asks, once; in how many seconds.

    Raises:
      PqjaxError: a connection or a session failed; says how.
      WireError: the answer is another than the integer network's, too.
    """
    begin = time.perf_counter()
    graph, weights = trial_network()
    x = np.arange(_INPUTS)
    server = Server(plan(graph), weights, "127.0.0.1:0", deadline_s=deadline_s)
    serving = threading.Thread(target=server.run, args=(1,), daemon=True)
    serving.start()
    try:
        with connect(server.address, deadline_s=deadline_s) as session:
            y = session.infer(x).output
    finally:
        server.close()
        serving.join(deadline_s)
    if not np.array_equal(y, np.asarray(reference(graph, weights, x))):
        raise WireError("the private answer is another than the integer network's")
    return time.perf_counter() - begin
