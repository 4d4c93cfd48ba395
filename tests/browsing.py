"""`pqjax demo` in a process, and a real browser that looks at it."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from serving import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 60_000
PHONE = {"viewport": {"width": 320, "height": 640}}


def chromium() -> str:
    """Where a browser is; skips the test where none is."""
    pytest.importorskip("playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    return found


@contextlib.contextmanager
def browser() -> Iterator["Browser"]:
    """One that fetches nothing from elsewhere by itself."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        found = playwright.chromium.launch(executable_path=path, args=args)
        try:
            yield found
        finally:
            found.close()


@contextlib.contextmanager
def running(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`pqjax demo` with these words: the address that it prints, with the token, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pqjax.cli", "demo", *words, "--listen", "127.0.0.1:0"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()


def server_of(process: subprocess.Popen[str], patience_s: float = 60.0) -> int:
    """The number of the server's process that a demo has."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                words = (status.parent / "cmdline").read_bytes().split(b"\0")
                if f"PPid:\t{process.pid}\n" in status.read_text() and b"serve" in words:
                    return int(status.parent.name)
        time.sleep(0.05)
    raise AssertionError("the demo has no server")


def gone(number: int, patience_s: float = 30.0) -> bool:
    """Whether a process is over, or soon."""
    until = time.monotonic() + patience_s
    while pathlib.Path(f"/proc/{number}").exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def opened(found: "Browser", url: str, **options: Any) -> Iterator["Page"]:
    """A tab in a browser without a past; what it complains of fails, and so does going elsewhere."""
    context = found.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    complaints: list[str] = []
    here = url.split("/?")[0]
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(here) else complaints.append(r.url))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    expected = "Failed to load resource"  # what was refused, on purpose
    assert [text for text in complaints if not text.startswith(expected)] == []


def wait_for_answer(page: "Page", name: str = "") -> str:
    """The likeliest class that the page says of a picture, once all is done."""
    page.locator("#h-way", has_text=name).wait_for()
    page.locator("#doing", has_text="Answered in").wait_for()
    page.locator("#timeline svg").nth(1).wait_for()
    return page.inner_text("#best").removeprefix("Most likely: ").rstrip(".")
