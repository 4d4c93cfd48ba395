"""Which ways there are to multiply two shared operands, by the methods that choices name."""

from pqjax.linear import products_by_ot, products_by_rlwe
from pqjax.linear.choice import Choice
from pqjax.linear.products import ProductWay
from pqjax.linear.products_by_ot import ProductsByOt
from pqjax.linear.products_by_rlwe import ProductsByRlwe

# Methods, and the names of their variants.
SHARED = {"shared-ot": tuple(products_by_ot.VARIANTS), "shared-rlwe": products_by_rlwe.VARIANTS}


def product_way_of(choice: Choice) -> ProductWay:
    """The way that a choice names."""
    if choice.method == "shared-rlwe":
        return ProductsByRlwe(choice.packing)
    return ProductsByOt(choice.variant)
