"""What a client makes of the plan that a server sends it."""

import threading

import pytest
from hostile import canonical
from networks import random_network
from peers import accept_wire

import pqjax
from pqjax.engine import client
from pqjax.errors import PlanError
from pqjax.planner import read_plan
from pqjax.wire.handshake import greet_client, only
from pqjax.wire.listener import Listener

PLAN = pqjax.plan(random_network(3)[0])


def connected(document, **options):
    """Connects to a server that sends this document and says no more."""
    listener = Listener("127.0.0.1:0")

    def serve():
        wire = accept_wire(listener)
        greet_client(wire, only(document))
        wire.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        return pqjax.connect(listener.address, **options)
    finally:
        listener.close()
        thread.join(30)


def test_a_document_that_is_no_plan_is_one_plan_error():
    for document in (b"[" * 100_000, canonical({"format": 2}), PLAN.document + b" "):
        with pytest.raises(PlanError):
            connected(document, deadline_s=30.0)


def test_a_client_plans_under_the_deadline_of_its_connection(monkeypatch):
    deadlines = []

    def impatient(document, deadline_s):
        deadlines.append(deadline_s)
        return read_plan(document, deadline_s=0.0)

    monkeypatch.setattr(client, "read_plan", impatient)

    with pytest.raises(PlanError, match="planning takes longer"):
        connected(PLAN.document, deadline_s=17.0)

    assert deadlines == [17.0]
