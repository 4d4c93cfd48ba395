import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from peers import accept_wire

from pqjax.wire.channel import DEADLINE_S, WINDOW_BYTES, local_pair
from pqjax.wire.listener import Listener
from pqjax.wire.tcp import dial
from pqjax.wire.tls import Tls, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """(server's, client's) TLS files under one authority."""
    pytest.importorskip("cryptography", reason="certificates need pqjax[tls]")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return tuple(
        Tls(folder / f"{role}.pem", folder / f"{role}.key", folder / "ca.pem")
        for role in ("server", "client")
    )


@pytest.fixture
def no_thread_left():
    """Holds the test to having ended every wire's I/O thread."""
    before = set(threading.enumerate())
    yield
    begun = set(threading.enumerate()) - before
    assert [thread.name for thread in begun if thread.name == "pqjax-wire"] == []


@pytest.fixture(params=["local", "tcp", "tls"])
def join(request, no_thread_left):
    """Makes (server's end, client's end) of a wire, of every kind there is."""
    tls = request.getfixturevalue("certificates") if request.param == "tls" else (None, None)

    with contextlib.ExitStack() as stack:

        def make(deadline_s=DEADLINE_S, window_bytes=WINDOW_BYTES):
            options = {"deadline_s": deadline_s, "window_bytes": window_bytes}
            if request.param == "local":
                pair = local_pair(**options)
            else:
                with (
                    Listener("127.0.0.1:0", tls=tls[0]) as listener,
                    ThreadPoolExecutor(1) as pool,
                ):
                    dialled = pool.submit(dial, listener.address, tls=tls[1], **options)
                    pair = accept_wire(listener, **options), dialled.result()
            for wire in pair:
                stack.callback(wire.abort)
            return pair

        make.kind = request.param
        yield make
