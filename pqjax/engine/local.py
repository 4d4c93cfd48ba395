"""Both parties in one process, over a local wire: the same code, bits and checks as over TCP."""

import numpy as np
from jaxtyping import Integer

from pqjax.engine.model import ServedModel
from pqjax.engine.session import Result, Session, check_batch
from pqjax.engine.visit import Visit
from pqjax.engine.worker import serve_session
from pqjax.errors import GraphError, InputError
from pqjax.graph.ir import Weights
from pqjax.planner.plan import Plan
from pqjax.protocols.party import make_party, run_pair
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_client, greet_server, only
from pqjax.wire.interface import Wire


def run_local(
    plan: Plan, weights: Weights, x: Integer[np.ndarray, "*shape"], deadline_s: float = DEADLINE_S
) -> Result:
    """One inference between two threads; the client's result, with its trace.

    Raises:
      InputError: the weights do not fit the plan, or the input does not.
    """
    try:
        model = ServedModel.of(plan, weights)
    except GraphError as error:
        raise InputError(f"the weights do not fit the plan: {error}") from error
    check_batch(plan, x)

    def server(wire: Wire) -> None:
        greet_client(wire, only(plan.document))
        serve_session(wire, model, Visit(wire))
        wire.close()

    def client(wire: Wire) -> Result:
        greet_server(wire, plan.digest)
        with Session(
            make_party(wire, 1, plan.preset.source, tuning=plan.preset.tuning), plan
        ) as session:
            return session.infer(x)

    return run_pair(server, client, deadline_s)[1]
