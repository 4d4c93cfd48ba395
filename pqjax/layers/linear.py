"""Convolutions and dense layers: a product by the method that was chosen, then the server's bias."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np

from pqjax.errors import PlanError
from pqjax.graph.ir import Conv, Dense, Weights
from pqjax.layers.rule import Pieces, Rule, Setting, Share, Task, make_ots
from pqjax.linear.choice import Choice
from pqjax.protocols import grouped_ot, linear_ot
from pqjax.protocols.compare import known_wrap_cost, less_than_cost
from pqjax.protocols.party import Party
from pqjax.protocols.resize import extend_cost
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, message


@dataclasses.dataclass(frozen=True, repr=False)
class Loaded:
    weights: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Ready:
    drawn: np.ndarray | None
    share: np.ndarray


def product_of(task: Task):
    node, source, groups = task.node, task.sources[0], 1
    assert isinstance(node, (Conv, Dense)) and task.choice is not None
    if isinstance(node, Conv):
        groups = node.groups
        d2 = node.kernel[0] * node.kernel[1] * source.shape[2] // groups
        d3 = node.out.shape[0] * node.out.shape[1]
    else:
        d2, d3 = source.shape[0], 1
    product = linear_ot.Product(
        node.out.shape[-1] // groups, d2, d3, node.weight_bits, source.bits, source.signed,
        source.nonnegative, node.out.bits, task.choice.variant,
    )  # fmt: skip
    if groups == 1:
        return product
    assert isinstance(node, Conv)
    window = grouped_ot.Window(source.shape[:2], node.kernel, node.stride, node.padding)
    return grouped_ot.GroupedProduct(product, groups, source.shape[2] // groups, window)


class LinearRule(Rule):
    def unfit(self, task: Task) -> str | None:
        p = product_of(task)
        each = p.each if isinstance(p, grouped_ot.GroupedProduct) else p
        if isinstance(p, grouped_ot.GroupedProduct) and not p.window.reading:
            return "its outputs read nothing but padding"
        if task.choice.variant not in linear_ot.FULL and task.choice.when == "ahead":
            return "not ahead"
        why = linear_ot.product_unfit(each, task.own)
        return why

    parts = ("extension", "product", "wrap & mux", "masked input")

    def describe(self, task):
        return "As"

    def by_part(self, at: Setting, task: Task) -> dict[str, Cost]:
        p, node, source = product_of(task), task.node, task.sources[0]
        grouped = isinstance(p, grouped_ot.GroupedProduct)
        core = (grouped_ot.grouped_bits_cost if grouped else linear_ot.product_bits_cost)(at.source, p)
        if task.choice.when == "ahead":
            return {"product": core, "masked input": message(1, source.n * node.out.bits)}
        whole = (grouped_ot.multiply_grouped_cost if grouped else linear_ot.multiply_cost)(at.source, p, at.forms)
        each, n = (p.each, p.pixels) if grouped else (p, p.d2 * p.d3)
        wide = Cost()
        if each.variant not in linear_ot.FULL:
            wide = extend_cost(at.source, n, each.x_bits, each.extended, each.x_signed, each.x_nonnegative, at.forms)
        return {"extension": wide, "product": core, "whole": whole}

    def cost(self, at: Setting, task: Task) -> Pieces:
        parts = self.by_part(at, task)
        if task.choice.when == "ahead":
            return Pieces((parts["product"],), (parts["masked input"],))
        return Pieces(online=(parts["whole"],))

    def load(self, task: Task, weights: Weights) -> Loaded:
        w, b = (np.asarray(weights[f"{task.node.name}/{x}"]) for x in ("weight", "bias"))
        if not isinstance(product_of(task), grouped_ot.GroupedProduct):
            w = np.ascontiguousarray(w.reshape(-1, w.shape[-1]).T)
        return Loaded(w, b)

    def _columns(self, node, x):
        if isinstance(node, Conv):
            return linear_ot.patches(x, node.kernel, node.stride, node.padding)
        return x.reshape(-1, 1)

    def prepare(self, party: Party, at: Setting, task: Task, own: object) -> Ready | None:
        if task.choice.when != "ahead":
            return None
        make_ots(party, at, lambda: self.cost(at, task).offline[0])
        p, node, ring = product_of(task), task.node, Ring(task.node.out.bits)
        w = own.weights if own is not None else None
        drawn = None
        if party.rank == 1:
            shape = task.sources[0].shape
            drawn = party.randomness.elements(int(np.prod(shape)), ring).reshape(shape)
        if isinstance(p, grouped_ot.GroupedProduct):
            return Ready(drawn, grouped_ot.grouped_bits(party, p, w, drawn))
        columns = None if drawn is None else self._columns(node, drawn)
        return Ready(drawn, _shaped(node, linear_ot.product_bits(party, p, w, columns)))

    def run(self, party: Party, at: Setting, task: Task, own: object, ready: object, *x: Share) -> Share:
        p, node, ring, x = product_of(task), task.node, Ring(task.node.out.bits), x[0]
        grouped = isinstance(p, grouped_ot.GroupedProduct)
        w = own.weights if own is not None else None
        if task.choice.when != "ahead":
            make_ots(party, at, lambda: self.cost(at, task).online[0])
            if grouped:
                y = grouped_ot.multiply_grouped(party, p, w, x, at.forms)
            else:
                y = _shaped(node, linear_ot.multiply(party, p, w, self._columns(node, x), at.forms))
        else:
            source = task.sources[0]
            wide = ring.reduce(Ring(source.bits).signed(x) if task.own and source.signed else x)
            if party.rank == 1:
                with party.messenger.step("masked input"):
                    party.messenger.send_elements(ring.sub(wide, ready.drawn), ring)
                y = ready.share
            else:
                with party.messenger.step("masked input"):
                    difference = party.messenger.receive_elements(wide.size, ring).reshape(wide.shape)
                total = ring.add(wide, difference)
                if grouped:
                    y = grouped_ot.convolve_plain(w, total, p)
                else:
                    y = _shaped(node, linear_ot.multiply_plain(w, self._columns(node, total), p))
                y = ring.add(ready.share, y)
        return ring.add(y, ring.reduce(own.bias)) if party.rank == 0 else y


def _shaped(node, y):
    return np.ascontiguousarray(y.T).reshape(node.out.shape)


METHODS = {"ot": linear_ot}
LINEAR = LinearRule()
