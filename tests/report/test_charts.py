"""Charts: scales map and mark what they should, elements are escaped, numbers are written for people."""

from __future__ import annotations

import re

import numpy as np
import pytest
from markupsafe import Markup

from headstart.report import charts, formats
from headstart.report.charts import Band, Line, Scale


def test_scales_have_round_ends_that_hold_the_values() -> None:
    scale = charts.scale_over([0.613, 0.887])
    assert (scale.low, scale.high) == pytest.approx((0.6, 0.9))
    assert scale.ticks() == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert charts.scale_over([0.2, 0.999], within=(0, 1)).high == 1
    for low, high in ((0.57, 1.22), (0.82, 0.9), (3, 11), (-0.4, 0.31)):
        wide = charts.scale_over([low, high])
        ends = (wide.ticks()[0], wide.ticks()[-1])
        assert ends == pytest.approx((wide.low, wide.high))
        assert ends[0] - 1e-9 <= low
        assert ends[1] + 1e-9 >= high
    same = charts.scale_over([0.5, 0.5, float("nan")])
    assert same.low < 0.5 < same.high
    assert charts.scale_over([]).ticks()


@pytest.mark.parametrize("span", [1e-6, 0.003, 0.7, 1, 12, 99999])
def test_steps_are_round_and_few(span: float) -> None:
    step = charts.nice_step(span, 4)
    assert 1 <= span / step <= 4.0001
    assert round(step / 10 ** np.floor(np.log10(step) + 1e-9), 6) in (1, 2, 5)


def test_log_scales_mark_powers_of_ten() -> None:
    scale = Scale(1e-5, 1e-2, log=True)
    assert scale.at(1e-5) == 0
    assert scale.at(10**-3.5) == pytest.approx(0.5)
    assert scale.ticks() == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert scale.at(0.0) == 0


def test_elements_escape_texts_and_attributes() -> None:
    made = charts.tag("text", "<b>&\x1b", aria_label='"><script>', x=0.5)
    assert made == '<text aria-label="&#34;&gt;&lt;script&gt;" x="0.5">&lt;b&gt;&amp;\\u001b</text>'
    assert charts.tag("g", made) == Markup(f"<g>{made}</g>")


def test_points_stand_where_their_values_are() -> None:
    drawn = charts.plot(
        Scale(0, 10),
        Scale(0, 1),
        [Line([(0, 0), (5, 1), (10, 0.5)], "val")],
        label="",
        x_labels=[(0, "0")],
        y_labels=[(1, "1")],
        bands=[Band(0, 4, "one"), Band(4, 10, "two", faded=True)],
        height=122,
    )
    assert 'points="0.0,1000.0 500.0,0.0 1000.0,500.0"' in drawn
    assert re.findall(r'<circle class="val" cx="([\d.]+%)" cy="([\d.]+)"', drawn) == [
        ("0.00%", "100"),
        ("50.00%", "22"),
        ("100.00%", "61"),
    ]
    assert re.search(r'class="band odd faded" x="40.00%" y="0" width="60.00%"', drawn)


def test_stairs_turn_at_right_angles() -> None:
    drawn = charts.plot(
        Scale(0, 1), Scale(0, 1), [Line([(0, 0), (1, 1)], "val", steps=True)], label="", x_labels=[], y_labels=[]
    )
    assert 'points="0.0,1000.0 1000.0,1000.0 1000.0,0.0 1000.0,0.0"' in drawn


def test_heatmaps_draw_the_cells_that_are_not_empty() -> None:
    table = np.zeros((20, 20), dtype=int)
    table[3, 3], table[3, 4] = 6, 2
    drawn = charts.heatmap(table, [f"<{i}>" for i in range(20)])
    assert drawn.count("<rect") == 3
    assert "&lt;3&gt; taken for &lt;4&gt;: 2 of 8" in drawn
    assert 'class="miss" fill-opacity="0.36" x="4" y="3"' in drawn


def test_numbers_are_written_for_people() -> None:
    assert formats.score(0.9412, "accuracy") == "94.1%"
    assert formats.score(0.2134, "log_loss") == "0.213"
    assert formats.score(float("nan"), "accuracy") == "–"
    assert formats.interval({"low": 0.917, "high": 0.958}, "accuracy") == "91.7–95.8%"
    assert formats.gain(-0.032, "accuracy") == "−3.2 points"
    assert [formats.rate(x) for x in (3e-4, 1.25e-5, 0.001, 0.0)] == ["3e−4", "1.2e−5", "1e−3", "0"]
    assert [formats.duration(x) for x in (0.01, 0.44, 12.4, 59.7, 185, 3600, 4330)] == [
        "< 0.1 s",
        "0.4 s",
        "12 s",
        "1 min",
        "3 min 5 s",
        "1 h 0 min",
        "1 h 12 min",
    ]
    assert [formats.parameters(x) for x in (513, 2600, 11_180_103)] == ["513", "2.6 k", "11.2 M"]
    assert formats.clean("a\x1b\u202eb\nc") == "a\\u001b\\u202eb\nc"
    assert formats.clean(3) == 3
    assert formats.clean("a\ud800").encode() == b"a\\ud800", "a lone surrogate is nothing that a file can hold"
    assert formats.higher_is_better("own_metric")
