"""A network as a server holds it: checked once, then the same for all its sessions."""

import dataclasses
import pathlib

import numpy as np

from pqjax.engine.execute import Own, Progress, load, make_hints
from pqjax.engine.hints import Hints, find_made, header, keep_made, weights_digest
from pqjax.engine.memory import check_memory
from pqjax.errors import CheckpointError
from pqjax.graph.ir import Weights
from pqjax.he import Version
from pqjax.planner.plan import Plan, check_weights


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A plan and the weights it is served with; no session changes anything in it.

    Attributes:
      plan: what both parties agree on.
      own: by layer, the parameters as its rule uses them, copies of the caller's.
      hints: what clients get once, where any layer has hints.
      identity: secret: which weights these are, and which version of their hints.
    """

    plan: Plan
    own: Own = dataclasses.field(repr=False)
    hints: Hints | None = dataclasses.field(default=None, repr=False)
    identity: bytes = dataclasses.field(default=b"", repr=False)

    @classmethod
    def of(
        cls,
        plan: Plan,
        weights: Weights,
        folder: pathlib.Path | str | None = None,
        progress: Progress | None = None,
    ) -> "ServedModel":
        """Checks a model's parameters against its plan and makes them ready.

        Hints are taken from the folder, where they are there, or made and kept in it. Without a folder
        they are made anew, which takes a minute for a large network, and are a new version's.

        Raises:
          GraphError: weights of another network, or a width that they show to be too small.
          PlanError: there is not memory enough.
          CheckpointError: hints in the folder are damaged.
        """
        check_memory(plan)
        check_weights(plan, weights)
        place = pathlib.Path(folder) if folder is not None and plan.hinted else None
        kept = find_made(place, plan, weights) if place else None
        if kept is not None and kept.hints is not None:
            which = weights_digest(weights) + kept.hints.digest
            return cls(plan, load(plan, weights, kept.version), kept.hints, which)
        version = Version.fresh() if kept is None else kept.version
        made = cls.of_version(plan, weights, version, progress)
        if place and made.hints is not None:
            if kept is not None and made.hints.digest != kept.digest:
                raise CheckpointError(
                    f"the key in {place} makes other hints than it did: delete it, for two hints under "
                    "one key must not be given away"
                )
            keep_made(place, plan, weights, version, made.hints)
        return made

    @classmethod
    def of_version(
        cls, plan: Plan, weights: Weights, version: Version, progress: Progress | None = None
    ) -> "ServedModel":
        """Weights that were checked, with hints of this version; no other weights may have it."""
        own, which = load(plan, weights, version), weights_digest(weights)
        if not plan.hinted:
            return cls(plan, own, identity=which)
        head = np.frombuffer(header(plan, version.seed), np.uint8)
        whole = np.concatenate([head, *make_hints(plan, own, version, progress)])
        hints = Hints.of(whole)
        return cls(plan, own, hints, which + hints.digest)
