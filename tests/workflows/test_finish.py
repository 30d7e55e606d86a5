"""The end of a run: what is shown of its rows can never cost it its result."""

from __future__ import annotations

import pytest

from headstart.core.events import Notice
from headstart.data.modalities import image
from headstart.report import contents, formats, story


@pytest.mark.parametrize("channels", [2, 5])
def test_rows_with_any_number_of_bands_are_shown(fit, pictures, channels):
    run = fit(pictures(30, channels=channels), channels=channels)
    assert list(run.path.glob("previews/*.jpg"))
    assert list(run.path.glob("previews/network-*.png"))


def test_a_row_that_cannot_be_shown_is_left_out(fit, pictures, monkeypatch):
    def fails(_item):
        raise OSError("the file is gone")

    monkeypatch.setattr(image, "preview", fails)
    run = fit(pictures(30))
    assert run.read("result.json") is not None
    assert (run.path / "report.html").is_file()
    assert not list(run.path.glob("previews/*.jpg"))
    assert any("the file is gone" in notice.message for notice in fit.said(Notice))


def test_the_tiles_are_of_the_answers_as_the_model_gives_them(fit, pictures):
    """With the temperature, as the terminal and `evaluate` tell them."""
    run = fit({"train": pictures(30), "val": pictures(20, 1), "test": pictures(20, 2)})
    result = run.read("result.json")
    assert result["temperature"] != pytest.approx(1.0, abs=0.01)
    told = formats.score(result["metrics"]["test"]["log_loss"]["value"], "log_loss")
    cards = {card.label: card.value for card in story.headline(contents.read(run)).cards}
    assert cards[formats.metric_title("log_loss")] == told
