"""Who may ask the page and the sidecar: this machine's own, by the right name, with the token."""

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from over_http import client, listening  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402

from pqjax.errors import (  # noqa: E402  # noqa: E402
    AddressError,
    DataError,
    DeadlineExceeded,
    HandshakeError,
    PlanError,
    PqjaxError,
    Refused,
    SessionEnded,
    StoreError,
)
from pqjax.web.guard import HEADERS, Guard, kept_token, new_token  # noqa: E402
from pqjax.web.listening import Listening  # noqa: E402
from pqjax.web.problem import Problem  # noqa: E402

TOKEN = new_token()


@pytest.fixture(scope="module")
def door():
    """A guarded application's address."""
    with listening(
        lambda hosts: Guard(PlainTextResponse("inside"), hosts, TOKEN, {"/style.css"})
    ) as at:
        yield at


@pytest.fixture(scope="module")
def open_door():
    """That of one that asks for no token."""
    with listening(lambda hosts: Guard(PlainTextResponse("inside"), hosts, None)) as at:
        yield at


def test_who_has_the_token_gets_in_by_header_or_cookie(door, open_door):
    with client(door) as browser:
        assert browser.get("/").status_code == 403

        first = browser.get(f"/?token={TOKEN}")
        cookie = first.headers["set-cookie"]

        assert first.status_code == 303 and first.headers["location"] == "/"
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert cookie.startswith(f"pqjax-{door.partition(':')[2]}=")
        assert browser.get("/").text == "inside"
    with client(door, Authorization=f"Bearer {TOKEN}") as program, client(open_door) as anybody:
        assert program.get("/x").text == anybody.get("/x").text == "inside"


OTHERS = {
    "none": "", "short": "x", "cut": TOKEN[:-1], "longer": TOKEN + "x", "foreign": "\xe4",
    "other case": TOKEN.swapcase(),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_another_token_is_refused_wherever_it_stands(door, kind):
    told = OTHERS[kind]
    port = door.partition(":")[2]
    headers = {"Authorization": f"Bearer {told}".strip()}, {"Cookie": f"pqjax-{port}={told}"}
    with client(door) as ask:
        assert ask.get("/", params={"token": told}).status_code == 403
        assert ask.get("/x", params={"token": TOKEN}).status_code == 403  # at the front door alone
        for each in headers:
            raw = {name: value.encode("latin-1") for name, value in each.items()}
            assert ask.get("/", headers=raw).status_code == 403  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "evil.example:{}"])
def test_a_name_that_turns_to_loopback_is_refused(open_door, host):
    host = host.format(open_door.partition(":")[2])
    with client(open_door) as ask:
        answer = ask.get("/", headers={"Host": host})

    assert answer.status_code == 421 and host in answer.json()["error"]["got"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9"},
        {"Origin": "https://{}"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_other_sites_pages_are_refused_even_with_the_token(door, headers):
    headers = {name: value.format(door) for name, value in headers.items()}
    with client(door, Authorization=f"Bearer {TOKEN}") as ask:
        assert ask.post("/infer", headers=headers).status_code == 403
        assert ask.post("/infer", headers={"Origin": f"http://{door}"}).text == "inside"
        assert ask.get("/", headers={"Sec-Fetch-Site": "same-origin"}).text == "inside"


def test_every_answer_has_a_policy_that_lets_nothing_in_from_elsewhere(door, open_door):
    for at, path in ((door, "/style.css"), (door, "/"), (open_door, "/")):
        with client(at) as ask:
            answer = ask.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "server" not in answer.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "http" not in policy and "default-src 'none'" in policy


def test_a_browser_is_told_in_a_page_and_a_program_in_json(door):
    with client(door) as ask:
        page = ask.get("/", headers={"Accept": "text/html,*/*"})
        told = ask.get("/").json()
        escaped = ask.get("/", headers={"Accept": "text/html", "Host": "a<b>"})

    assert page.headers["content-type"].startswith("text/html") and "open the address" in page.text
    assert "open the address" in told["error"]["do"]
    assert "a<b>" not in escaped.text and "a&lt;b&gt;" in escaped.text


def test_a_token_is_kept_in_a_file_for_its_owner(tmp_path):
    path = tmp_path / "token"

    token = kept_token(path)

    assert kept_token(path) == token and len(token) >= 16
    path.write_text("short\n")
    with pytest.raises(DataError, match="16 printable characters or more expected, got 5"):
        kept_token(path)
    with pytest.raises(DataError, match="no token in"):
        kept_token(tmp_path / "none" / "token")


def test_only_loopback_is_listened_on():
    with pytest.raises(AddressError, match="is not a loopback address"):
        Listening("0.0.0.0:0")
    with Listening("127.0.0.1:0") as one:
        assert one.address in one.hosts
        with pytest.raises(AddressError, match="cannot listen on .*another port"):
            Listening(one.address)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("x", "busy"), 503), (Refused("x", "spent"), 429), (Refused("x", "no ticket"), 502),
        (SessionEnded("x", "spent"), 429), (SessionEnded("x", "closing"), 502),
        (DeadlineExceeded("x"), 504), (HandshakeError("x"), 502), (StoreError("x"), 500),
        (DataError("x"), 400), (PlanError("x"), 500), (KeyError("secret"), 500),
        (Problem(418, "Teapot", "x"), 418),
    ],
)  # fmt: skip
def test_every_kind_of_error_has_its_status(error, status):
    problem = Problem.of(error)

    assert problem.status == status and "secret" not in str(problem)
    assert problem.remedy or not isinstance(error, PqjaxError)
    assert set(problem.tree["error"]) == {"status", "kind", "message", "expected", "got", "do"}
