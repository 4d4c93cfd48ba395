"""A replica alone, without Ray: who has a ticket of its is let in, once; and what its door reads."""

import threading
import time

import numpy as np
import pytest
from serving import GRAPH, WEIGHTS, X

import pqjax
from pqjax.errors import InputError, Refused
from pqjax.fleet.deployment import Deployment
from pqjax.fleet.door import Question
from pqjax.fleet.replica import Replica
from pqjax.fleet.scaling import Scale
from pqjax.service.offer import Offer
from pqjax.wire.tls import Tls

HERE = "127.0.0.1"


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def refused(address, ticket):
    with pytest.raises(Refused, match="takes clients that its directory has sent") as caught:
        pqjax.connect(address, ticket=ticket)
    return caught.value.reason


def test_a_replica_lets_in_whom_it_has_given_a_ticket(tmp_path):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    offer = Offer((("net", str(tmp_path / "net.npz")),), hints=str(tmp_path / "hints"))
    replica = Replica(Deployment(offer, Scale(seats=1)), HERE)
    assert replica.issue(HERE)[0] is None  # it reads the models
    until(lambda: replica.state()["open"])

    ticket, state = replica.issue(HERE)
    assert ticket is not None and state["owners"] == {HERE: 1} and not state["over"]
    assert replica.issue("somebody")[0] is None  # the ticket holds the one seat
    assert refused(state["address"], b"") == refused(state["address"], bytes(32)) == "no ticket"
    with pqjax.connect(state["address"], ticket=ticket) as session:
        assert refused(state["address"], ticket) == "no ticket"
        assert replica.state()["owners"] == {HERE: 1} and replica.issue(HERE)[0] is None
        y = session.infer(X).output
    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    until(lambda: not replica.state()["owners"])
    stolen, _ = replica.issue("certificate " + 64 * "0")
    assert stolen is not None and refused(state["address"], stolen) == "no ticket"

    replica.drain()
    until(lambda: replica.state()["over"])
    assert replica.issue(HERE)[0] is None and replica.state()["failed"] == ""
    assert "pqjax-front" not in [thread.name for thread in threading.enumerate()]


def test_a_replica_that_cannot_serve_says_why(tmp_path):
    offer = Offer((("net", str(tmp_path / "net.npz")),))

    state = Replica(Deployment(offer), "192.0.2.1").state()

    assert state["over"] and not state["open"]
    assert "not a loopback address: give certificates" in state["failed"]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"cores": 0}, "at least 1 core"),
        ({"each": 0}, "at least 1 session"),
        ({"answers": 0}, "at least 1 answer a day"),
        ({"memory_bytes": 0}, "memory_bytes: at least 1"),
    ],
)
def test_a_deployment_of_nothing_is_an_input_error(wrong, said):
    with pytest.raises(InputError, match=said):
        Deployment(Offer((("a", "a.npz"),)), **wrong)


def test_what_is_not_there_is_said_before_anything_starts(tmp_path):
    absent = Offer((("a", str(tmp_path / "a.npz")),))
    with pytest.raises(InputError, match="no network file at"):
        Deployment(absent).check_files()

    (tmp_path / "a.npz").touch()
    with pytest.raises(InputError, match="cannot read the TLS file"):
        Deployment(absent, tls=Tls("no.pem", "no.key", "no.pem")).check_files()


def test_models_are_asked_for_by_name_with_a_version_or_without():
    offer = Offer((("cats@1", "a.npz"), ("cats@2", "b.npz"), ("dogs", "c.npz")))

    assert Deployment(offer).titles == {"cats", "cats@1", "cats@2", "dogs"}


def test_a_door_reads_what_clients_ask():
    owner = "certificate " + 32 * "0a"

    assert Question.of(b"") == Question()
    whole = b'{"model": "cats@2", "owner": "%s", "wait_s": 60}' % owner.encode()
    assert Question.of(whole) == Question("cats@2", owner, 60)


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"{", b'{"models": "a"}', b'{"model": 7}', b'{"wait_s": 61}', b'{"wait_s": 1.5}',
        b'{"wait_s": -1}', b'{"owner": "127.0.0.1"}', b'{"owner": "certificate 00"}',
        b'{"model": "\\u001b[2J"}', b'{"model": "' + 200 * b"a" + b'"}', b" " * 5000 + b"{}",
    ],
)  # fmt: skip
def test_a_door_refuses_everything_else(body):
    with pytest.raises(InputError):
        Question.of(body)
