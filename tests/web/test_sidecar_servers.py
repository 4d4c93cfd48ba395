"""`pqjax client` and its server: names of classes, limits, a server that is gone, the command."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from pictured import NAMES, picture_file, picture_network  # noqa: E402
from serving import GRAPH, ROOT, WEIGHTS, X, serving  # noqa: E402
from sidecars import asked, error, npy, outputs  # noqa: E402

import pqjax  # noqa: E402
from pqjax.engine.desk import Limits, LimitsDesk  # noqa: E402
from pqjax.pictures import picture_input  # noqa: E402


def test_a_picture_is_fitted_and_its_classes_have_names():
    graph, weights = picture_network()
    raw, pixels = picture_file()
    with serving(plan=pqjax.plan(graph, classes=NAMES), weights=weights) as (address, _):
        with asked(address) as ask:
            answer = ask.post("/infer?top=12", content=raw)
            model = ask.get("/model").json()

    wanted = pqjax.reference(graph, weights, picture_input(graph, pixels))
    np.testing.assert_array_equal(outputs(answer)[0], wanted)
    classes = answer.json()["answers"][0]["classes"]
    assert [NAMES.index(each["name"]) for each in classes] == [each["class"] for each in classes]
    assert classes[0]["class"] == int(np.argmax(wanted))
    assert answer.json()["done"] == "scaled and cut from 20x16 to 8x8"
    assert model["classes"] == list(NAMES) and model["input"]["shape"] == [8, 8, 3]


def test_more_than_may_wait_are_told_to_come_later():
    with serving() as (address, _), asked(address, most_waiting=0) as ask:
        answer = ask.post("/infer", content=npy(X))

    assert "later" in error(answer, 503)["do"] and int(answer.headers["Retry-After"]) > 0


def test_a_session_that_was_idle_for_too_long_is_begun_anew():
    with serving(idle_s=0.3) as (address, ends), asked(address) as ask:
        ends.get(timeout=20)
        answer = ask.post("/infer", content=npy(X))

    np.testing.assert_array_equal(outputs(answer)[0], pqjax.reference(GRAPH, WEIGHTS, X))


def test_a_server_that_is_gone_is_an_error_and_another_one_is_found():
    with contextlib.ExitStack() as stack:
        with serving() as (address, _):
            ask = stack.enter_context(asked(address))
            assert outputs(ask.post("/infer", content=npy(X))).size
        told = error(ask.post("/infer", content=npy(X)), 502)
        with serving(address=address):
            again = ask.post("/infer", content=npy(X))

    assert told["kind"] == "PeerGone" and "nobody listens" in told["message"]
    assert outputs(again).size


def test_a_client_that_has_had_its_answers_is_told_so():
    desk = LimitsDesk(Limits(each_inferences=1))
    with serving(desk=desk) as (address, _), asked(address) as ask:
        assert outputs(ask.post("/infer", content=npy(X))).size
        answer = ask.post("/infer", content=npy(X))

    assert "tomorrow" in error(answer, 429)["do"]


def test_the_command_asks_for_its_token_and_ends_with_ctrl_c(tmp_path):
    token = tmp_path / "token"
    with serving() as (address, _):
        process = subprocess.Popen(
            [sys.executable, "-m", "pqjax.cli", "client", address, "--listen", "127.0.0.1:0",
             "--token", str(token)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            request = urllib.request.Request(f"{url}/infer", npy(X), method="POST")
            with pytest.raises(urllib.request.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == 403
            refused.value.close()
            assert oct(token.stat().st_mode)[-3:] == "600"
            request.add_header("Authorization", f"Bearer {token.read_text().strip()}")
            with urllib.request.urlopen(request) as answer:
                told = json.load(answer)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()

    np.testing.assert_array_equal(told["answers"][0]["output"], pqjax.reference(GRAPH, WEIGHTS, X))
    assert process.returncode == 130 and err.splitlines()[-1] == "pqjax: interrupted"
    assert token.read_text().strip() not in out + err
