"""Bit widths whose plan keeps to a limit, at the least expected loss."""

from pqjax.search.costs import Limit, parse_bits
from pqjax.search.optimum import Found, Space, loss_of, search, widths_report

__all__ = ["Found", "Limit", "Space", "loss_of", "parse_bits", "search", "widths_report"]
