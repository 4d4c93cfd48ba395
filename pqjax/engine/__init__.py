"""Two parties at work: sessions, the server, the client, and both in one process."""

from pqjax.engine.session import Result, Server, Session, connect, run_local, serve

__all__ = ["Result", "Server", "Session", "connect", "run_local", "serve"]
