"""Several models in one server: by name and version, by plan; read anew; limits as clients meet them."""

import contextlib
import dataclasses

import numpy as np
import pytest
from networks import random_network
from serving import GRAPH, PLAN, WEIGHTS, X, serving

import pqjax
from pqjax.engine.catalogue import Catalogue, Title
from pqjax.engine.desk import Limits, LimitsDesk
from pqjax.engine.model import ServedModel
from pqjax.engine.store import Store
from pqjax.errors import HandshakeError, InputError, Refused, SessionEnded, Spent
from pqjax.service.offer import Offer, Planning, titled
from pqjax.wire.timeline import NOMINAL

OTHER_GRAPH, OTHER_WEIGHTS, OTHER_X = random_network(5)
OTHER_PLAN = pqjax.plan(OTHER_GRAPH)
NEWER = {name: np.where(w > 0, w - 1, w) for name, w in WEIGHTS.items()}  # of the same plan


def model(plan=PLAN, weights=WEIGHTS):
    return ServedModel.of(plan, weights)


def shelf(**models):
    return Catalogue([(Title.parse(name.replace("_", "@")), made) for name, made in models.items()])


@pytest.fixture(scope="module")
def three():
    return shelf(cats_1=model(), cats_2=model(weights=NEWER), dogs=model(OTHER_PLAN, OTHER_WEIGHTS))


def asked(address, x=X, **options):
    with pqjax.connect(address, **options) as session:
        return session.infer(x).output


def test_clients_get_the_model_that_they_ask_for(three):
    old, new = (pqjax.reference(GRAPH, weights, X) for weights in (WEIGHTS, NEWER))
    other = pqjax.reference(OTHER_GRAPH, OTHER_WEIGHTS, OTHER_X)
    assert (old != new).any()

    with serving(plan=three, weights=None) as (address, _):
        for expected, x, options in (
            (old, X, {}),
            (old, X, {"model": "cats@1"}),
            (new, X, {"model": "cats@2"}),
            (new, X, {"model": "cats"}),  # the last version
            (old, X, {"plan": PLAN}),
            (new, X, {"plan": PLAN, "model": "cats"}),
            (other, OTHER_X, {"model": "dogs"}),
            (other, OTHER_X, {"plan": OTHER_PLAN}),
        ):
            np.testing.assert_array_equal(asked(address, x, **options), expected)
        for name in ("birds", "cats@3", "dogs@1"):
            with pytest.raises(
                Refused, match=f"no model of that name and version.*{name}"
            ) as found:
                pqjax.connect(address, model=name)
            assert found.value.reason == "unknown model"
        with pytest.raises(HandshakeError, match="the server's plan is"):
            pqjax.connect(address, plan=OTHER_PLAN, model="cats")


def test_models_read_anew_are_for_those_who_come_then():
    before, after = (pqjax.reference(GRAPH, weights, X) for weights in (WEIGHTS, NEWER))
    server = pqjax.Server(model(), None, "127.0.0.1:0")
    with running(server):
        with pqjax.connect(server.address) as session:
            np.testing.assert_array_equal(session.infer(X).output, before)
            server.offer(shelf(model=model(weights=NEWER)))
            np.testing.assert_array_equal(asked(server.address), after)
            np.testing.assert_array_equal(session.infer(X).output, before)


@contextlib.contextmanager
def running(server):
    import threading

    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


def test_a_client_gets_so_many_answers_a_day_and_is_told(three):
    desk = LimitsDesk(Limits(5, each_inferences=2))
    with serving(plan=three, weights=None, desk=desk) as (address, ends):
        with pqjax.connect(address) as session:
            session.infer(X)
            session.infer(X)
            with pytest.raises(SessionEnded, match="has had all answers.*in a day") as found:
                session.infer(X)
        assert found.value.reason == "spent"
        end = ends.get(timeout=30)
        assert isinstance(end, Spent) and "all answers" in str(end)
        with pytest.raises(Refused, match="all inferences that the server allows") as refused:
            pqjax.connect(address)
        assert refused.value.reason == "spent"


