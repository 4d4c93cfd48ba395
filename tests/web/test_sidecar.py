"""`pqjax client` over HTTP: the integer network's answers, and errors that say what to do."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from pictured import picture_file  # noqa: E402
from serving import GRAPH, PLAN, WEIGHTS, X, command_here, serving  # noqa: E402
from sidecars import asked, error, npy, outputs, over_http  # noqa: E402

import pqjax  # noqa: E402
from pqjax.questions import question_of  # noqa: E402
from pqjax.web.upload import MOST_BYTES  # noqa: E402


@pytest.fixture(scope="module")
def numbers():
    """A sidecar of a network of integers."""
    with serving() as (address, _), asked(address) as ask:
        yield ask


def test_arrays_and_lists_are_answered_as_the_integer_network_does(numbers):
    wanted = np.asarray(pqjax.reference(GRAPH, WEIGHTS, X))

    by_array = numbers.post("/infer", content=npy(X))
    by_columns = numbers.post("/infer", content=npy(np.asfortranarray(X)))
    by_lists = numbers.post("/infer?top=2", json={"input": X.tolist()})

    for answer in (by_array, by_columns, by_lists):
        np.testing.assert_array_equal(outputs(answer), wanted[None])
    assert len(by_lists.json()["answers"][0]["classes"]) == min(2, wanted.size)
    told = by_array.json()
    assert told["protocol"] == "pqjax" and told["seconds"]["total"] > 0
    made = PLAN.schedule(1)
    for phase in ("offline", "online"):
        bits = sum(line.cost.bits for line in made if line.phase == phase)
        assert 8 * sum(told["bytes"][phase].values()) >= bits > 0
    assert told["bytes"]["setup"] == {"sent": 0, "received": 0}


def test_several_inputs_are_several_inferences(numbers):
    two = np.stack([X, np.roll(X, 1)])

    answer = numbers.post("/infer", content=npy(two))

    np.testing.assert_array_equal(outputs(answer), pqjax.reference(GRAPH, WEIGHTS, two))


def test_two_requests_at_once_are_answered_one_after_the_other(numbers):
    inputs = [np.roll(X, i) for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda x: numbers.post("/infer", content=npy(x)), inputs))

    for x, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(outputs(answer)[0], pqjax.reference(GRAPH, WEIGHTS, x))


def test_what_the_network_takes_and_whether_anybody_is_there(numbers):
    model, health = numbers.get("/model").json(), numbers.get("/health").json()

    assert model["input"] == {"shape": list(X.shape), "low": GRAPH.input.out.low,
                              "high": GRAPH.input.out.high, "batch": 1}  # fmt: skip
    assert model["bytes"]["online"] == -(-PLAN.cost("online").bits // 8)
    assert health["state"] == "alive" and health["waiting"] == 0


BAD = {
    "nothing": (b"", 400, "nothing in the request"),
    "no picture": (b"GIF89a?", 400, "is not a readable picture"),
    "floats": (npy(X * 1.0), 400, "float64, and the network takes integers"),
    "booleans": (npy(X > 0), 400, "bool, and the network takes integers"),
    "another shape": (npy(X[:1]), 400, "shape"),
    "out of range": (npy(X + 1000), 400, "values must lie in"),
    "too many": (npy(np.stack([X] * 101)), 400, "at most 100 inferences"),
    "a cut array": (npy(X)[:-5], 400, "cannot read the input"),
    "a huge array": (npy(X)[:40] + b"9" * 8 + npy(X)[48:], 400, "cannot read the input"),
    "no array": (b"\x93NUMPY\x09\x09", 400, "cannot read the input"),
    "no JSON": (b"{", 400, "not JSON"),
    "another key": (b'{"inputs": [1]}', 400, "one key, input, expected, got inputs"),
    "ragged lists": (b'{"input": [[1], [1, 2]]}', 400, "cannot read the input"),
    "words": (b'{"input": ["one"]}', 400, "the network takes integers"),
    "a number": (b'{"input": 7}', 400, "holds no input"),
    "long integers": (b'{"input": [' + b"9" * 40 + b"]}", 400, "the network takes integers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_and_says_why(numbers, kind):
    raw, status, words = BAD[kind]

    told = error(numbers.post("/infer", content=raw), status)

    assert re.search(words, told["message"])
    if kind in ("another shape", "out of range"):
        assert str(list(X.shape)) in told["expected"] and "int64" in told["got"]


def test_after_bad_input_the_session_goes_on(numbers):
    error(numbers.post("/infer", content=npy(X[:1])), 400)

    assert outputs(numbers.post("/infer", content=npy(X))).size


def test_other_addresses_methods_and_options_are_refused(numbers):
    assert "/infer" in error(numbers.get("/nothing"), 404)["expected"]
    error(numbers.get("/infer"), 405)
    error(numbers.post("/infer?top=0", content=npy(X)), 400)
    error(numbers.post("/infer?top=x", content=npy(X)), 400)
    error(numbers.post("/infer", content=bytes(MOST_BYTES + 1)), 413)
    parts = (bytes(1 << 20) for _ in range(33))  # no length is told beforehand
    error(numbers.post("/infer", content=parts), 413)


def test_a_bug_tells_nothing(capsys):
    class Broken:
        waiting = 0

        def ask(self, question, top):
            raise RuntimeError("what nobody is to know")

    with over_http(Broken()) as ask:
        answer = ask.post("/infer", content=npy(X))

    assert "nobody" not in answer.text and error(answer, 500)["kind"] == "Fault"
    assert "what nobody is to know" in capsys.readouterr().err


def test_what_is_asked_is_read_from_bytes_as_it_is_from_files(tmp_path):
    np.testing.assert_array_equal(question_of(npy(X), "x").values, X)  # pyright: ignore[reportAttributeAccessIssue]
    raw, pixels = picture_file()
    np.testing.assert_array_equal(question_of(raw, "x").pixels, pixels)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7800"])
def test_it_listens_on_loopback_alone(listen):
    done = command_here("client", "127.0.0.1:1", "--listen", listen)

    assert done.returncode == 1 and "is not a loopback address" in done.stderr


def test_without_a_server_or_the_packages_there_is_one_line(monkeypatch):
    done = command_here("client", "127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and "nobody listens on 127.0.0.1:1" in done.stderr.splitlines()[-1]

    for name in [name for name in sys.modules if name.startswith(("pqjax.web", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    for command in (("client", "127.0.0.1:1"), ("demo",)):
        done = command_here(*command)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1 and "pip install 'pqjax[web]'" in line
