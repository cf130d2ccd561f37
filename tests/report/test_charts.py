"""Charts as specifications, and the numbers, colours and cards around them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from deadweight.errors import InputError
from deadweight.report import charts
from deadweight.report.cards import card, cards_of, counts, headlines
from deadweight.report.sureness import sureness
from deadweight.report.theme import BACKGROUNDS, PALETTE, REFERENCE, VERDICT_COLOURS
from deadweight.report.wording import interval, number, quantity

FRAME = pd.DataFrame({"x": [1, 2, 4], "y": [1.0, math.nan, 3.0], "name.with[odd]": ["b", "a", "c"]})


def test_a_columns_name_is_never_read_as_a_path():
    spec = charts.bars_with_intervals(FRAME, "name.with[odd]", "y").to_dict()
    assert spec["layer"][0]["encoding"]["y"]["field"] == r"name\.with\[odd\]"
    (rows,) = spec["datasets"].values()
    assert [row["name.with[odd]"] for row in rows] == ["b", "a", "c"]
    assert rows[1]["y"] is None


def test_a_log_axis_is_marked_where_the_values_are():
    spec = charts.line(FRAME, "x", "y", x_log=True).to_dict()
    axis = spec["layer"][0]["encoding"]["x"]
    assert axis["scale"]["type"] == "log"
    assert axis["axis"]["values"] == [1, 2, 4]


def test_series_keep_the_order_of_the_frame():
    spec = charts.dots_with_intervals(FRAME, "x", "y", color="name.with[odd]").to_dict()
    assert spec["layer"][0]["encoding"]["color"]["sort"] == ["b", "a", "c"]


BAD = {
    "line": lambda: charts.line(FRAME, "x", "nothing"),
    "band": lambda: charts.line(FRAME, "x", "y", band=("low", "high")),
    "bars": lambda: charts.bars_with_intervals(FRAME, "nothing", "y"),
    "empty": lambda: charts.scatter(FRAME[:0], "x", "y"),
    "forest-empty": lambda: charts.forest([]),
    "forest-units": lambda: charts.forest([found(unit="J"), found(unit="s")]),
}


@pytest.mark.parametrize("draw", BAD.values(), ids=BAD)
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(InputError):
        draw()


def found(**changes):
    base = {"id": "f", "study": "s", "claim": "c", "estimate": 0.3, "unit": "nats", "interval": [0.1, 0.5],
            "level": 0.95, "n": 3, "verdict": "needed", "margin": 0.01, "evidence": [], "command": ""}  # fmt: skip
    return {**base, **changes}


def test_a_forest_shows_intervals_in_the_unit_that_is_read():
    spec = charts.forest([found(unit="accuracy", margin=0.02), found(unit="accuracy", interval=[None, 1])])
    sets = spec.to_dict()["datasets"].values()
    rows = next(rows for rows in sets if "estimate" in rows[0])
    assert len(rows) == 1
    assert rows[0]["low"] == pytest.approx(10)
    assert rows[0]["verdict"] == "Needed"
    assert {row["at"] for rows in sets for row in rows if "at" in row} == {0.0, 2.0}


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("background", BACKGROUNDS.values(), ids=BACKGROUNDS)
@pytest.mark.parametrize("colour", [*PALETTE, *VERDICT_COLOURS.values(), REFERENCE])
def test_every_colour_of_a_chart_stands_out_in_both_schemes(colour, background):
    bright, dim = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 3


NUMBERS = [
    (86_567_656, "86,567,656"), (0.0, "0"), (0.000123456, "0.000123"), (1.5e-9, "1.50e−09"), (-12.345, "−12.3"),
    (999.9, "1,000"), (9.999, "10.0"), (1234.5, "1,234"), (math.nan, "–"), (None, "–"), (-math.inf, "−∞"),
    (np.bool_(True), "yes"), (np.int64(7), "7"), ("text", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), NUMBERS, ids=[text for _, text in NUMBERS])
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


def test_quantities_carry_their_unit():
    assert quantity(0.01, "accuracy") == "1 point"
    assert quantity(0.25, "fraction", signed=True) == "+25 %"
    assert quantity(100.0, "s") == "100 s"
    assert quantity(math.nan, "J") == "not measured"
    assert interval(-0.002, 0.008, "accuracy") == "−0.2 to 0.8 points"


def test_a_card_places_its_bar_in_order_and_inside():
    bar = card(found(estimate=0.3, interval=[-0.1, 0.5], margin=0.2), 0).bar
    assert 0 < bar.low < bar.zero < bar.margin < bar.estimate < bar.high < 320


ENDS = [([None, None], ""), ([0.1, None], "at least 0.1 nats"), ([None, 0.5], "at most 0.5 nats")]


@pytest.mark.parametrize(("ends", "words"), ENDS)
def test_an_open_interval_is_said_and_not_drawn(ends, words):
    open_card = card(found(interval=ends), 0)
    assert open_card.interval == words
    assert open_card.bar is None
    assert words in open_card.sure


SURE = [
    ("dead weight", [-0.02, 0.005], "Sure: with 95 % confidence the loss is at most 0.5 points; we accept 1 point."),
    ("dead weight", [-0.02, -0.005], "Sure: with 95 % confidence removing it gains at least 0.5 points."),
    ("needed", [0.04, 0.06], "Sure: with 95 % confidence removing it costs 4 to 6 points; even the least of it is more "
     "than the 1 point we accept."),
    ("undecided", [-0.02, 0.06], "Not sure yet: with 95 % confidence it may be anything from a gain of 2 points to a "
     "loss of 6 points, and we accept 1 point."),
    ("undecided", [0.02, 0.06], "Not sure yet: alone, a loss of 2 points to a loss of 6 points would settle it, but "
     "among so many findings one like it may be chance."),
    (None, [0.02, 0.06], "With 95 % confidence the true value lies between 2 and 6 points."),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "ends", "words"), SURE, ids=[f"{row[0]}{row[1]}" for row in SURE])
def test_how_sure_it_is_is_said_in_words(verdict, ends, words):
    margin = None if verdict is None else 0.01
    assert sureness(found(verdict=verdict, interval=ends, unit="accuracy", margin=margin)) == words


def top(*findings):
    return [c.id for c in headlines(findings, cards_of(findings))]


def test_the_top_shows_what_can_go_then_what_is_missed_most():
    dead = [found(id=f"d{i}", verdict="dead weight", interval=[-1, high]) for i, high in enumerate([0.3, 0.1, 0.2])]
    needed = [found(id=f"n{i}", verdict="needed", interval=[low, 9]) for i, low in enumerate([1, 3, 2])]
    assert top(*needed, *dead, found(id="u", verdict="undecided")) == ["d1", "d2", "n1"]


def test_every_study_is_at_the_top_even_one_that_settled_nothing():
    rows = [found(id="u", study="a", verdict="undecided"), found(id="m", study="b", verdict=None, margin=None),
            found(id="m2", study="a", verdict=None), found(id="d", study="c", verdict="dead weight")]  # fmt: skip
    assert top(*rows) == ["d", "u", "m"]


def test_verdicts_are_counted_in_the_order_a_reader_needs():
    rows = [found(id=str(i), verdict=verdict) for i, verdict in enumerate([None, "needed", "dead weight", "needed"])]
    assert [(count.name, count.count) for count in counts(rows)] == [("Dead weight", 1), ("Needed", 2), ("Measured", 1)]


def test_a_picked_series_stands_out():
    frame = FRAME.rename(columns={"name.with[odd]": "name"})
    spec = charts.line(frame, "x", "y", color="name", band=("y", "y")).to_dict()
    assert [param["bind"] for param in spec["params"]] == ["legend"]
    assert all(layer["encoding"]["opacity"]["condition"]["param"] == "picked" for layer in spec["layer"])
