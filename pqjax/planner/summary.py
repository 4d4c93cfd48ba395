"""A plan as a tree of JSON's types, for scripts."""

import typing

from pqjax.planner.plan import KEYS_LAYER, Plan, Step
from pqjax.planner.report import belongs
from pqjax.wire.cost import Cost, total
from pqjax.wire.timeline import Timeline


def summary(plan: Plan, layer: str | None = None) -> dict[str, typing.Any]:
    """What a first inference costs in all and step by step; bytes are rounded up, once per number.

    `linear_bytes` are those of linear layers and products with every inference, their OTs included;
    `install_bytes` what a client gets once; `predicted` the seconds of each phase of a later inference,
    of computing and messages, `install` that of a first one; `seconds` what the network alone takes of
    offline and online phase, without a link None; `exact` whether sums of linear layers are never off by
    one. All of it is of a whole `batch`. With the name of a layer: the steps made of it.
    """
    phases = {phase: plan.cost(phase) for phase in ("setup", "install", "offline", "online")}
    steps = [s for s in plan.steps if layer is None or belongs(s.node.name, layer)]
    linear = total([s.cost.both for s in plan.steps if s.node.multiplies])
    linear += plan.cost("offline", KEYS_LAYER) + plan.preset.source.share(linear.rots)
    return {
        "protocol": plan.protocol,
        "version": plan.version,
        "digest": plan.digest.hex(),
        "exact": plan.preset.exact,
        "inferences": plan.preset.inferences,
        "batch": plan.batch,
        "link": None if plan.link is None else str(plan.link),
        **{f"{phase}_bytes": _bytes(cost) for phase, cost in phases.items()},
        "linear_bytes": _bytes(linear),
        "flows": (phases["offline"] + phases["online"]).flows,
        "seconds": None if plan.link is None else plan.seconds(),
        "predicted": {
            "rates": plan.rates.source,
            **plan.predicted(),
            "install": plan.predicted(inference=0)["install"],
        },
        "streamed": plan.streamed,
        "steps": [_step(plan, step) for step in steps],
    }


def _bytes(cost: Cost) -> int:
    return -(-cost.bits // 8)


def _step(plan: Plan, step: Step) -> dict[str, typing.Any]:
    node, both, line = step.node, step.cost.both, Timeline(plan.link, plan.rates)
    return {
        "layer": node.name,
        "kind": node.kind,
        "sources": list(node.sources),
        "shape": list(node.out.shape),
        "bits": node.out.bits,
        "scale": node.out.scale,
        "signed": node.out.signed,
        "nonnegative": node.out.low == 0,
        "choice": None if step.task.choice is None else str(step.task.choice),
        "guard": node.out.guard,
        "install_bits": step.cost.install.bits,
        "offline_bits": step.cost.offline.bits,
        "online_bits": step.cost.online.bits,
        "stored_ots": sum(both.rots),
        "flows": both.flows,
        "offline_seconds": line.seconds(step.cost.offline),
        "online_seconds": line.seconds(step.cost.online),
    }
