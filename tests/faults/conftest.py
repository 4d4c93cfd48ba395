import pytest
from promotion import strict
from trial import PLAN, good_session, in_process, in_thread, still_serves

import pqjax
from pqjax.wire.tls import Tls, make_certificates


@pytest.fixture(autouse=True, scope="module")
def strict_from_the_start():
    """As all tests are: what is compiled for a module's fixtures is what its tests call."""
    with strict():
        yield


@pytest.fixture(scope="module")
def frames(strict_from_the_start):
    """All frames of a session of one inference, in order; a client of this process is warm then."""
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
        with pqjax.connect(server.address) as session:
            assert session.plan.digest == PLAN.digest  # so its frames are those that are known
        assert server.ended(10.0)
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