def test_a_client_has_so_many_sessions_at_a_time():
    desk = LimitsDesk(Limits(5, each_clients=1))
    with serving(desk=desk) as (address, ends):
        with pqjax.connect(address):
            with pytest.raises(Refused, match="as many sessions") as refused:
                pqjax.connect(address)
        assert refused.value.reason == "too many sessions"
        ends.get(timeout=30)
        ends.get(timeout=30)
        pqjax.connect(address).close()


def test_a_session_that_there_is_no_memory_for_is_refused():
    with serving(desk=LimitsDesk(Limits(5, memory_bytes=1))) as (address, _):
        with pytest.raises(Refused, match="no memory left") as refused:
            pqjax.connect(address)
    assert refused.value.reason == "no memory"


def test_a_session_tells_what_it_is_at(three):
    server = pqjax.Server(three, None, "127.0.0.1:0")
    with running(server), pqjax.connect(server.address, model="dogs") as session:
        session.prepare()
        (state,) = server.state
        assert state["model"] == "dogs" and state["owner"] == "127.0.0.1"
        assert 0 < state["sent_bytes"] and 0 < state["received_bytes"]
        assert state["doing"].startswith(("idle, preparations in store: 1", "offline"))


def test_titles_are_read_and_told_apart(tmp_path):
    assert titled(["a/b/net one.npz", "x@2=c.npz"]) == (
        ("net-one", "a/b/net one.npz"),
        ("x@2", "c.npz"),
    )
    odd = tmp_path / "a=b.npz"
    odd.touch()
    assert titled([str(odd)]) == (("a-b", str(odd)),)
    for wrong in ("a b=c.npz", "@1=c.npz", "a@=c.npz", "a@1@2=c.npz", "x=", f"{'n' * 65}=c.npz"):
        with pytest.raises(InputError, match="expected"):
            titled([wrong])
    with pytest.raises(InputError, match="cats@1: two models"):
        Catalogue([(Title("cats", "1"), model())] * 2)
    with pytest.raises(InputError, match="at least one"):
        Catalogue([])


def test_who_prepares_in_the_background_gives_way(tmp_path):
    store = Store(tmp_path / "server")
    with serving(store=store) as (address, ends):
        behind = pqjax.connect(address, store=tmp_path / "client", background=True)
        behind.keep()
        with pqjax.connect(address) as session:
            session.infer(X)
            with pytest.raises(SessionEnded, match="has another client to serve") as found:
                behind.keep()
            assert found.value.reason == "yield"
            with pytest.raises(Refused, match="busy"):
                pqjax.connect(address, background=True)
        assert store.ready == 1 and Store(tmp_path / "client").ready_for(address) == 1
        assert "gave way" in str(ends.get(timeout=30))
        ends.get(timeout=30)
        pqjax.connect(address, background=True).close()


def test_plans_are_kept_beside_hints_and_made_anew_when_anything_is_another(tmp_path, monkeypatch):
    made = []
    model = tmp_path / "net.npz"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    hints = tmp_path / "hints"

    def plan(*args, **options):
        made.append(1)
        return pqjax.plan(*args, **options)

    def served(rates=NOMINAL, **wishes):
        offer = Offer((("net", str(model)),), Planning(**wishes), str(hints))
        (found,) = offer.catalogue(rates).models.values()
        return found.plan

    monkeypatch.setattr("pqjax.service.offer.plan", plan)
    first = served()
    assert served().digest == first.digest and len(made) == 1
    assert served(protocol="pqjax-ot").digest != first.digest and len(made) == 2
    served(dataclasses.replace(NOMINAL, turn_s=1.0))
    assert len(made) == 3
    for path in hints.glob("*.plan"):
        path.write_bytes(b"{}")
    assert served().digest == first.digest and len(made) == 4
    monkeypatch.setattr("pqjax.service.kept_plans._code", lambda: ["another"])
    served()
    assert len(made) == 5
