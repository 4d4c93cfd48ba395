"""Preparations on a disk: spent once, by both who made them, whatever happens in between."""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import queue
import shutil
import ssl
import stat
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from networks import ENCRYPTED, owned, random_network
from serving import GRAPH, WEIGHTS, Ends, X, command, served_process, serving

import pqjax
from pqjax.crypto.sealed import fresh_key
from pqjax.engine import spending
from pqjax.engine import store as store_module
from pqjax.engine.events import All, Events
from pqjax.engine.execute import prepare
from pqjax.engine.half import from_bytes, set_aside, to_bytes
from pqjax.engine.model import ServedModel
from pqjax.engine.spending import Shelf
from pqjax.engine.store import Batch, Limits, Store
from pqjax.errors import CheckpointError, InputError, PqjaxError, StoreError
from pqjax.ot.stocked import Stocked
from pqjax.planner import plan
from pqjax.protocols.party import make_party, run_pair

TRUE = pqjax.reference(GRAPH, WEIGHTS, X)
PLAN = plan(GRAPH, ot="softspoken")  # set up sooner; what silent OTs leave is kept below
MODEL: Any = ServedModel.of(PLAN, WEIGHTS)
HERE = "the server"


class Site(NamedTuple):
    """A server and both folders; what each side noted."""

    address: str
    ends: queue.Queue
    client: Store
    server: Store
    notes: list
    served: list

    def connect(self, spend=1, **options):
        shelf = Shelf(self.client, HERE)
        return pqjax.connect(
            self.address, store=shelf, spend=spend, note=self.notes.append, **options
        )

    def keep(self, n):
        with self.connect(0) as session:
            for _ in range(n):
                session.keep()

    def ask(self, spend=1):
        """One inference: whether it came from store."""
        with self.connect(spend) as session:
            np.testing.assert_array_equal(session.infer(X).output, TRUE)
            return session.stored

    def halves(self):
        return [
            sorted(int(p.stem) for p in store.folder.glob("*/*.half"))
            for store in (self.client, self.server)
        ]


class Notes(Events):
    """Collects what becomes of stored preparations."""

    def __init__(self, texts):
        self.texts = texts

    def noted(self, client, text):
        self.texts.append(text)


@contextlib.contextmanager
def site(folder, model: Any = MODEL, limits=Limits(), **options):  # noqa: B008
    served, server = [], Store(folder / "server", limits)
    ends = queue.Queue()
    options["events"] = All(Ends(ends), Notes(served))
    with serving(plan=model, weights=None, store=server, **options) as (address, _):
        yield Site(address, ends, Store(folder / "client"), server, [], served)


@pytest.fixture
def claims(monkeypatch):
    """Every half that was ever read; nothing may be in it twice."""
    found, claim = [], Store.claim

    def watched(self, batch, number):
        half = claim(self, batch, number)
        if half is not None:
            found.append(half)
        return half

    monkeypatch.setattr(Store, "claim", watched)
    yield found
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("preset", ["pqjax-ot", ENCRYPTED], ids=["ot", "encrypted"])
def test_what_was_kept_is_spent_first_and_the_books_are_right(preset, tmp_path):
    made = plan(GRAPH, preset)
    online = sum(made.schedule(0, 1)[i].cost.bits for i in range(len(made.schedule(0, 1))))
    with site(tmp_path, ServedModel.of(made, WEIGHTS)) as at:
        at.keep(3)
        traces = [at.ends.get(timeout=30)]
        for spend, n, found in ((1, 1, 1), (2, 4, 2), (1, 1, 0)):
            with at.connect(spend, hints=tmp_path) as session:
                for i in range(n):
                    result = session.infer(X)
                    np.testing.assert_array_equal(result.output, TRUE)
                    assert made.differences(result.trace, 1) == []
                    if i < found:
                        assert sum(result.trace.bits()) == online
                        assert {e.phase for e in result.trace.entries} == {"online"}
                assert session.stored == found
            assert made.differences(session.trace, 1) == []
            traces.append(at.ends.get(timeout=30))

    assert [made.differences(trace, 0) for trace in traces] == [[]] * 4
    assert [trace.stored for trace in traces] == [0, 1, 2, 0]
    assert at.notes == at.served == [] and at.halves() == [[], []]


def test_books_notice_what_a_stored_inference_should_not_do(tmp_path):
    with site(tmp_path) as at:
        at.keep(1)
        with at.connect() as session:
            trace = session.infer(X).trace

    assert PLAN.differences(trace, 1) == []
    trace.stored = 0
    assert PLAN.differences(trace, 1) != []


