"""What clients get once: made once, kept by both sides, sent where it is lacking."""

import json
import os
import shutil
import stat
from typing import Any

import numpy as np
import pytest
from networks import ENCRYPTED, random_network
from serving import GRAPH, WEIGHTS, X, command, command_here, serving

import pqjax
from pqjax.engine import installing, memory
from pqjax.engine import model as model_module
from pqjax.engine.commands import INSTALL, PREPARE, ask
from pqjax.engine.hints import HintFolder, Hints, find_made, hint_path, read_hints
from pqjax.engine.installing import hint_messages
from pqjax.engine.model import ServedModel
from pqjax.errors import CheckpointError, PlanError, SessionEnded
from pqjax.graph import Conv, Graph, Input, TensorType
from pqjax.planner import plan

PLAN = plan(GRAPH, ENCRYPTED, ot="softspoken")  # of no hint; set up sooner


def hinted(made, weights, folder=None) -> Any:
    """A served model, with hints."""
    return ServedModel.of(made, weights, folder)


@pytest.fixture(scope="module")
def model():
    return hinted(PLAN, WEIGHTS)


def asked(address, **options):
    """One inference: the layers that were installed, and the session's trace."""
    with pqjax.connect(address, **options) as session:
        y = session.infer(X).output
        trace = session.trace
    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))
    assert PLAN.differences(trace, 1) == []
    return [e.layer for e in trace.entries if e.phase == "install"], trace


HINTED = [step.node.name for step in PLAN.hinted]


def test_hints_are_sent_once_to_a_client_that_keeps_them(model, tmp_path):
    with serving(plan=model, weights=None) as (address, ends):
        first, trace = asked(address, hints=tmp_path)
        again, short = asked(address, hints=tmp_path)
        forgetful, _ = asked(address)
        served = [ends.get(timeout=20) for _ in range(3)]

    assert first == forgetful == ["begin", *HINTED] and again == []
    assert trace.bits("install")[1] == PLAN.cost("install").sent[0]
    assert short.bits("install") == (0, 0)
    assert [path.suffix for path in tmp_path.iterdir()].count(".hint") == 1
    assert all(PLAN.differences(trace, 0) == [] for trace in served)


def test_an_installation_goes_on_where_it_was_interrupted(model, tmp_path):
    class Enough(Exception):
        pass

    def stop(where, done, steps):
        if where == f"install/{HINTED[-1]}":
            raise Enough

    with serving(plan=model, weights=None) as (address, _):
        with (
            pytest.raises(Enough),
            pqjax.connect(address, hints=tmp_path, progress=stop) as session,
        ):
            session.install()
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]

        rest, trace = asked(address, hints=tmp_path)

    assert rest == ["begin", HINTED[-1]]
    assert trace.bits("install")[1] == PLAN.step(HINTED[-1]).cost.install.bits
    assert [path.suffix for path in tmp_path.iterdir()] == [".hint"]


