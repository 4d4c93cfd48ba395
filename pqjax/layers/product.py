"""Products of two shared operands, by the way that was chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pqjax.graph.ir import Product
from pqjax.layers.rule import Multiplying, Setting, Share, Task
from pqjax.linear.choice import Choice
from pqjax.linear.job import Parts
from pqjax.linear.keys import Keys
from pqjax.linear.products import ProductJob
from pqjax.linear.shared import SHARED, ProductWay, product_way_of
from pqjax.protocols.party import Party


def product_job_of(task: Task) -> ProductJob:
    """What a node multiplies: every input's heads are heads of their own."""
    node, (a, b) = task.node, task.sources
    assert isinstance(node, Product)
    rows, columns = a.shape[0] * a.shape[1], node.out.shape[2] // node.heads
    shape = task.batch * node.heads, rows, node.terms(a), columns
    return ProductJob(*shape, a, b, node.out.bits, node.out.guard)


class ProductRule(Multiplying):
    """A product: its choice says in which way."""

    parts = ("key", "extension", "product", "wrap & mux", "ciphertexts", "reply")

    def unfit(self, task: Task) -> str | None:
        """Why a product cannot be computed as its choice says; None where it can."""
        assert task.choice is not None
        if task.choice.method not in SHARED:
            return "multiplies with the server's weights"
        return _way(task).unfit(product_job_of(task))

    def guards(self, choice: Choice) -> bool:
        """Whether shares made in a way have guard bits."""
        return product_way_of(choice).guards

    def options(self, task: Task, inferences: int) -> Sequence[Choice]:
        """Its choice with all that is to be found for the product."""
        assert task.choice is not None
        return _way(task).options(task.choice, product_job_of(task))

    def by_part(self, at: Setting, task: Task) -> Parts:
        """The cost of each of `parts` in every phase; those that are not there are left out."""
        return _way(task).parts(at.source, at.forms, product_job_of(task))

    def describe(self, task: Task) -> str:
        """The product's geometry in a sentence."""
        job = product_job_of(task)
        shape = f"({job.rows} x {job.terms}) ({job.terms} x {job.columns})"
        return f"A product of two shared operands {shape}, {job.heads} times, in {job.bits} bits"

    def prepare(self, party: Party, at: Setting, task: Task, own: Any, keys: Keys | None) -> object:
        """What needs no operand, in the product's way."""
        return _way(task).prepare(party, product_job_of(task), task.node.name)

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of the products."""
        job, node = product_job_of(task), task.node
        assert isinstance(node, Product)
        a, b = (_by_head(share, task.batch, node.heads) for share in x)
        right = b.swapaxes(1, 2) if node.transposed else b
        y = _way(task).run(party, at.forms, job, a, right, ready)
        y = y.reshape(task.batch, node.heads, job.rows, job.columns).swapaxes(1, 2)
        return np.ascontiguousarray(y).reshape(task.shape)


def _by_head(share: Share, batch: int, heads: int) -> Share:
    """(batch * heads, tokens, channels of a head)."""
    split = share.reshape(batch, -1, heads, share.shape[-1] // heads).swapaxes(1, 2)
    return split.reshape(-1, *split.shape[2:])


def _way(task: Task) -> ProductWay:
    assert task.choice is not None
    return product_way_of(task.choice)


PRODUCT = ProductRule()
