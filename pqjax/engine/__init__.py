"""Two parties at work: sessions, the server, the client, and both in one process."""

from pqjax.engine.client import connect
from pqjax.engine.local import run_local
from pqjax.engine.model import ServedModel
from pqjax.engine.server import Server, serve
from pqjax.engine.session import Result, Session