def test_a_part_that_was_altered_is_found_at_the_end_and_dropped(model, tmp_path):
    part = tmp_path / f"{model.hints.digest.hex()}.part"
    own = model.hints.whole.copy()
    own[100] ^= 1
    own[: own.size // 2].tofile(part)

    with serving(plan=model, weights=None) as (address, _):
        with pytest.raises(CheckpointError, match="not those that the server announced.* again"):
            asked(address, hints=tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert asked(address, hints=tmp_path)[0] == ["begin", *HINTED]


def test_two_clients_that_install_at_once_have_files_of_their_own(model, tmp_path):
    folder = HintFolder(tmp_path)
    with folder.part(model.hints.digest) as one, folder.part(model.hints.digest) as two:
        assert one != two and two.name.endswith(f"{os.getpid()}.part")
        two.write_bytes(b"begun")
    assert [path.name for path in tmp_path.iterdir()] == [one.name]  # nobody goes on with the other


def test_a_damaged_file_of_the_folder_is_got_anew(model, tmp_path):
    path = hint_path(tmp_path, model.hints)
    model.hints.whole[:-1].tofile(path)

    with serving(plan=model, weights=None) as (address, _):
        assert asked(address, hints=tmp_path)[0] == ["begin", *HINTED]
    assert read_hints(path, PLAN).digest == model.hints.digest


def test_a_folder_that_cannot_be_written_to_is_an_error_and_the_server_goes_on(model, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("no folder")

    with serving(plan=model, weights=None) as (address, _):
        with pytest.raises(CheckpointError, match="cannot keep hints in .*taken: File exists"):
            asked(address, hints=taken)
        assert asked(address)[0]


def test_a_file_of_hints_spares_the_sending(model, tmp_path):
    path = tmp_path / "net.hint"
    model.hints.whole.tofile(path)

    with serving(plan=model, weights=None) as (address, _):
        assert asked(address, hint_file=path)[0] == []


def altered(whole, at):
    found = whole.copy()
    found[at] ^= 1
    return found


@pytest.mark.parametrize("what, complaint", [
    ("truncated", "cut off: .* bytes expected"),
    ("longer", "cut off"),
    ("empty", "cannot read|no file of hints"),
    ("text", "no file of hints"),
    ("other plan", "for another plan"),
    ("altered", "another version of the model"),
    ("other weights", "another version of the model"),
    ("missing", "cannot read"),
])  # fmt: skip
def test_a_file_of_hints_that_does_not_fit_is_refused(model, tmp_path, what, complaint):
    whole, path = model.hints.whole, tmp_path / "net.hint"
    others = {name: value + 0 for name, value in WEIGHTS.items()}
    contents = {
        "truncated": lambda: whole[:-5],
        "longer": lambda: np.append(whole, np.uint8(1)),
        "empty": lambda: whole[:0],
        "text": lambda: np.frombuffer(b"not what you think" * 99, np.uint8),
        "other plan": lambda: altered(whole, 9),
        "altered": lambda: altered(whole, whole.size - 1),
        "other weights": lambda: hinted(PLAN, others).hints.whole,
    }
    if what in contents:
        contents[what]().tofile(path)

    with serving(plan=model, weights=None) as (address, _):
        with pytest.raises(CheckpointError, match=complaint):
            asked(address, hint_file=path)
        assert asked(address)[0]  # the server goes on


def test_a_server_keeps_its_hints_and_the_key_to_them(tmp_path):
    first = hinted(PLAN, WEIGHTS, tmp_path)
    again = hinted(PLAN, WEIGHTS, tmp_path)

    assert first.hints.digest == again.hints.digest
    name = HINTED[0]
    for one, two in zip(*(m.own.layers[name].encoded.key.u for m in (first, again)), strict=True):
        np.testing.assert_array_equal(one, two)
    (key,) = tmp_path.glob("*.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_bytes()[8 + 64 + 16 : 8 + 64 + 32]
    assert len(set(secret)) > 4 and secret not in first.hints.whole.tobytes()
    with serving(plan=again, weights=None) as (address, _):
        asked(address)


def test_other_weights_and_other_plans_have_hints_of_their_own(tmp_path):
    one = hinted(PLAN, WEIGHTS, tmp_path)
    changed = dict(WEIGHTS)
    bias = next(name for name in changed if name.endswith("bias"))
    changed[bias] = changed[bias] * 0
    two = hinted(PLAN, changed, tmp_path)
    three = hinted(plan(GRAPH, ENCRYPTED, link=pqjax.Link(1, 1)), WEIGHTS,
                           tmp_path)  # fmt: skip

    models = (one, two, three)
    assert len({m.hints.digest for m in models}) == len({m.hints.seed for m in models}) == 3
    assert len(list(tmp_path.glob("*.key"))) == 3
    fresh = [hinted(PLAN, WEIGHTS).hints.seed for _ in range(2)]
    assert fresh[0] != fresh[1]


@pytest.mark.parametrize("at", [3, 40, 80, 100, -1])
def test_an_altered_key_is_refused(tmp_path, at):
    hinted(PLAN, WEIGHTS, tmp_path)
    (path,) = tmp_path.glob("*.key")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)

    with pytest.raises(CheckpointError, match="cut off or altered: delete it"):
        hinted(PLAN, WEIGHTS, tmp_path)
    path.write_bytes(raw[:20])
    with pytest.raises(CheckpointError, match="cut off or altered"):
        find_made(tmp_path, PLAN, WEIGHTS)


def test_a_server_refuses_hints_that_were_altered(tmp_path):
    made = hinted(PLAN, WEIGHTS, tmp_path)
    path = hint_path(tmp_path, made.hints)
    changed = altered(made.hints.whole, 200)
    del made
    changed.tofile(path)

    with pytest.raises(CheckpointError, match="is altered: it holds other bytes.* delete it"):
        hinted(PLAN, WEIGHTS, tmp_path)


def test_hints_are_sent_once_a_session_and_from_a_layer_that_there_is(model):
    with serving(plan=model, weights=None) as (address, ends):
        for place, before in ((len(HINTED), 0), (0, 1)):
            session = pqjax.connect(address)
            for _ in range(before):
                session.install()
            with pytest.raises(SessionEnded) as caught:
                ask(session._party, INSTALL, 0, place)
                session._party.messenger.receive(8)
            assert caught.value.reason == "drift"
            assert "phase 3" in str(ends.get(timeout=20))
        session = pqjax.connect(address)
        with pytest.raises(
            SessionEnded
        ):  # a client may do without, and then has nothing to prepare with
            ask(session._party, PREPARE, 0)
            session._party.messenger.send(np.zeros(3, np.uint8), 24)
            session._party.messenger.receive(1 << 30)
        assert asked(address)[0]


def large_enough():
    """A network of one layer whose products are many, so that encrypting it pays."""
    out = TensorType((16, 16, 32), 13, 4)
    conv = Conv("conv", ("x",), out, (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 2, widths="worst")
    graph = Graph((Input("x", (), TensorType((16, 16, 8), 4, 2)), conv))
    rng = np.random.default_rng(0)
    weights = {"conv/weight": rng.integers(-4, 4, (3, 3, 8, 32)), "conv/bias": np.zeros(32, int)}
    return graph, weights


def test_the_hints_of_a_model_are_files_of_the_command_line(tmp_path):
    network, out, store = tmp_path / "net.npz", tmp_path / "net.hint", tmp_path / "store"
    graph, weights = large_enough()
    pqjax.save_model(network, graph, weights)

    made = command("hint", network, "--out", out, "--hints", store, "--inferences", 7)
    again = command_here("hint", network, "--hints", store, "--inferences", 7)
    none = command_here("hint", network, "--hints", store, "--protocol", "privquant")

    assert made.returncode == again.returncode == none.returncode == 0, made.stderr
    assert made.stdout.strip() == str(out) and "public" in made.stderr
    digest = Hints.of(np.fromfile(out, np.uint8)).digest.hex()
    assert digest in made.stderr and digest in again.stderr and f"{digest}.hint" in again.stdout
    assert "no hints" in none.stderr
    served = hinted(plan(graph, inferences=7), weights, store)
    assert served.hints.digest.hex() == digest


def test_plans_say_what_is_installed(tmp_path):
    network = tmp_path / "net.npz"
    pqjax.save_model(network, *large_enough())

    few, many = (
        json.loads(command_here("plan", network, "--json", "--inferences", n).stdout)
        for n in (1, 1000)
    )

    assert 0 < few["install_bytes"] < many["install_bytes"]
    assert few["linear_bytes"] > many["linear_bytes"]
    assert few["inferences"] == 1 and {"setup_bytes", "offline_bytes", "flows"} <= few.keys()


def test_a_few_small_layers_are_not_encrypted():
    assert plan(GRAPH, inferences=1 << 20).secrets.count == 0


@pytest.mark.parametrize("wish", [0, -1, 1.5, True, "2", 1 << 41])
def test_a_plan_is_for_some_inferences(wish):
    with pytest.raises(PlanError, match="inferences: 1 to"):
        plan(random_network(1)[0], inferences=wish)


def test_messages_of_a_hint_cover_it():
    for n in (1, 1 << 22, (1 << 22) + 1, 9 << 20):
        parts = list(hint_messages(8 * n))
        assert parts[0].start == 0 and parts[-1].stop == n
        assert all(a.stop == b.start for a, b in zip(parts, parts[1:], strict=False))
        assert max(part.stop - part.start for part in parts) <= 1 << 22


def test_hints_that_were_deleted_are_made_again_by_their_key(tmp_path):
    first = hinted(PLAN, WEIGHTS, tmp_path)
    path = hint_path(tmp_path, first.hints)
    before = path.read_bytes()
    path.unlink()

    again = hinted(PLAN, WEIGHTS, tmp_path)

    assert again.hints.digest == first.hints.digest and path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_key_that_makes_other_hints_than_it_did_gives_none_away(tmp_path, monkeypatch):
    first = hinted(PLAN, WEIGHTS, tmp_path)
    hint_path(tmp_path, first.hints).unlink()
    other = hinted(PLAN, WEIGHTS).hints
    monkeypatch.setattr(model_module.Hints, "of", classmethod(lambda cls, whole: other))

    with pytest.raises(CheckpointError, match="makes other hints than it did"):
        hinted(PLAN, WEIGHTS, tmp_path)
    assert list(tmp_path.glob("*.hint")) == []


def test_hints_for_which_there_is_no_room_are_not_asked_for(model, tmp_path, monkeypatch):
    with serving(plan=model, weights=None) as (address, _):
        monkeypatch.setattr(installing, "available_bytes", lambda: 1000)
        with pytest.raises(PlanError, match="0.00 GB of memory: make room"):
            asked(address)
        full = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(installing.shutil, "disk_usage", lambda folder: full)
        with pytest.raises(PlanError, match="of room in"):
            asked(address, hints=tmp_path)
        monkeypatch.undo()
        assert asked(address)[0] == ["begin", *HINTED]


def test_what_encrypted_layers_prepare_counts_as_memory(monkeypatch):
    tiles = PLAN.cost("offline", "keys").bits // 8
    prepared = sum(step.cost.both.bits for step in PLAN.hinted) // 8

    assert memory.least_bytes(PLAN) >= tiles + prepared > 0
    monkeypatch.setattr(memory, "available_bytes", lambda: tiles)
    with pytest.raises(PlanError, match="of memory"):
        memory.check_memory(PLAN)
