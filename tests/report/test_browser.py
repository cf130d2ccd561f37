"""The page in a real browser: every chart drawn, nothing fetched, nothing overflowing, in both colour schemes."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the page with")


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
