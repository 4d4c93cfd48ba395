"""Linear layers: one map for dense layers and convolutions, a method for every way to multiply.

A `Method` makes shares of W c for rank 0's weights and rank 1's numbers. `on_shares` and `ahead` make of
any of them a layer on a shared operand.
"""

from pqjax.linear.ahead import ahead_cost
from pqjax.linear.by_ot import ByOt
from pqjax.linear.choice import FULL, PRIVQUANT, VARIANTS, Choice
from pqjax.linear.job import Encoded, Job
from pqjax.linear.map import LinearMap
from pqjax.linear.method import Method, method_of
from pqjax.linear.on_shares import on_shares_cost
