"""Two parties at work: sessions, the server, the client, and both in one process."""

from pqjax.engine.server import Server, serve
from pqjax.engine.session import Result, Session, connect, run_local

__all__ = ["Result", "Server", "Session", "connect", "run_local", "serve"]