def test_kept_and_spent_may_be_mixed_with_what_is_prepared_here(tmp_path):
    with site(tmp_path) as at:
        with at.connect(0) as session:
            session.prepare()
            session.prepare()
            session.keep()  # the first of these
            np.testing.assert_array_equal(session.infer(X).output, TRUE)
            session.keep()
            assert PLAN.differences(session.trace, 1) == []
        with at.connect() as session:
            session.prepare()
            with pytest.raises(InputError, match="kept again"):
                session.keep()
            for _ in range(2):
                np.testing.assert_array_equal(session.infer(X).output, TRUE)
            session.keep()
        assert PLAN.differences(session.trace, 1) == []
        assert at.halves() == [[0, 1]] * 2  # of two batches


@pytest.mark.slow
def test_prepared_tonight_spent_tomorrow_by_processes_that_know_nothing_of_each_other(tmp_path):
    stored = ("--store", tmp_path / "client")
    with served_process(tmp_path, "--store", tmp_path / "server") as (address, _):
        tonight = command("prepare", address, 3, *stored)
        assert tonight.returncode == 0, tonight.stderr
    found = []
    with served_process(tmp_path, "--store", tmp_path / "server", "--listen", address):
        for i in range(4):
            trace = tmp_path / f"{i}.json"
            words = ("infer", address, tmp_path / "x.npy", "--trace", trace, "--json", *stored)
            asked = command(*words)
            assert asked.returncode == 0, asked.stderr
            assert json.loads(asked.stdout)["outputs"] == [TRUE.tolist()]
            told = json.loads(trace.read_text())
            assert told["differences"] == []
            found.append([told["phases"][p]["sent_bits"] > 0 for p in ("setup", "offline")])
            assert ("prepared before" in asked.stderr) == (i < 3)

    assert found == [[False, False]] * 3 + [[True, True]]
    assert not list(tmp_path.rglob("*.half"))


@pytest.mark.parametrize("step", [3, 4, 5, 6])
def test_who_dies_between_claim_and_use_loses_what_was_claimed_and_nothing_else(
    step, tmp_path, claims, monkeypatch
):
    say = spending._Talk.say

    def dies(self, at, numbers, proved=True):
        if at == step:
            raise KeyboardInterrupt
        say(self, at, numbers, proved)

    with site(tmp_path) as at:
        at.keep(3)
        monkeypatch.setattr(spending._Talk, "say", dies)
        with pytest.raises((KeyboardInterrupt, PqjaxError)):
            at.ask()
        monkeypatch.setattr(spending._Talk, "say", say)
        lost = 1 if step > 4 else 0
        assert [at.ask() for _ in range(4)] == [1] * (3 - lost) + [0] * (1 + lost)
        assert at.halves() == [[], []]
        # Where one side alone had claimed, the other throws its half away.
        assert at.notes == [] and len(at.served) == (step == 5)


def spoil_cut(path, other):
    os.truncate(path, path.stat().st_size // 2)


def spoil_flip(path, other):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    with open(path, "r+b") as file:
        file.write(raw)


def spoil_swap(path, other):
    raw = other.read_bytes()
    with open(path, "r+b") as file:
        file.write(raw)


def spoil_copy(path, other):
    shutil.copy(path, path.with_suffix(".again"))
    os.replace(path.with_suffix(".again"), path)


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_flip, spoil_swap, spoil_copy])
@pytest.mark.parametrize("side", ["client", "server"])
def test_damaged_foreign_and_copied_files_are_lost_and_said_so(side, spoil, tmp_path, claims):
    with site(tmp_path) as at:
        at.keep(3)
        first, second, _ = sorted((tmp_path / side).glob("*/*.half"))
        spoil(first, second)
        answers = [at.ask() for _ in range(3)]

        # A client goes on with the next; what it has claimed is lost where the server's is.
        assert answers == ([1, 1, 0] if side == "client" else [0, 1, 1])
        assert any("lost" in text for text in at.notes) and at.halves() == [[], []]
        assert len(claims) == (4 if side == "client" else 5)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_side_that_was_set_back_is_refused_by_the_other(side, tmp_path, claims):
    """Names of the same files, as a snapshot of the file system would bring them back."""
    with site(tmp_path) as at:
        at.keep(3)
        folder, backup = next((tmp_path / side).glob("*-*")), tmp_path / "backup"
        backup.mkdir()
        for path in folder.iterdir():
            os.link(path, backup / path.name)
        assert [at.ask(), at.ask()] == [1, 1]
        for path in backup.iterdir():
            if not (folder / path.name).exists():
                os.link(path, folder / path.name)
        assert at.halves()[side == "server"] == [0, 1, 2]
        assert [at.ask(), at.ask()] == [1, 0]

        notes = at.notes if side == "client" else at.served
        assert any("2 stored preparations thrown away" in text for text in notes)


