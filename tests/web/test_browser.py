"""The page of `pqjax demo` in a real browser: with mouse or keyboard, wide or narrow, light or dark."""

import contextlib
import os
import signal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
pytest.importorskip("playwright")
from browsing import WAIT_MS, browser, gone, opened, running, server_of, wait_for_answer  # noqa: E402
from pictured import NAMES, picture_file, picture_network  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from serving import X  # noqa: E402

import pqjax  # noqa: E402
from pqjax.pictures import picture_input  # noqa: E402

pytestmark = pytest.mark.slow
expect.set_options(timeout=WAIT_MS)
NETWORK, PARAMETERS = picture_network()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network, pictures, and what is no picture."""
    folder = tmp_path_factory.mktemp("files")
    pqjax.save_model(folder / "net.npz", NETWORK, PARAMETERS, {"classes": NAMES})
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(picture_file(seed=seed)[0])
    (folder / "text.png").write_text("no picture")
    np.save(folder / "x.npy", X)
    (folder / "long.png").write_bytes(bytes((32 << 20) + 1))
    return folder


@pytest.fixture(scope="module")
def found():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def url(folder, found):
    """A demo that is ready."""
    with running(str(folder / "net.npz")) as (url, _), opened(found, url) as page:
        expect(page.locator("#status")).to_contain_text("Ready")
        yield url


def likeliest(seed):
    x = picture_input(NETWORK, picture_file(seed=seed)[1])
    return NAMES[int(pqjax.reference(NETWORK, PARAMETERS, x).argmax())]


def test_a_picture_goes_up_and_the_answer_is_the_integer_networks(found, url, folder):
    with opened(found, url) as page:
        assert "token" not in page.url
        page.set_input_files("#file", folder / "0.png")

        assert wait_for_answer(page, "0.png") == likeliest(0)

        assert page.locator("#classes tbody tr").count() == 10
        assert page.locator("#classes tbody th").first.inner_text() == likeliest(0)
        assert page.locator("#bar").evaluate("it => it.value") == 1
        expect(page.locator("#exact")).to_contain_text("to the bit")
        expect(page.locator("#entropy")).to_contain_text("bits a byte")
        for image in ("#seen", "#noise"):
            assert page.locator(image).evaluate("it => it.complete && it.naturalWidth > 0")
        sums = page.locator("#bytes tr.sum td").all_inner_texts()
        assert all("B" in text for text in sums[:2])
        assert page.locator("#timeline svg").count() == 2
        assert page.locator("#seconds tbody tr").count() >= 3
        page.get_by_text("What every layer costs").click()
        expect(page.locator("#layers tbody tr")).to_have_count(
            len(pqjax.plan(NETWORK, inferences=100).steps)
        )


def test_what_goes_wrong_is_said_and_what_to_do(found, url, folder):
    said = {
        "text.png": "not a readable picture",
        "x.npy": "this is an array",
        "long.png": "too long",
    }
    with opened(found, url) as page:
        alert = page.locator("#problem")
        for name, words in said.items():
            page.set_input_files("#file", folder / name)
            expect(alert).to_contain_text(words)
            expect(alert).to_contain_text("what to do")
        page.set_input_files("#file", folder / "1.png")
        expect(alert).to_be_empty()
        assert wait_for_answer(page, "1.png") == likeliest(1)


def test_who_has_no_token_or_a_wrong_address_gets_a_page_that_says_so(found, url):
    base = url.split("/?")[0]
    with opened(found, f"{base}/") as page:
        expect(page.locator("h1")).to_contain_text("does not show the token")
        expect(page.get_by_role("alert")).to_contain_text("open the address that pqjax printed")
    with opened(found, url) as page:
        answer = page.goto(f"{base}/nothing")
        assert answer is not None and answer.status == 404
        expect(page.get_by_role("alert")).to_contain_text("/pictures")
    with opened(found, url.replace("127.0.0.1", "localhost")) as page:
        expect(page.locator("h1")).to_have_text("Private inference")


def test_two_tabs_have_a_picture_each_and_see_each_others(found, url, folder):
    with opened(found, url) as one, opened(found, url) as two:
        one.set_input_files("#file", folder / "1.png")
        two.set_input_files("#file", folder / "2.png")

        assert wait_for_answer(one, "1.png") == likeliest(1)
        assert wait_for_answer(two, "2.png") == likeliest(2)

        expect(one.locator("#h-way")).to_have_text("1.png")
        expect(two.locator("#h-way")).to_have_text("2.png")
        one.locator("#earlier button", has_text="2.png").last.click()
        expect(one.locator("#h-way")).to_have_text("2.png")
        assert wait_for_answer(one, "2.png") == likeliest(2)


def focused(page):
    """What has the focus: its id or value or tag."""
    return page.evaluate(
        "() => { const a = document.activeElement;"
        " return a.id || a.value || a.textContent.trim() || a.tagName }"
    )


def tab_to(page, wanted, most=30):
    for _ in range(most):
        page.keyboard.press("Tab")
        if focused(page) == wanted:
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"{wanted} cannot be reached")


def test_all_of_it_works_by_keyboard(folder, found):
    with running(str(folder / "net.npz")) as (url, _), opened(found, url) as page:
        asked = []
        page.on(
            "filechooser", lambda chooser: asked.append(chooser)
        )  # long before: it takes the browser a moment
        expect(page.locator("#status")).to_contain_text("Ready, by preset pqjax.")
        tab_to(page, "file")
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        asked[0].set_files(folder / "0.png")
        assert wait_for_answer(page, "0.png") == likeliest(0)
        expect(page.get_by_role("radio", name="privquant")).to_be_enabled()
        tab_to(page, "pqjax")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#status")).to_contain_text("Ready, by preset pqjax-ot.")
        assert focused(page) == "pqjax-ot"
        tab_to(page, "What every layer costs")
        page.keyboard.press("Enter")
        expect(page.locator("#layers caption")).to_contain_text("by pqjax-ot")
        page.set_input_files("#file", folder / "1.png")
        assert wait_for_answer(page, "1.png") == likeliest(1)
        expect(page.locator("#doing")).to_contain_text("by pqjax-ot")


def test_a_screen_reader_finds_everything_by_its_name(found, url, folder):
    with opened(found, url) as page:
        page.set_input_files("#file", folder / "0.png")
        wait_for_answer(page, "0.png")

        roles: tuple[tuple[Any, str], ...] = (
            ("progressbar", "How much of the inference is done"), ("table", "What leaves this machine"),
            ("table", "The ten likeliest classes"), ("table", "Seconds of both parties"),
            ("radio", "pqjax-ot"), ("img", "Your picture"), ("img", "Noise"), ("img", "You over"),
            ("region", "Presets"), ("status", ""), ("heading", "The answer"),
        )  # fmt: skip
        for role, name in roles:
            assert page.get_by_role(role, name=name).count(), (role, name)
        assert page.locator("h1").count() == 1
        assert page.locator("html").get_attribute("lang") == "en"
        nameless = page.evaluate(
            "() => [...document.querySelectorAll('img:not([alt]), input:not([type=radio])')]"
            ".filter(it => !it.alt && !it.labels?.length).length"
        )
        assert nameless == 0
        assert page.locator("#bar").get_attribute("aria-valuetext") == "100 %"


def test_a_narrow_screen_needs_no_sideways_scrolling(found, url, folder):
    with opened(found, url, viewport={"width": 320, "height": 640}) as page:
        page.set_input_files("#file", folder / "0.png")
        wait_for_answer(page, "0.png")
        page.get_by_text("What every layer costs").click()
        expect(page.locator("#layers tbody tr").first).to_be_visible()

        assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
        assert page.locator("#drop").bounding_box()["width"] <= 320  # pyright: ignore[reportOptionalSubscript]


CONTRAST = """selector => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const it = document.querySelector(selector);
  let ground = it, back;
  do { back = rgb(getComputedStyle(ground).backgroundColor); ground = ground.parentElement; }
  while (back.length === 4 && back[3] === 0 && ground);
  const [a, b] = [light(rgb(getComputedStyle(it).color)), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(found, url, folder, scheme):
    with opened(found, url, color_scheme=scheme) as page:
        page.set_input_files("#file", folder / "text.png")
        expect(page.locator("#problem b")).to_be_visible()
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        least = min(
            (page.evaluate(CONTRAST, selector), selector)
            for selector in ("h1", "#status", "#network", "#problem b", "#problem dt", "#presets td",
                             "#presets th", "#presets label span", "#presets caption", "#rates")
        )  # fmt: skip

    assert (sum(int(n) for n in ground[4:-1].split(",")) < 3 * 128) == (scheme == "dark")
    assert least >= (4.5, "")


def test_a_server_that_dies_and_a_demo_that_ends_are_told(folder, found):
    with contextlib.ExitStack() as stack:
        url, process = stack.enter_context(running(str(folder / "net.npz")))
        page = stack.enter_context(opened(found, url))
        expect(page.locator("#status")).to_contain_text("Ready")
        os.kill(server_of(process), signal.SIGKILL)
        page.set_input_files("#file", folder / "0.png")
        expect(page.locator("#problem")).to_contain_text("the server's process ended")
        expect(page.locator("#problem")).to_contain_text("choose a preset")
        page.get_by_role("radio", name="pqjax-ot").click()
        expect(page.locator("#status")).to_contain_text("Ready, by preset pqjax-ot")
        page.set_input_files("#file", folder / "1.png")
        assert wait_for_answer(page, "1.png") == likeliest(1)

        server = server_of(process)
        process.send_signal(signal.SIGTERM)
        expect(page.locator("#problem")).to_contain_text("pqjax demo does not answer")
        assert process.wait(30) == 130 and gone(server)


def test_a_demo_that_is_killed_takes_its_server_along(folder):
    with running(str(folder / "net.npz")) as (_, process):
        server = server_of(process)
        process.kill()

        assert gone(server)
