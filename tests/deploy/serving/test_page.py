"""The page as people meet it, in a browser without a window: nothing asked of other hosts, no error, a true answer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from headstart.core.run import Run

from ... import sounds
from ..test_export_sound import run as recordings  # noqa: F401
from . import browser, stand

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
LOOKS = [(1100, 800, False), (1100, 800, True), (390, 780, False), (390, 780, True)]
FITS = "document.documentElement.scrollWidth <= window.innerWidth"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.tab(tmp_path_factory.mktemp("profile")) as made:
        yield made


def brightness(shot: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(shot)).convert("L")).mean())


def test_pictures_are_chosen_dropped_and_looked_into(exported: Path, tab: browser.Tab, tmp_path: Path) -> None:
    files = [tmp_path / "red.png", tmp_path / "stripes.png", tmp_path / "broken.png"]
    for file, content in zip(files, (stand.picture(1), stand.picture(2), b"no picture"), strict=True):
        file.write_bytes(content)
    tab.troubles.clear()
    with stand.running(exported) as server:
        for width, height, dark in LOOKS:
            tab.open(server.address, width=width, height=height, dark=dark)
            tab.choose("#file", *files)
            tab.wait("document.querySelectorAll('.answer .look').length === 2 && document.querySelector('.answer.bad')")
            heads = tab.evaluate("[...document.querySelectorAll('.answer h2')].map((each) => each.textContent)")
            assert sorted(head.split(" in ")[0] for head in heads)[1:] == ["red", "stripes"]
            assert any("holds no picture" in head for head in heads)
            assert tab.evaluate(FITS)
            assert (brightness(tab.picture()) < 100) == dark
        tab.evaluate("document.querySelector('.look').click()")
        tab.wait("document.querySelector('.explained')")
        assert "49 parts" in tab.evaluate("document.querySelector('.explained').textContent")
        tab.evaluate(
            "new Promise((done) => made('canvas', {width: 9, height: 9}).toBlob(done)).then((blob) => {"
            "const moved = new DataTransfer(); moved.items.add(new File([blob], 'again.png', {type: 'image/png'}));"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: moved, bubbles: true}));"
            "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: moved, bubbles: true}))})"
        )
        tab.wait("document.querySelectorAll('.answer').length === 5")
        tab.evaluate("document.getElementById('live').click()")
        tab.wait("document.getElementById('camera').videoWidth > 0")
        tab.evaluate("document.getElementById('live').click()")
        tab.wait("[...document.querySelectorAll('figcaption')].some((each) => each.textContent === 'camera.jpg')")
        tab.evaluate("document.getElementById('theme').click()")
        assert brightness(tab.picture()) > 100
    broken = [each for each in tab.troubles if "422" not in each]  # the browser notes the refused picture itself
    assert not broken


def test_what_a_page_may_not_do_would_be_noticed(exported: Path, tab: browser.Tab) -> None:
    with stand.running(exported) as server:
        tab.open(server.address, width=800, height=600, dark=False)
        tab.troubles.clear()
        tab.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: 'http://example.org/x'}))"
        )
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"alert(1)\" style=\"color: red\">x</p>')"
        )
        tab.wait("true")
    assert len(tab.troubles) >= 2
    tab.troubles.clear()


@pytest.mark.slow
def test_texts_are_answered_while_they_are_typed(text_run: Run, tab: browser.Tab) -> None:
    tab.troubles.clear()
    with stand.running(text_run.path / "export") as server:
        for width, height, dark in LOOKS:
            tab.open(server.address, width=width, height=height, dark=dark)
            tab.type("#text", "the very dull room")
            tab.wait("document.querySelectorAll('.bars li').length > 1")
            assert tab.evaluate(FITS)
    assert not tab.troubles


@pytest.mark.slow
def test_recordings_are_chosen_and_made(recordings: Run, tab: browser.Tab, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "one.wav"
    soundfile.write(file, sounds.recording(sounds.KINDS[0], np.random.default_rng(0), 0.4), sounds.RATE)
    tab.troubles.clear()
    with stand.running(recordings.path / "export") as server:
        for width, height, dark in LOOKS:
            tab.open(server.address, width=width, height=height, dark=dark)
            tab.choose("#file", file)
            tab.wait("document.querySelectorAll('.bars li').length > 1")
            assert tab.evaluate(FITS)
        tab.evaluate("document.getElementById('live').click()")
        tab.wait("document.getElementById('live').textContent === 'Stop'")
        tab.evaluate("new Promise((done) => setTimeout(done, 800))")
        tab.evaluate("document.getElementById('live').click()")
        tab.wait("[...document.querySelectorAll('figcaption')].some((each) => each.textContent === 'recording.wav')")
        tab.wait("document.querySelectorAll('.answer .bars').length === 2")
    assert not tab.troubles