def test_what_the_server_lost_is_prepared_anew(tmp_path):
    with site(tmp_path) as at:
        at.keep(2)
        shutil.rmtree(next(at.server.folder.glob("*-*")))
        assert at.ask() == 0

        assert at.notes and "the server lacks its half" in at.notes[0]
        assert at.halves() == [[], []] and at.ask() == 0 and len(at.notes) == 1


def test_preparations_serve_one_model_and_one_plan(tmp_path):
    with site(tmp_path) as at:
        at.keep(2)
    others = {name: w + (name.endswith("bias")) for name, w in WEIGHTS.items()}
    y = pqjax.reference(GRAPH, others, X)
    with site(tmp_path, ServedModel.of(PLAN, others)) as at:
        with at.connect() as session:
            np.testing.assert_array_equal(session.infer(X).output, y)
            assert session.stored == 0
        assert "of another model" in at.served[0] and at.halves() == [[], []]
        at.keep(1)
    made = plan(GRAPH, ENCRYPTED)
    with site(tmp_path, ServedModel.of(made, WEIGHTS)) as at:
        with at.connect() as session:
            np.testing.assert_array_equal(session.infer(X).output, TRUE)
        assert session.stored == 0 and "plan is another one" in at.notes[0]


def test_who_cannot_prove_it_learns_nothing_and_spends_nothing(tmp_path, monkeypatch):
    heard, hear = [], spending._Talk.hear

    def listens(self, step, among):
        found = hear(self, step, among)
        if step == 4:
            heard.append(found)
        return found

    with site(tmp_path) as at:
        at.keep(2)
        (batch,) = at.client.batches(HERE)
        monkeypatch.setattr(spending._Talk, "hear", listens)
        for name in (batch.name, fresh_key()[:16]):  # one there is, and one there is not
            thief = Store(tmp_path / name.hex())
            thief.put(Batch(name, fresh_key(), batch.about), HERE, 0, b"")
            with at._replace(client=thief).connect() as session:
                np.testing.assert_array_equal(session.infer(X).output, TRUE)
                assert session.stored == 0
        assert heard == [(set(), False)] * 2
        assert at.halves() == [[0, 1]] * 2
        assert "did not prove" in at.served[0] and len(at.served) == 1
        assert [at.ask(), at.ask(), at.ask()] == [1, 1, 0]  # and who holds it spends it


def test_a_proof_is_good_for_one_greeting(tmp_path, monkeypatch):
    say, said = spending._SAID.pack, []

    def again(bits, shown):
        said.append((bits, shown))
        return say(*said[0]) if len(said) > 4 else say(bits, shown)

    class Replaying:
        size, unpack = spending._SAID.size, spending._SAID.unpack
        pack = staticmethod(again)

    with site(tmp_path) as at:
        at.keep(2)
        monkeypatch.setattr(spending, "_SAID", Replaying)
        assert at.ask() == 1 and len(said) == 4
        assert at.ask() == 0 and len(said) > 4
        assert "did not prove" in at.served[-1]


def test_two_processes_never_claim_the_same(tmp_path):
    batch, stores = Batch(bytes(range(16)), fresh_key(), bytes(32)), []
    for _ in range(4):
        stores.append(Store(tmp_path))
    for number in range(24):
        stores[0].put(batch, HERE, number, bytes([number]) * 99)
    found, start = [], threading.Barrier(4)

    def run(store):
        start.wait()
        for number in range(24):
            half = store.claim(batch, number)
            if half is not None:
                found.append(half)

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [bytes([number]) * 99 for number in range(24)]
    assert stores[1].batches(HERE) == [] and not list(tmp_path.glob("*-*"))


def test_clients_that_share_a_folder_get_one_each(tmp_path, claims):
    with site(tmp_path, most_clients=3) as at:
        at.keep(3)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(at.ask()), name=f"client {i}")
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(answers) == 3 and at.halves() == [[], []]


