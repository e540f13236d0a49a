"""The web page, in a real browser without a window; skipped where there is none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mint.serve.limits import Limits
from tiny_server import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from mint import Mint

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (`apt-get install chromium`)"),
]
SECONDS = 60_000
"""Milliseconds that an answer may take."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def indexed(mint: Mint, served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with an index of the clips."""
    folder = tmp_path_factory.mktemp("index") / "index"
    mint.index([served_run.parent / "tones.jsonl"], folder)
    with Running(mint, Limits(timeout=60, upload_bytes=4 << 20), index=folder) as running:
        yield running


@pytest.fixture
def page(browser: Browser, indexed: Running) -> Iterator[Page]:
    """The page, as it was opened; at the end it must have had no error, and have asked no other server."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, permissions=["microphone"])
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    faults: list[str] = []
    addresses: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(indexed.address)
    yield page

    context.close()
    assert [fault for fault in faults if "status of 4" not in fault] == []
    assert [url for url in addresses if not url.startswith((indexed.address, "data:", "blob:"))] == []


def text_of(page: Page, selector: str) -> str:
    """The text of an element, as soon as it has one."""
    page.wait_for_function("s => document.querySelector(s).textContent.trim() !== ''", arg=selector)
    return page.locator(selector).inner_text()


def painted(page: Page, selector: str) -> int:
    """Number of pixels of a canvas that are not empty."""
    script = """c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"""
    count: int = page.locator(selector).evaluate(script)
    return count


def listen(page: Page, clip: Path) -> None:
    page.set_input_files("#file", clip)
    page.wait_for_function("n => document.querySelector('#status').textContent.startsWith(n + ',')", arg=clip.name)


def test_a_sound_is_shown_and_described(page: Page, mint: Mint, clips: list[Path]) -> None:
    assert page.locator(".needs-sound:visible").count() == 0
    listen(page, clips[0])
    shown = " ".join(text_of(page, "#caption").split())
    plain = " ".join(re.sub(r"[\x00-\x1f]", " ", mint.caption(clips[0])).split())
    assert re.sub(r"\W", "", shown) == re.sub(r"\W", "", plain)
    assert painted(page, "#waveform") > 1000
    assert painted(page, "#attention") > 1000
    assert page.locator("#spectrogram").evaluate("image => image.naturalWidth") > 10
    assert page.locator("#axis span").last.inner_text() == "0:00.4"


def test_labels_with_bars(page: Page, mint: Mint, clips: list[Path]) -> None:
    listen(page, clips[0])
    page.fill("#labels", "low, middle, high")
    page.click("#labels-form button")
    page.wait_for_selector("#bars li")
    scores = mint.classify(clips[0], ["low", "middle", "high"])
    best = sorted(scores, key=lambda name: -scores[name])
    assert page.locator("#bars .name").all_inner_texts() == best
    values = page.locator("#bars progress").evaluate_all("bars => bars.map(bar => bar.value)")
    assert sum(values) == pytest.approx(1, abs=1e-3)


def test_a_question(page: Page, mint: Mint, clips: list[Path]) -> None:
    listen(page, clips[0])
    page.fill("#question", "The pitch is")
    page.press("#question", "Enter")
    text_of(page, "#answer")


def test_examples_recordings_and_dropped_files(page: Page, clips: list[Path]) -> None:
    for name in ("bell", "rain", "drum", "whistle"):
        page.click(f"[data-example={name}]")
        status = f"the example {name}, 0:04"
        page.wait_for_function("n => document.querySelector('#status').textContent === n", arg=status)

    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1500)
    page.click("#record")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('the recording,')")
    assert painted(page, "#waveform") > 1000

    data = list(clips[0].read_bytes())
    transfer = page.evaluate_handle(
        """data => { const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(data)], "dropped.wav")); return moved; }""",
        data,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('dropped.wav,')")


def test_search(page: Page, mint: Mint, clips: list[Path]) -> None:
    assert "in 12 clips" in text_of(page, "#search-title")
    page.fill("#query", "a low tone")
    page.press("#query", "Enter")
    page.wait_for_selector("#hits li")
    expected = mint.search("a low tone", list(clips))
    assert page.locator("#hits .name").first.inner_text().endswith(clips[expected[0][0]].name)

    assert page.locator("#like").is_disabled()
    listen(page, clips[3])
    page.click("#like")
    page.wait_for_function("n => document.querySelector('#hits .name').textContent.endsWith(n)", arg=clips[3].name)


def test_what_is_no_sound_is_told(page: Page, clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "letter.wav").write_text("Dear Sir or Madam")
    page.set_input_files("#file", tmp_path / "letter.wav")
    page.wait_for_selector("#status.error")
    assert "not audio that can be decoded" in text_of(page, "#status")
    (tmp_path / "large.wav").write_bytes(bytes((4 << 20) + 1))
    page.set_input_files("#file", tmp_path / "large.wav")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('larger than 4 MiB')")
    listen(page, clips[0])
    assert page.locator("#status.error").count() == 0


def test_by_keyboard_alone(page: Page) -> None:
    """Tab reaches everything in the order of the page, and every control has a name."""
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.textContent"))
    assert reached[:3] == ["Skip to the content", "file", "record"]
    assert reached[3:7] == ["bell", "rain", "drum", "whistle"]
    page.locator("[data-example=bell]").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#status').textContent === 'the example bell, 0:04'")

    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, audio, canvas, img, table')].filter(one =>
            !(one.labels?.length || one.getAttribute('aria-label') || one.alt || one.textContent.trim())
        ).map(one => one.id)"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Browser, indexed: Running, clips: list[Path], scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(indexed.address)
    listen(page, clips[0])
    page.click("#labels-form button")
    page.wait_for_selector("#bars li")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360

    # Text stands out from what is behind it by 4.5 to 1 (WCAG, level AA).
    for selector in ("body", ".quiet", "#labels-form button", "#status", "#caption"):
        assert contrast(page, selector) >= 4.5, selector
    context.close()


def contrast(page: Page, selector: str) -> float:
    """Contrast of a text with what is behind it, as WCAG defines it."""
    colours = page.locator(selector).first.evaluate(
        """one => { const text = getComputedStyle(one).color; let behind = one;
            const clear = one => getComputedStyle(one).backgroundColor === 'rgba(0, 0, 0, 0)';
            while (behind.parentElement && clear(behind)) behind = behind.parentElement;
            return [text, getComputedStyle(behind).backgroundColor]; }"""
    )
    lights = []
    for colour in colours:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_the_token_is_asked_for(browser: Browser, mint: Mint, clips: list[Path]) -> None:
    with Running(mint, token="open-sesame") as running:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(running.address)
        page.wait_for_selector("#login:visible")
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.wait_for_function(
            "() => document.querySelector('#status').textContent.includes('token is missing or wrong')"
        )
        page.fill("#token", "open-sesame")
        page.press("#token", "Enter")
        page.wait_for_function("() => document.querySelector('#model').textContent === 'tiny'")
        listen(page, clips[0])
        context.close()
