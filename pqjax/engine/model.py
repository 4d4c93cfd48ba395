"""A network as a server holds it: checked once, then the same for all its sessions."""

import dataclasses
import types

from pqjax.engine.execute import Loaded, load
from pqjax.engine.memory import check_memory
from pqjax.graph.ir import Weights
from pqjax.planner.plan import Plan, check_weights


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A plan and the weights it is served with; no session changes anything in it.

    Attributes:
      plan: what both parties agree on.
      layers: by layer, the parameters as its rule uses them, copies of the caller's.
    """

    plan: Plan
    layers: Loaded = dataclasses.field(repr=False)

    @classmethod
    def of(cls, plan: Plan, weights: Weights) -> "ServedModel":
        """Checks a model's parameters against its plan and makes them ready.

        Raises:
          GraphError: weights of another network, or a width that they show to be too small.
          PlanError: there is not memory enough.
        """
        check_memory(plan)
        check_weights(plan, weights)
        return cls(plan, types.MappingProxyType(dict(load(plan, weights))))
