"""The page as a file: order, escaping, nothing fetched, written whole or not at all."""

from __future__ import annotations

import base64
import itertools
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from deadweight.errors import InputError, MachineError
from deadweight.report import Action, Figure, Section, Table, charts, write_page

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'&<!--"


class Reader(HTMLParser):
    """Elements with attributes, scripts and text of a page, as a browser's parser sees them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.text, self._open = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        if tag in ("script", "style") and self._open:
            self.scripts.append(self._open.pop())

    def handle_data(self, data):
        (self._open[-1][2] if self._open else self.text).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def specs(self):
        return {
            attrs["id"]: json.loads("".join(parts))
            for _, attrs, parts in self.scripts
            if attrs.get("id", "").startswith("spec-")
        }


def test_the_parser_of_this_test_sees_an_injected_script():
    assert len(Reader(f"<p>{HOSTILE}</p>").all("script")) == 1


def hostile_content():
    frame = pd.DataFrame({HOSTILE: [1.0, 2.0], "name": [HOSTILE, "b"]})
    figure = Figure("f", HOSTILE, HOSTILE, charts.bars_with_intervals(frame, "name", HOSTILE))
    section = Section("mlp", HOSTILE, HOSTILE, HOSTILE, (figure,), (Table(HOSTILE, frame, HOSTILE),))
    finding = {
        "id": HOSTILE, "study": "mlp", "claim": HOSTILE, "estimate": 0.1, "unit": HOSTILE, "interval": [0, 1],
        "level": 0.95, "n": 3, "verdict": "needed", "margin": 0.01, "evidence": [HOSTILE], "command": HOSTILE,
    }  # fmt: skip
    return {
        "title": HOSTILE,
        "subtitle": HOSTILE,
        "findings": [finding, dict(finding)],
        "sections": [section],
        "facts": {HOSTILE: HOSTILE},
        "skipped": [(HOSTILE, HOSTILE)],
        "failed": [{HOSTILE: HOSTILE}],
    }


def test_hostile_text_stays_text(tmp_path, page):
    reader = Reader(write_page(tmp_path / "hostile.html", **hostile_content()).read_text(encoding="utf-8"))
    kind = [attributes.get("type", "code") for attributes in reader.all("script")]
    assert kind.count("code") == 2  # the bundle and the page's own
    assert reader.all("img") == []
    assert sum(HOSTILE in text for text in reader.text) >= 10
    assert any(HOSTILE in json.dumps(spec, ensure_ascii=False).replace('\\"', '"') for spec in reader.specs().values())


def test_nothing_is_loaded_and_nothing_leads_away(page):
    html = page().read_text(encoding="utf-8")
    reader = Reader(html)
    for tag, attributes in reader.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    (policy,) = [a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    css = "".join(part for tag, _, parts in reader.scripts if tag == "style" for part in parts)
    assert "url(" not in css
    assert "@import" not in css
    assert len(html.encode()) < 5_000_000


def test_the_findings_that_matter_come_first_and_all_stand_in_their_study(page):
    html = page().read_text(encoding="utf-8")
    top = html[html.index('id="headlines"') : html.index('id="study-mlp"')]
    claims = [top.index(f"Claim of {id}") for id in ("mlp-dead", "attention-dead", "mlp-needed")]
    assert claims == sorted(claims)
    assert "Claim of mlp-undecided" not in top
    for study, ids in {"mlp": ("undecided", "dead", "needed"), "attention": ("dead",)}.items():
        part = html[html.index(f'id="study-{study}"') :].split("</section>")[0]
        assert all(part.count(f'<td class="claim">Claim of {study}-{id}') == 1 for id in ids)
    headings = [html.index(f">{title}</h2>") for title in
                ("Not everything ran", "What matters most", "MLPs", "Attention", "What the verdicts mean")]  # fmt: skip
    assert headings == sorted(headings)
    assert "not measured" in html


def test_a_finding_of_a_study_without_a_section_is_not_lost(page, content):
    html = page(sections=content["sections"][:1]).read_text(encoding="utf-8")
    assert "Claim of ranking" in html[html.index('id="elsewhere"') :]


def test_a_headline_says_how_sure_it_is_what_to_do_and_with_which_command(page):
    html = page().read_text(encoding="utf-8")
    card = html[html.index('<article class="headline dead-weight"') :]
    card = card[: card.index("</article>")]
    for words in ("Dead weight", "0.3 points", "−0.2 to 0.8 points", "95 % interval", "540", "accepted: 1 point",
                  "the loss is at most 0.8 points", "Let the MLPs go.",
                  "<code tabindex=\"0\">deadweight compress file:model --out smaller</code>"):  # fmt: skip
        assert words in card


def test_every_figure_brings_its_pdf_and_names_its_numbers(page):
    reader = Reader(page().read_text(encoding="utf-8"))
    pdfs = ["".join(parts) for _, attrs, parts in reader.scripts if attrs.get("id", "").startswith("pdf-")]
    assert len(pdfs) == 8
    assert all(base64.b64decode(pdf).startswith(b"%PDF-") for pdf in pdfs)
    boxes = [
        attributes for attributes in reader.all("p") if attributes.get("class") == "files" and "data-of" in attributes
    ]
    for box in boxes:
        assert len(reader.specs()[f"spec-{box['data-of']}"]["datasets"][box["data-numbers"]]) > 1


def test_a_page_of_several_runs_says_what_differs_first(page):
    html = page(findings=[], comparison="Two runs, one other verdict.").read_text(encoding="utf-8")
    assert "No findings yet" not in html
    assert html.index("Two runs, one other verdict.") < html.index('id="study-mlp"')


def test_headings_are_in_order_and_landmarks_are_there(page):
    reader = Reader(page().read_text(encoding="utf-8"))
    levels = [int(tag[1]) for tag, _ in reader.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(reader.all(landmark)) == 1
    boxes = [attributes for attributes in reader.all("div") if attributes.get("class") == "chart"]
    assert len(boxes) == len(reader.specs()) == 8  # seven of the study's, one forest plot
    assert all(box["role"] == "img" and box["aria-label"] for box in boxes)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in reader.all("a")]
    assert set(targets) <= set(ids)


def test_an_empty_audit_still_makes_a_page(page):
    html = page(findings=[], sections=[], failed=[], skipped=[]).read_text(encoding="utf-8")
    assert "No findings yet" in html
    assert "Not everything ran" not in html


def test_the_same_content_makes_the_same_page_but_for_the_bytes_of_its_pdfs(page):
    first, second = (
        re.sub(r'(id="pdf-[^"]*">)[^<]*', r"\1", page().read_text(encoding="utf-8")) for _ in range(2)
    )  # the renderer numbers a PDF's objects as it pleases
    assert first == second


def test_ids_that_clash_are_refused_before_anything_is_written(tmp_path, page, content):
    with pytest.raises(InputError, match="mlp"):
        page(sections=[content["sections"][0]] * 2)
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_the_old_page_and_no_litter(page, monkeypatch):
    path = page()
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        page(title="Another")
    assert path.read_bytes() == old
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_code_in_advice_is_set_as_code_and_stays_harmless(page):
    html = page(actions={"mlp-dead": Action("Call `dw.f(<b>)`, <script>not this</script>.", "deadweight list data")})
    text = html.read_text(encoding="utf-8")
    assert "<code>dw.f(&lt;b&gt;)</code>" in text
    assert "<script>not this" not in text
