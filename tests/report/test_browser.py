"""The page in a real browser: every chart drawn, nothing fetched, nothing overflowing, in both colour schemes."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

from deadweight.report import Figure, Table, charts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the page with"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


class Visit:
    """A page opened and drawn, with all it said and asked for."""

    def __init__(self, browser, path, *, width=1280, scheme="light"):
        self.said, self.asked = [], []
        self.tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())
        self.drawn_as(scheme)

    def drawn_as(self, scheme):
        self.tab.wait_for_function(f"document.documentElement.dataset.charts === '{scheme}'", timeout=60_000)

    def see(self, expression):
        return self.tab.evaluate(expression)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_draws_everything_and_fits(browser, page, width, scheme):
    path = page()
    visit = Visit(browser, path, width=width, scheme=scheme)
    assert visit.said == []
    assert visit.asked == [path.as_uri()]
    drawn = visit.see("[...document.querySelectorAll('.chart')].map(box => box.querySelectorAll('svg .mark-text, "
                      "svg path, svg line').length)")  # fmt: skip
    assert len(drawn) == 8
    assert min(drawn) > 3
    assert visit.see("document.documentElement.scrollWidth") <= width
    outside = visit.see(
        "[...document.querySelectorAll('.chart svg')].filter(svg => svg.getBoundingClientRect().right > innerWidth)"
        ".length"
    )
    assert outside == 0
    wide = visit.see(
        "(() => {const box = document.querySelector('.table .scroll');"
        "return box.scrollWidth > box.clientWidth && box.getBoundingClientRect().right <= innerWidth})()"
    )
    assert wide  # the wide table scrolls in its own box
    visit.tab.close()


def test_charts_follow_the_colour_scheme(browser, page):
    visit = Visit(browser, page(), scheme="light")
    ink = "getComputedStyle(document.querySelector('.chart .role-axis-title text')).fill"
    light = visit.see(ink)
    visit.tab.emulate_media(color_scheme="dark")
    visit.drawn_as("dark")
    assert visit.see(ink) != light
    assert visit.said == []
    visit.tab.close()


def test_hostile_names_do_nothing(browser, page, content):
    hostile = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    findings = [{**finding, "claim": hostile, "command": hostile} for finding in content["findings"]]
    visit = Visit(browser, page(findings=findings, title=hostile, facts={hostile: hostile}))
    assert visit.see("window.hacked === undefined")
    assert visit.see("document.querySelectorAll('img').length") == 0
    assert visit.see("document.querySelector('h1').textContent") == hostile
    visit.tab.close()


def test_an_injected_script_would_not_run(browser, page):
    path = page()
    path.write_text(path.read_text(encoding="utf-8").replace("<footer>", "<footer><script>window.hacked=1</script>"))
    visit = Visit(browser, path)
    assert visit.see("window.hacked === undefined")
    assert any("Content Security Policy" in said for said in visit.said)
    visit.tab.close()


@pytest.fixture(scope="module")
def rules():
    return pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nobody_is_shut_out(browser, page, rules, width, scheme):
    visit = Visit(browser, page(), width=width, scheme=scheme)
    visit.see("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    visit.tab.click("figure button[data-kind=numbers] >> nth=0")
    found = rules.run(visit.tab).response["violations"]
    told = [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found]
    assert told == []
    visit.tab.close()


def test_axe_would_object(browser, page, rules):
    path = page()
    path.write_text(path.read_text(encoding="utf-8").replace("<footer>", "<footer><button></button>"))
    visit = Visit(browser, path)
    assert "button-name" in [one["id"] for one in rules.run(visit.tab).response["violations"]]
    visit.tab.close()


def test_a_table_is_sorted_by_number_and_back(browser, page, content):
    values = [10.0, 9.0, -3.5, float("nan"), 100000.0]
    frame = content["sections"][0].tables[0].frame.iloc[[0] * len(values)].assign(only=values)[["only"]]
    section = dataclasses.replace(content["sections"][0], figures=(), tables=(Table("Numbers", frame),))
    visit = Visit(browser, page(sections=[section, content["sections"][1]], failed=[]))
    cells = "[...document.querySelectorAll('.table tbody td')].map(cell => cell.textContent)"
    button = visit.tab.get_by_role("button", name="only")
    button.focus()
    visit.tab.keyboard.press("Enter")
    up = visit.see(cells)
    assert [text for text in up if text != "–"] == ["−3.50", "9.00", "10.0", "100,000"]
    assert visit.see("document.querySelector('.table th').getAttribute('aria-sort')") == "ascending"
    button.click()
    assert [text for text in visit.see(cells) if text != "–"] == ["100,000", "10.0", "9.00", "−3.50"]
    visit.tab.close()


def _handed(visit, selector):
    with visit.tab.expect_download() as download:
        visit.tab.click(selector)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_every_chart_is_handed_over_as_svg_pdf_and_csv(browser, page):
    path = page()
    visit = Visit(browser, path)
    figure = "#figure-line"
    name, drawing = _handed(visit, f"{figure} button[data-kind=svg]")
    assert name == "line.svg"
    assert drawing.startswith(b"<svg")
    assert b"raw similarity" in drawing
    name, paper = _handed(visit, f"{figure} button[data-kind=pdf]")
    assert (name, paper[:5], paper.rstrip()[-5:]) == ("line.pdf", b"%PDF-", b"%%EOF")
    name, text = _handed(visit, f"{figure} button[data-kind=csv]")
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    assert name == "line.csv"
    assert len(rows) == 24
    assert {row["measure"] for row in rows} == {"raw similarity", "a measure with quite a long name", "third"}
    assert float(rows[2]["value"]) == pytest.approx(0.3)
    name, text = _handed(visit, ".csv-of-table")
    assert name == "wide.csv"
    assert text.startswith(b"a column of number 0")
    assert visit.asked == [path.as_uri()] + [one for one in visit.asked if one.startswith("blob:")]
    assert visit.said == []
    visit.tab.close()


def test_a_csv_holds_no_formula(browser, page, content):
    frame = pd.DataFrame({"name": ["=HYPERLINK(1)", "+1+1", "-5", "plain"], "value": [1.0, -2.0, 3.0, 4.0]})
    figure = Figure("hostile", "Hostile", "Names.", charts.bars_with_intervals(frame, "name", "value"))
    section = dataclasses.replace(content["sections"][0], figures=(figure,), tables=())
    visit = Visit(browser, page(sections=[section, content["sections"][1]]))
    _, text = _handed(visit, "#figure-hostile button[data-kind=csv]")
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    assert [row["name"] for row in rows] == ["'=HYPERLINK(1)", "'+1+1", "-5", "plain"]
    assert [float(row["value"]) for row in rows] == [1, -2, 3, 4]
    visit.tab.close()


def test_the_numbers_of_a_chart_are_a_table_away(browser, page):
    visit = Visit(browser, page())
    button = visit.tab.locator("#figure-heatmap button[data-kind=numbers]")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert visit.tab.locator("#figure-heatmap .numbers-of tbody tr").count() == 24
    button.click()
    assert visit.tab.locator("#figure-heatmap .numbers-of").count() == 0
    visit.tab.close()


def test_a_point_tells_its_values_and_the_legend_picks_a_series(browser, page):
    visit = Visit(browser, page())
    visit.tab.locator("#figure-line .mark-symbol.role-mark path").last.hover()
    visit.tab.wait_for_selector("#vg-tooltip-element.visible")
    assert "third" in visit.see("document.getElementById('vg-tooltip-element').textContent")
    faint = ("[...document.querySelectorAll('#figure-line .mark-line path')]"
             ".map(path => Number(path.getAttribute('opacity') ?? path.getAttribute('stroke-opacity') ?? 1))"
             )  # fmt: skip
    visit.tab.locator("#figure-line .role-legend-symbol path").first.click()
    visit.tab.wait_for_function(f"{faint}.filter(shown => shown < 0.5).length === 2")
    visit.tab.close()


def test_a_link_to_a_finding_opens_its_list(browser, page, content):
    many = [{**content["findings"][0], "id": f"f{i}"} for i in range(9)]
    visit = Visit(browser, page(findings=many))
    assert not visit.see("document.querySelector('details.found').open")
    visit.tab.click("article.headline a.of")
    visit.tab.wait_for_function("document.querySelector('details.found').open")
    visit.tab.close()


def test_a_command_is_copied(browser, page):
    visit = Visit(browser, page())
    visit.tab.locator("article.headline .copy").first.click()
    visit.tab.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")
    visit.tab.close()


def test_on_paper_everything_is_open_and_dark_on_white(browser, page, content):
    many = [{**content["findings"][0], "id": f"f{i}"} for i in range(9)]
    visit = Visit(browser, page(findings=many), scheme="dark")
    visit.see("window.dispatchEvent(new Event('beforeprint'))")
    visit.tab.emulate_media(media="print")
    assert visit.see("[...document.querySelectorAll('details')].every(one => one.open)")
    assert visit.see("getComputedStyle(document.querySelector('h1')).color") == "rgb(29, 33, 39)"
    assert visit.see("getComputedStyle(document.querySelector('.files button')).display") == "none"
    visit.tab.close()
