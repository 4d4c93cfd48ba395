"""Convolutions and dense layers: a product by the method that was chosen, then the server's bias."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Int

from pqjax.graph.ir import Conv, Dense, Weights
from pqjax.layers.rule import Pieces, Rule, Setting, Share, Task, make_ots
from pqjax.linear import ahead, on_shares
from pqjax.linear.ahead import Ready
from pqjax.linear.job import Encoded, Job
from pqjax.linear.map import LinearMap
from pqjax.linear.method import Method, method_of
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, total

_mapped = functools.lru_cache(maxsize=1 << 10)(LinearMap)


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Loaded:
    """A layer's parameters at the server: the weights as its method uses them, and the bias."""

    encoded: Encoded
    bias: Int[np.ndarray, " K"]


def job_of(task: Task) -> Job:
    """What a linear layer multiplies."""
    node, x = task.node, task.sources[0]
    assert isinstance(node, (Conv, Dense))
    if isinstance(node, Dense):
        geometry = LinearMap.pointwise((1, 1), x.n, node.out.n)
    else:
        high, wide, channels = x.shape
        windows = node.kernel, node.stride, node.padding, node.dilation
        geometry = _mapped((high, wide), *windows, node.groups, channels, node.out.shape[2])
    return Job(geometry, node.weight_bits, x, node.out.bits)


class LinearRule(Rule):
    """A linear layer: its choice says by which method, and whether ahead or on the shared operand."""

    parts = (
        "extension",
        "product",
        "wrap & mux",
        "masked input",
    )  # of a cost, as reports call them

    def unfit(self, task: Task) -> str | None:
        """Why a layer cannot be computed as its choice says; None where it can."""
        method, job = _method(task), job_of(task)
        if not _ahead(task):
            return method.fits(job, plain=False)
        if method.extended(job) < job.bits:
            return "extends its operand, which nobody has ahead: only `full` variants do not"
        if job.x.bits < job.bits and not task.own:
            return (
                f"needs an operand of {job.bits} bits, got {job.x.bits}: its preset lacks a pass that "
                "extends operands"
            )
        return method.fits(job, task.own)

    def by_part(self, at: Setting, task: Task) -> dict[str, Cost]:
        """The cost of each of `parts`; those that are not there are left out."""
        method, job = _method(task), job_of(task)
        if _ahead(task):
            offline, online = ahead.ahead_cost(at.source, method, job)
            return {"product": offline, "masked input": online}
        return {
            "extension": on_shares.extension_cost(at.source, method, job, at.forms),
            "product": method.cost(at.source, job),
            "wrap & mux": on_shares.wraps_cost(at.source, method, job, at.forms),
        }

    def cost(self, at: Setting, task: Task) -> Pieces:
        """One piece in a phase."""
        parts = tuple(self.by_part(at, task).values())
        return Pieces(parts[:1], parts[1:]) if _ahead(task) else Pieces(online=(total(parts),))

    def describe(self, task: Task) -> str:
        """The layer's geometry in a sentence."""
        job = job_of(task)
        m = job.map
        groups = f"in {m.groups} groups, each " if m.groups > 1 else ""
        shape = f"({m.fan_out} x {m.terms}) ({m.terms} x {m.out_image[0] * m.out_image[1]})"
        return f"As a product {groups}{shape}, accumulated in {job.bits} bits"

    def load(self, task: Task, weights: Weights) -> Loaded:
        """Weights encoded once, bias at the accumulator's scale."""
        name = task.node.name
        encoded = _method(task).encode(job_of(task), np.asarray(weights[f"{name}/weight"]))
        bias = np.array(weights[f"{name}/bias"])
        bias.flags.writeable = False
        return Loaded(encoded, bias)

    def prepare(self, party: Party, at: Setting, task: Task, own: Any) -> Ready | None:
        """The product on a share that the client draws, where the choice says so."""
        if not _ahead(task):
            return None
        make_ots(party, at, lambda: self.cost(at, task).offline[0])
        method, job = _method(task), job_of(task)
        if party.rank == 1:
            return ahead.prepare_ask(party, method, job)
        return ahead.prepare_serve(party, method, job, own.encoded)

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of W x + b."""
        method, job = _method(task), job_of(task)
        share = x[0].reshape(job.map.in_shape)
        if _ahead(task):
            # The client has its own input in the clear; any other operand was extended before.
            lift = task.own and job.x.signed
            share = Ring(job.bits).reduce(Ring(job.x.bits).signed(share) if lift else share)
        else:
            make_ots(party, at, lambda: self.cost(at, task).online[0])
        if party.rank == 1:
            if _ahead(task):
                y = ahead.ask(party, job, share, ready)
            else:
                y = on_shares.ask(party, method, job, share, at.forms)
            return y.reshape(task.node.out.shape)
        ring = Ring(job.bits)
        if _ahead(task):
            y = ahead.serve(party, job, own.encoded, share, ready)
        else:
            y = on_shares.serve(party, method, job, own.encoded, share, at.forms)
        return ring.add(y, ring.reduce(own.bias)).reshape(task.node.out.shape)


def _method(task: Task) -> Method:
    assert task.choice is not None
    return method_of(task.choice)


def _ahead(task: Task) -> bool:
    assert task.choice is not None
    return task.choice.when == "ahead"


LINEAR = LinearRule()
