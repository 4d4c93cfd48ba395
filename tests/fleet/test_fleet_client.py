"""What a client of a fleet meets where no fleet is."""

import contextlib
import http.server
import threading

import numpy as np
import pytest
from serving import X, command_here, serving

from pqjax.errors import AddressError, HandshakeError, InputError, PeerGone, WireError
from pqjax.fleet import fleet_connect
from pqjax.fleet.client import directory_place, fleet_state, fleet_target


@contextlib.contextmanager
def answering(status, body):
    """A web server that says the same to everybody; its URL."""

    class Same(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://a:1", "http://a", "http://a:1/b", "http://:1", "http://a:x", ""],
)
def test_what_is_no_directory_s_url_is_an_address_error(url):
    with pytest.raises(AddressError, match="the URL of a fleet's directory expected"):
        fleet_connect(url)


def test_targets_name_a_directory_and_a_model():
    assert fleet_target("fleet+http://a:1") == ("http://a:1", None)
    assert fleet_target("fleet+https://a:1/cats@2") == ("https://a:1", "cats@2")
    assert directory_place("http://[::1]:8000") == ("http", "::1", 8000)
    with pytest.raises(InputError, match="NAME or NAME@VERSION expected"):
        fleet_target("fleet+http://a:1/../b")


def test_nobody_there_another_server_there_and_no_certificates_are_told_apart():
    with pytest.raises(PeerGone, match="no directory of a fleet answers at http://127.0.0.1:9"):
        fleet_connect("http://127.0.0.1:9")
    with serving() as (address, _), pytest.raises(WireError, match="directory of a fleet"):
        fleet_connect(f"http://{address}")
    with pytest.raises(AddressError, match="not a loopback address"):
        fleet_connect("http://192.0.2.1:8000")
    with pytest.raises(InputError, match="needs certificates"):
        fleet_connect("https://192.0.2.1:8000")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"address": "a:1", "ticket": "00", "model": null}',
        b'{"address": 1, "ticket": "%s", "model": null}' % (64 * b"0"),
        b'{"address": "a:1", "ticket": "%s", "model": null}' % (64 * b"x"),
    ],
)  # fmt: skip
def test_a_web_server_that_is_no_directory_is_a_handshake_error(body):
    with answering(200, body) as url:
        with pytest.raises(HandshakeError, match="is no directory of a fleet"):
            fleet_connect(url)
        with pytest.raises(HandshakeError, match="no directory of a fleet|tells no state"):
            fleet_state(url)


def test_a_refusal_is_one_line_and_cannot_steer_a_terminal(tmp_path):
    np.save(tmp_path / "x.npy", X)

    with answering(503, b'{"error": "full\\u001b[2J\\n", "refused": "busy"}') as url:
        told = command_here("infer", f"fleet+{url}", tmp_path / "x.npy", "--patience", "0.1")

    assert told.returncode == 1 and told.stderr.splitlines()[-1] == f"pqjax: {url}: full[2J"


def test_an_emulated_network_is_for_one_server(tmp_path):
    np.save(tmp_path / "x.npy", X)

    told = command_here("infer", "fleet+http://a:1", tmp_path / "x.npy", "--link", "lan")

    assert told.returncode == 1 and "--link emulates a network to one server" in told.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        ("fleet state http://127.0.0.1:9", "no directory of a fleet answers"),
        ("fleet state 127.0.0.1:9", "the URL of a fleet's directory expected"),
        ("fleet deploy none.npz --ray 127.0.0.1:9", "no network file at"),
        ("fleet deploy none.npz --replicas 3:1", "1 <= LEAST <= MOST expected, got 3:1"),
        ("fleet deploy none.npz --replicas many", "LEAST:MOST or N expected"),
        ("fleet deploy none.npz --listen 0.0.0.0:8000", "not a loopback address"),
    ],
)
def test_mistakes_on_the_command_line_are_one_clear_line(words, said):
    told = command_here(*words.split())

    assert told.returncode in (1, 2) and told.stdout == ""
    assert said in told.stderr.splitlines()[-1]


def test_without_ray_one_line_says_what_to_install(monkeypatch, tmp_path):
    from pqjax.fleet.ray import ray

    ray.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (tmp_path / "net.npz").touch()

    told = [command_here("fleet", "deploy", tmp_path / "net.npz"), command_here("fleet", "stop")]

    ray.cache_clear()
    for each in told:
        assert each.returncode == 1
        assert each.stderr.splitlines()[-1].endswith("pip install pqjax[fleet]")
