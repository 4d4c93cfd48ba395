"""Private inference of quantized networks: two parties, exact integers, known cost.

A server holds a network's weights, a client an input; together they compute the answer, which only
the client learns. Semi-honest security; see SECURITY.md for what is promised and what leaks.
"""

from pqjax.engine import Result, Server, Session, connect, run_local, serve
from pqjax.errors import PqjaxError
from pqjax.graph import Graph, load_model, reference, save_model, validate
from pqjax.planner import Plan, plan
from pqjax.version import VERSION
from pqjax.wire.link import Link, parse_link
from pqjax.wire.tls import Tls, make_certificates

__version__ = VERSION

__all__ = [
    "Graph", "Link", "Plan", "PqjaxError", "Result", "Server", "Session", "Tls", "connect",
    "load_model", "make_certificates", "parse_link", "plan", "reference", "run_local", "save_model",
    "serve", "validate",
]  # fmt: skip
