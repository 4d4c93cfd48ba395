"""Two parties at work: sessions, the server, the client, and both in one process."""

from pqjax.engine.client import Result, Session, connect
from pqjax.engine.local import run_local
from pqjax.engine.model import ServedModel
from pqjax.engine.server import Server, serve

__all__ = ["Result", "ServedModel", "Server", "Session", "connect", "run_local", "serve"]