def test_what_is_kept_is_a_certificate_s_where_there_is_one(tmp_path):
    pytest.importorskip("cryptography", reason="certificates need pqjax[tls]")
    pki = tmp_path / "pki"
    pqjax.make_certificates(pki)
    server, client = (
        pqjax.Tls(pki / f"{role}.pem", pki / f"{role}.key", pki / "ca.pem")
        for role in ("server", "client")
    )
    shown = ssl.PEM_cert_to_DER_cert((pki / "client.pem").read_text())
    owners = ["127.0.0.1", f"certificate {hashlib.sha256(shown).hexdigest()}"]
    for tls, found in ((None, [1, 0]), (server, [0, 1])):
        folder = tmp_path / f"{tls is None}"
        with site(folder, tls=tls) as at:
            with at.connect(0, tls=client if tls else None) as session:
                session.keep()
            assert [len(at.server.batches(owner)) for owner in owners] == found


@pytest.mark.parametrize(
    "limits, kept", [(Limits(60_000, 1 << 40), 1), (Limits(1 << 40, 60_000), 1), (Limits(), 3)]
)
def test_a_server_keeps_as_much_as_it_is_told(limits, kept, tmp_path):
    with site(tmp_path, limits=limits) as at:
        found = 0
        with contextlib.suppress(StoreError), at.connect(0) as session:
            for _ in range(3):
                session.keep()
                found += 1
        assert found == kept and at.halves()[0] == at.halves()[1] == list(range(kept))
        if kept < 3:
            assert "GB" in at.served[0]
            with pytest.raises(StoreError, match="no room"), at.connect(0) as session:
                session.keep()
        assert at.ask() == 1


def test_a_server_without_a_store_says_so(tmp_path):
    with serving(plan=MODEL, weights=None) as (address, _):
        with pytest.raises(StoreError, match="keeps no prep"):
            with pqjax.connect(address, store=tmp_path) as session:
                session.keep()
        with pqjax.connect(address) as session, pytest.raises(InputError, match="store=folder"):
            session.keep()


@pytest.mark.parametrize("protocol", ["privquant", "streamed"])
def test_plans_that_make_their_ots_online_keep_nothing(protocol, tmp_path):
    made = plan(GRAPH, "privquant" if protocol == "privquant" else "pqjax-ot")
    if protocol == "streamed":
        tuning = dataclasses.replace(made.preset.tuning, stream_above=0)
        made = plan(GRAPH, dataclasses.replace(made.preset, tuning=tuning))
        assert made.streamed
    with site(tmp_path, ServedModel.of(made, WEIGHTS)) as at:
        with at.connect() as session:
            with pytest.raises(StoreError, match="cannot be kept"):
                session.keep()
            np.testing.assert_array_equal(session.infer(X).output, TRUE)


