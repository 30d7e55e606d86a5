"""The end of a run: what is shown of its rows can never cost it its result."""

from __future__ import annotations

import pytest

from headstart.core.events import Notice
from headstart.data.modalities import image


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
