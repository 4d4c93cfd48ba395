"""A real Ray cluster of three nodes' processes: sessions, a replica killed in one, more and fewer."""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import socket
import time

import numpy as np
import pytest
from serving import GRAPH, ROOT, WEIGHTS, X, command

import pqjax
from pqjax.errors import PqjaxError, Refused, WireError
from pqjax.fleet import fleet_connect
from pqjax.fleet.client import ask_for_seat, fleet_state
from pqjax.wire.tls import Tls, make_certificates

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of Ray and what it imports
]
TRUE = pqjax.reference(GRAPH, WEIGHTS, X)
HERE = "127.0.0.1"
HOSTS = "127.0.0.2", "127.0.0.3", "127.0.0.4"  # of the nodes, all on this machine


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of three nodes, each with 2 cores as far as Ray knows."""
    pytest.importorskip("ray", reason="a fleet needs Ray: pip install pqjax[fleet]")
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),  # of the nodes' workers, and their workers' own
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(pathlib.Path.home() / ".cache")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        made = importlib.import_module("ray.cluster_utils").Cluster()
        try:
            for host in HOSTS:
                made.add_node(num_cpus=2, node_ip_address=host, include_dashboard=False)
            yield made
        finally:
            made.shutdown()


def free_port():
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def fleet(cluster, folder, *words, scheme="http"):
    """A fleet that `pqjax fleet deploy` has started; the URL of its directory."""
    pqjax.save_model(folder / "net.npz", GRAPH, WEIGHTS)
    listen = f"{HERE}:{free_port()}"
    told = command(
        "fleet", "deploy", folder / "net.npz", "--ray", cluster.address, "--listen", listen,
        "--hints", folder / "hints", *words,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stdout == f"directory at {scheme}://{listen}\n"
    try:
        yield f"{scheme}://{listen}"
    finally:
        ended = command("fleet", "stop", "--ray", cluster.address, "--drain", "1")
        assert ended.returncode == 0, ended.stderr


def replicas(url, **options):
    return fleet_state(url, **options)["replicas"]


def ready(url, count):
    found = replicas(url)
    fine = len(found) == count and all(each["is"] == "ready" for each in found)
    return found if fine else None


def test_sessions_go_on_through_a_death_and_replicas_come_and_go(cluster, tmp_path):
    words = ("--replicas", "2:3", "--clients", "1", "--idle", "4")
    with fleet(cluster, tmp_path, *words) as url, contextlib.ExitStack() as stack:
        until(lambda: ready(url, 2))
        first = stack.enter_context(fleet_connect(url))
        second = stack.enter_context(fleet_connect(url, model="net"))
        assert [each["taken"] for each in replicas(url)] == [1, 1]
        np.testing.assert_array_equal(first.infer(X).output, TRUE)
        np.testing.assert_array_equal(second.infer(X).output, TRUE)

        # All are full, and a client waits: another is started for it.
        third = stack.enter_context(fleet_connect(url))
        assert [each["taken"] for each in until(lambda: ready(url, 3))] == [1, 1, 1]
        # Now there is no room at all, nor will be.
        with pytest.raises(Refused, match=r"the fleet's servers are full \(3\)") as caught:
            fleet_connect(url, patience_s=1.0)
        assert caught.value.reason == "busy" and len(str(caught.value).splitlines()) == 1
        with pytest.raises(Refused, match="the fleet has no model 'dogs'"):
            fleet_connect(url, model="dogs")

        # One dies with all its processes, in the middle of a session.
        died = replicas(url)[0]
        for pid in (died["pid"], *died["workers"]):
            os.kill(pid, signal.SIGKILL)
        lost = []
        for session in (first, second, third):
            try:
                np.testing.assert_array_equal(session.infer(X).output, TRUE)
            except WireError as error:
                lost.append(error)
        assert len(lost) == 1
        again = stack.enter_context(fleet_connect(url))  # whoever lost it asks again
        np.testing.assert_array_equal(again.infer(X).output, TRUE)
        names = {each["name"] for each in until(lambda: ready(url, 3))}
        assert died["name"] not in names  # another has taken its place

        # The directory dies: sessions go on, the next one knows the same replicas.
        old = fleet_state(url)
        os.kill(old["pid"], signal.SIGKILL)
        np.testing.assert_array_equal(again.infer(X).output, TRUE)

        def restarted():
            with contextlib.suppress(PqjaxError):
                state = fleet_state(url)
                return state["pid"] != old["pid"] and state["ready"] == 3

        until(restarted)
        assert {each["name"] for each in replicas(url)} == names

        stack.close()
        until(lambda: len(replicas(url)) == 2)  # down to the least
        told = command("fleet", "state", url)
        assert told.returncode == 0 and "2:3 replicas of 1 seats" in told.stdout
        assert json.loads(command("fleet", "state", url, "--json").stdout)["models"] == ["net"]
        np.save(tmp_path / "x.npy", X)
        asked = command("infer", f"fleet+{url}/net", tmp_path / "x.npy", "--json")
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout)["outputs"] == [TRUE.tolist()]


def test_a_node_is_lost_and_another_takes_its_replica(cluster, tmp_path):
    with fleet(cluster, tmp_path, "--replicas", "2", "--clients", "1", "--cores", "2") as url:
        there = until(lambda: ready(url, 2))
        hosts = [each["address"].rpartition(":")[0] for each in there]
        lost = next(i for i, host in enumerate(hosts) if host != HOSTS[0])  # not the head
        with contextlib.ExitStack() as stack:
            sessions = {}
            while len(sessions) < 2:
                before = [each["taken"] for each in replicas(url)]
                session = stack.enter_context(fleet_connect(url))
                after = [each["taken"] for each in replicas(url)]
                sessions[next(i for i in range(2) if after[i] > before[i])] = session
            (node,) = (n for n in cluster.worker_nodes if n.node_ip_address == hosts[lost])
            cluster.remove_node(node, allow_graceful=False)
            with pytest.raises(WireError):
                sessions[lost].infer(X)
            np.testing.assert_array_equal(sessions[1 - lost].infer(X).output, TRUE)

            def asked_again():  # what clients ask may have been on that node, too
                with contextlib.suppress(PqjaxError):
                    return stack.enter_context(fleet_connect(url))

            np.testing.assert_array_equal(until(asked_again).infer(X).output, TRUE)
            assert there[lost]["name"] not in [
                each["name"] for each in until(lambda: ready(url, 2))
            ]
    cluster.add_node(num_cpus=2, node_ip_address=hosts[lost])


def test_tickets_are_bound_to_certificates_and_good_once(cluster, tmp_path):
    make_certificates(tmp_path / "pki")
    names = "client.pem", "client.key", "ca.pem"
    tls = Tls(*(tmp_path / "pki" / name for name in names))
    words = ("--tls", tmp_path / "pki", "--clients-each", "1")
    with fleet(cluster, tmp_path, *words, scheme="https") as url:
        seat = ask_for_seat(url, tls=tls)
        ticket = bytes.fromhex(seat.ticket)
        # Every replica's certificate names the directory's host, wherever the replica is.
        secure = {"tls": tls, "name": HERE}
        with pqjax.connect(seat.address, ticket=ticket, **secure) as session:
            np.testing.assert_array_equal(session.infer(X).output, TRUE)
            # Another with the same certificate, while there may be one session of each.
            with pytest.raises(Refused, match="this client has as many sessions") as caught:
                fleet_connect(url, tls=tls)
            assert caught.value.reason == "too many sessions"
            for wrong in (ticket, os.urandom(32), b""):  # replayed, wrong, none
                with pytest.raises(Refused, match="takes clients that its directory") as caught:
                    pqjax.connect(seat.address, ticket=wrong, **secure)
                assert caught.value.reason == "no ticket"
        until(lambda: [each["taken"] for each in replicas(url, tls=tls)] == [0])
        with fleet_connect(url, tls=tls) as session:
            np.testing.assert_array_equal(session.infer(X).output, TRUE)

        # A ticket that another has asked for, by whose certificate it is.
        stranger = tmp_path / "stranger"
        make_certificates(stranger)
        stranger_s = Tls(stranger / names[0], stranger / names[1], tmp_path / "pki" / names[2])
        until(lambda: [each["taken"] for each in replicas(url, tls=tls)] == [0])
        theirs = bytes.fromhex(ask_for_seat(url, tls=stranger_s).ticket)
        with pytest.raises(Refused, match="takes clients that its directory"):
            pqjax.connect(seat.address, ticket=theirs, **secure)


def test_answers_a_day_are_counted_over_all_replicas_and_a_directory_s_death(cluster, tmp_path):
    words = ("--replicas", "2", "--clients", "1", "--answers-a-day", "3")
    with fleet(cluster, tmp_path, *words, "--books", tmp_path / "books.json") as url:
        until(lambda: ready(url, 2))
        with fleet_connect(url) as first, fleet_connect(url) as second:
            for session in (first, second):
                np.testing.assert_array_equal(session.infer(X).output, TRUE)
            os.kill(fleet_state(url)["pid"], signal.SIGKILL)
            np.testing.assert_array_equal(second.infer(X).output, TRUE)
            with pytest.raises(WireError, match="all answers"):
                first.infer(X)
            with pytest.raises(Refused, match="this client has made all inferences") as caught:
                fleet_connect(url)
        assert caught.value.reason == "spent"
        assert json.loads((tmp_path / "books.json").read_text())["answers"] == {HERE: 3}


def test_what_cannot_be_deployed_is_one_line_and_leaves_nothing(cluster, tmp_path):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    (tmp_path / "broken.npz").write_bytes(b"no network")

    def deployed(*words):
        return command(
            "fleet", "deploy", "--ray", cluster.address, "--hints", tmp_path / "hints", *words
        )

    large = deployed(tmp_path / "net.npz", "--cores", "64")
    broken = deployed(tmp_path / "broken.npz")
    nowhere = command("fleet", "stop", "--ray", cluster.address)
    absent = command("fleet", "stop", "--ray", f"{HERE}:1")

    for told, said in (
        (large, "no node of the cluster has 64 cores"),
        (broken, "a replica cannot serve: "),
        (nowhere, "no fleet is there"),
        (absent, f"no Ray cluster at '{HERE}:1'"),
    ):
        assert told.returncode == 1 and said in told.stderr.splitlines()[-1], told.stderr


def test_evaluation_over_the_cluster_counts_what_is_right(cluster, tmp_path):
    rng = np.random.default_rng(0)
    out = GRAPH.input.out
    x = rng.integers(out.low, out.high + 1, (50, *out.shape))
    y = np.asarray(pqjax.reference(GRAPH, WEIGHTS, x)).reshape(50, -1).argmax(1)
    y[:10] = (y[:10] + 1) % 5
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    np.savez(tmp_path / "data.npz", x=x, y=y)

    told = command(
        "evaluate", tmp_path / "net.npz", tmp_path / "data.npz", "--ray", cluster.address,
        "--private", "2",
    )  # fmt: skip

    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        "top1 80.00% of 50",
        "2 of 2 private answers equal the integer network's, bit for bit",
    ]
