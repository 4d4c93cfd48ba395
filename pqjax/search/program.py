"""The integer program: one width per layer, least loss under a limit; or least cost.

    minimise    sum_i loss_i(b) x_ib
    subject to  sum_b x_ib = 1,   x_ib in {0, 1}
                constant + sum_i own_i(b) x_ib + sum_ij pairs_ij(b, c) y_ijbc <= limit
                sum_c y_ijbc = x_ib,   sum_b y_ijbc = x_jc,   y >= 0

y is the product x_ib x_jc: where both x are 0 or 1, its sums leave it no other value.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping

import pulp

from pqjax.errors import PlanError
from pqjax.search.costs import Domains, Tables

_COST_SCALE = 1e4  # of the limit in the program: its tolerances are absolute
_LOSS_SCALE = 1e5  # of the largest loss that there can be

Losses = Mapping[str, Mapping[int, float]]


class WidthProgram:
    """A program that grows by cuts; `solve` gives the best widths left."""

    def __init__(self, domains: Domains, losses: Losses, tables: Tables, limit: float):
        self.domains = domains
        self.problem = pulp.LpProblem("widths", pulp.LpMinimize)
        self.x = {
            layer: {b: self._variable(f"x{i}_{b}", pulp.LpBinary) for b in fits}
            for i, (layer, fits) in enumerate(domains.items())
        }
        unit = _LOSS_SCALE / (sum(max(losses[x].values()) for x in domains) or 1.0)
        self.loss = pulp.lpSum(
            unit * losses[layer][b] * x for layer, of in self.x.items() for b, x in of.items()
        )
        for of in self.x.values():
            self.problem += pulp.lpSum(of.values()) == 1
        scale = _COST_SCALE / limit if limit < float("inf") else _COST_SCALE / _largest(tables)
        terms = [
            scale * table[b] * x
            for layer, table in tables.own.items()
            for b, x in self.x[layer].items()
        ]
        for n, ((layer, other), table) in enumerate(tables.pairs.items()):
            terms += self._pair(n, self.x[layer], self.x[other], table, scale)
        self.cost = pulp.lpSum(terms)
        self.problem.setObjective(self.loss)
        if limit < float("inf"):
            self.problem += self.cost <= scale * (limit - tables.constant)

    def _variable(self, name: str, category: str) -> pulp.LpVariable:
        with warnings.catch_warnings():  # some versions announce another way of making these
            warnings.simplefilter("ignore")
            return pulp.LpVariable(name, 0, cat=category)

    def _pair(self, n: int, one: Mapping, two: Mapping, table: Mapping, scale: float) -> list:
        both = itertools.product(one, two)
        y = {(b, c): self._variable(f"y{n}_{b}_{c}", pulp.LpContinuous) for b, c in both}
        for b, x in one.items():
            self.problem += pulp.lpSum(y[b, c] for c in two) == x
        for c, x in two.items():
            self.problem += pulp.lpSum(y[b, c] for b in one) == x
        return [scale * table[at] * v for at, v in y.items()]

    def minimise_cost(self) -> None:
        """Looks for the least cost instead of the least loss."""
        self.problem.setObjective(self.cost)

    def exclude(self, weights: Mapping[str, int]) -> None:
        """Cuts one assignment off."""
        chosen = [self.x[layer][b] for layer, b in weights.items()]
        self.problem += pulp.lpSum(chosen) <= len(chosen) - 1

    def solve(self) -> dict[str, int] | None:
        """The best assignment, or None if there is none.

        Raises:
          PlanError: the solver gave up.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = self.problem.solve(pulp.HiGHS(msg=False, gapRel=0.0, gapAbs=0.0))
        if status == pulp.LpStatusInfeasible:
            return None
        if status != pulp.LpStatusOptimal:
            raise PlanError(f"the solver ended with {pulp.LpStatus[status]!r}, not with an optimum")
        return {
            layer: max(of, key=lambda b, of=of: of[b].value() or 0.0)
            for layer, of in self.x.items()
        }


def _largest(tables: Tables) -> float:
    found = [sum(max(t.values()) for t in tables.own.values())]
    return sum(found, sum(max(t.values()) for t in tables.pairs.values())) or 1.0