@pytest.mark.parametrize("call", ["open", "fsync", "disk_usage"])
def test_a_full_disk_is_a_refusal_and_leaves_nothing_behind(call, tmp_path, monkeypatch):
    batch, store = Batch(bytes(range(16)), fresh_key(), bytes(32)), Store(tmp_path)
    store.put(batch, HERE, 0, b"x" * 9)
    before = sorted(tmp_path.rglob("*"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(
            store_module.os if call != "disk_usage" else store_module.shutil, call, full
        )
        with pytest.raises(StoreError, match="No space"):
            store.put(batch, HERE, 1, b"y" * 9)

    assert sorted(tmp_path.rglob("*")) == before and store.claim(batch, 0) == b"x" * 9


def test_batches_grow_old(tmp_path):
    batch, store = Batch(bytes(range(16)), fresh_key(), bytes(32)), Store(tmp_path)
    store.put(batch, HERE, 0, b"x")
    assert store.find(batch.name) == batch
    head = next(tmp_path.glob("*/head"))
    os.utime(head, (0.0, time.time() - 31 * 86400))

    assert store.find(batch.name) is None and not list(tmp_path.glob("*-*"))


def test_the_key_is_its_owners_alone(tmp_path):
    store = Store(tmp_path)
    store.put(Batch(bytes(range(16)), fresh_key(), bytes(32)), HERE, 0, b"x")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}

    assert {modes[name] for name in ("key", "head", "00.half")} == {0o600}
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(StoreError, match="owner's alone"):
        Store(tmp_path)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(StoreError, match="no key"):
        Store(tmp_path)


def halves(made, model, n=1):
    """Both parties' halves of some preparations, and what their ends and layers hold."""

    def side(rank):
        def run(wire):
            source, tuning = made.preset.source, made.preset.tuning
            party: Any = make_party(wire, rank, source, tuning=tuning)
            mine, found, secrets = owned(party, made, model), [], []
            for i in range(n):
                ready: Any = set_aside(party, made, prepare(party, made, mine), b"half %d" % i)
                kept = [end.kept() for end in ready.ends]
                for end, rows in zip(ready.ends, kept, strict=True):
                    bits = np.zeros(len(rows.rows), np.uint8) if rows.bits is None else rows.bits
                    end.stock.put([(rows.rows, bits)])
                secrets += [kept[0].delta.tobytes(), *(k.rows[:4].tobytes() for k in kept)]
                found.append(to_bytes(ready))
            left = party.sender.left, party.receiver.left
            assert left == (party.pool[rank], party.pool[1 - rank])
            return found, secrets

        return run

    return run_pair(side(0), side(1))


def test_no_secret_is_in_a_file_in_the_clear(tmp_path):
    for rank, (made, secrets) in enumerate(halves(PLAN, MODEL)):
        store = Store(tmp_path / str(rank))
        key = fresh_key()
        store.put(Batch(bytes(range(16)), key, bytes(32)), HERE, 0, made[0])
        there = b"".join(p.read_bytes() for p in store.folder.rglob("*") if p.is_file())
        names = "".join(map(str, store.folder.rglob("*")))

        assert len(secrets) == 3 and all(secret in made[0] for secret in secrets)
        assert not any(secret in there for secret in [*secrets, key, HERE.encode()])
        assert HERE not in names and key.hex() not in names


@pytest.mark.parametrize("name", ["pqjax", "hequant"])
def test_a_half_is_read_as_it_was_written_or_not_at_all(name):
    made = plan(GRAPH, name)
    if not isinstance(made.preset.source, Stocked):
        pytest.skip("this preset has no store")
    other = plan(random_network(1)[0], name)
    for rank, (found, _) in enumerate(halves(made, ServedModel.of(made, WEIGHTS), 2)):
        whole, second = found
        again = from_bytes(whole, made, rank)
        assert to_bytes(again) == whole != second
        for bad in (whole[:-1], whole + b"\0", whole[:40], b"", b"x" + whole, whole[:99] + second):
            with pytest.raises(CheckpointError):
                from_bytes(bad, made, rank)
        with pytest.raises(CheckpointError):
            from_bytes(whole, other, rank)
        with pytest.raises(CheckpointError):
            from_bytes(whole, made, 1 - rank)


def test_hashes_of_halves_are_their_own():
    (found, _), _ = halves(PLAN, MODEL, 2)
    ends = [end for raw in found for end in from_bytes(raw, PLAN, 0).ends or ()]

    transcripts = [end._hash.transcript for end in ends]
    assert len(set(transcripts)) == 4
    x = np.zeros((3, 2), np.uint64)
    made = [end._hash.blocks(x).tobytes() for end in ends]
    assert all(a != b for a, b in itertools.combinations(made, 2))


def relabelled(half):
    """A half with each of its arrays left out, and with each called another part of its field."""
    at = 12 + int.from_bytes(half[8:12], "little")
    lines, rest = json.loads(half[12:at]), half[at:]
    sizes = [int(np.dtype(x["dtype"]).itemsize * np.prod(x["shape"], dtype=int)) for x in lines]

    def whole(lines, body):
        head = json.dumps(lines).encode()
        return half[:8] + len(head).to_bytes(4, "little") + head + body

    assert whole(lines, rest) == half
    for i, line in enumerate(lines):
        begin = sum(sizes[:i])
        yield whole(lines[:i] + lines[i + 1 :], rest[:begin] + rest[begin + sizes[i] :])
        part = "bytes" if line["where"][3] == "array" else "array"
        where = [*line["where"][:3], part]
        yield whole([*lines[:i], {**line, "where": where}, *lines[i + 1 :]], rest)


def test_a_half_that_lacks_a_field_or_has_one_of_another_kind_is_refused():
    made = plan(GRAPH, dataclasses.replace(ENCRYPTED, source=PLAN.preset.source))
    for rank, (found, _) in enumerate(halves(made, ServedModel.of(made, WEIGHTS), 1)):
        for bad in relabelled(found[0]):
            with pytest.raises(CheckpointError, match="no preparation for this plan"):
                from_bytes(bad, made, rank)
