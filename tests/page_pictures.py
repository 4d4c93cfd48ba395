"""Makes the pictures of the page in docs/pictures, with a real browser and a real network.

PYTHONPATH=.:tests python -m page_pictures [NETWORK] [PICTURE]
"""

import io
import pathlib
import sys

from browsing import browser, opened, running, wait_for_answer
from PIL import Image

OUT = pathlib.Path(__file__).parents[1] / "docs" / "pictures"
WIDE, NARROW = {"width": 900, "height": 1000}, {"width": 320, "height": 900}
WAIT_MS = 600_000
VIEWS = {
    "page": {"viewport": WIDE},
    "page_dark": {"viewport": WIDE, "color_scheme": "dark"},
    "page_narrow": {"viewport": NARROW},
}


def main(picture: str, *words: str) -> None:
    """A picture that is asked about, while it is and when it is done."""
    with running(*words) as (url, _), browser() as found:
        for name, options in VIEWS.items():
            with opened(found, url, **options) as page:
                page.set_default_timeout(WAIT_MS)
                if name == "page":
                    page.locator("#status", has_text="Ready").wait_for()
                    page.set_input_files("#file", picture)
                    bar = page.locator("#bar")
                    while bar.evaluate("it => it.value") < 0.4:
                        page.wait_for_timeout(50)
                    keep("page_on_its_way", page.screenshot())
                page.locator("#presets tr", has_text="privquant").locator(
                    "td", has_text="B"
                ).first.wait_for()
                wait_for_answer(page)
                keep(name, page.screenshot(full_page=name != "page_dark"))


def keep(name: str, png: bytes) -> None:
    """Writes a picture in few colours: it is noise for a good part, and has to be small."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
