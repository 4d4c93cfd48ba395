"""Applications of `pqjax.web`, asked over real HTTP on loopback."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import httpx
from starlette.types import ASGIApp

from pqjax.web.listening import Listening

WAIT_S = 60.0


@contextlib.contextmanager
def listening(make: Callable[[set[str]], ASGIApp]) -> Iterator[str]:
    """Serves what is made for the names by which it is asked, in a thread; yields "host:port"."""
    with Listening("127.0.0.1:0") as at:
        thread = threading.Thread(target=at.serve, args=(make(at.hosts),), daemon=True)
        thread.start()
        try:
            yield at.address
        finally:
            at.stop()
            thread.join(20)
            assert not thread.is_alive()


def client(address: str, **headers: str) -> httpx.Client:
    """A client that keeps cookies and follows nothing."""
    return httpx.Client(
        base_url=f"http://{address}", headers=headers, timeout=WAIT_S, trust_env=False
    )
