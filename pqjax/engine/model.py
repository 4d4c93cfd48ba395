"""A network as a server holds it: checked once, then the same for all its sessions."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

import numpy as np

from pqjax.graph.ir import Weights
from pqjax.planner.plan import Plan, check_weights


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A plan and the weights it is served with; no session changes anything in it.

    Attributes:
      plan: what both parties agree on.
      weights: values that fit the plan's widths, as read-only views of the caller's arrays; whoever
        writes to those writes to what is served.
      encoded: what the layers' methods made of the weights, by layer.
    """

    plan: Plan
    weights: Weights = dataclasses.field(repr=False)
    encoded: Mapping[str, object] = dataclasses.field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, weights: Weights) -> ServedModel:
        """Checks a model's parameters against its plan.

        Raises:
          GraphError: weights of another network, or a width that they show to be too small.
        """
        check_weights(plan, weights)
        views = {name: np.asarray(weight).view() for name, weight in weights.items()}
        for view in views.values():
            view.flags.writeable = False
        return cls(plan, types.MappingProxyType(views))
