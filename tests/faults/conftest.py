import pytest
from trial import good_session, in_process, in_thread, still_serves

from pqjax.wire.tls import Tls, make_certificates


@pytest.fixture(scope="session")
def frames():
    """All frames of a session of one inference, in order."""
    return good_session()


@pytest.fixture(scope="module")
def here(frames):
    """A server in this process."""
    with in_thread() as server:
        yield server


@pytest.fixture(scope="module")
def served(frames, tmp_path_factory):
    """A server in a process of its own, warm."""
    with in_process(tmp_path_factory.mktemp("served")) as server:
        still_serves(server)
        yield server


@pytest.fixture(scope="module")
def certified(frames, tmp_path_factory):
    """The same behind TLS, and a client's certificates."""
    pytest.importorskip("cryptography", reason="certificates need pqjax[tls]")
    folder = tmp_path_factory.mktemp("certified")
    make_certificates(folder)
    tls = Tls(*(folder / name for name in ("client.pem", "client.key", "ca.pem")))
    with in_process(folder, "--tls", folder) as server:
        still_serves(server, tls=tls)
        yield server, tls
