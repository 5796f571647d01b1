"""The page of evidence in a browser: nothing sticks out or overlaps, on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import look

from sparseopt import LambertW
from sparseopt.proofs_checks import Evidence, Finding, Verdict
from sparseopt.proofs_checks.own_regularizer import summary
from sparseopt.proofs_checks.report import page
from sparseopt.proofs_checks.running import STATEMENTS, run, statement

pytest.importorskip("flint")
pytest.importorskip("cvxpy")
pytest.importorskip("matplotlib")


SOME = ("paper_tables", "reverse_maps", "sum_norm_bounds", "unique_minimiser", "omp_rate", "stationarity_identity")


@cache
def whole() -> str:
    """The page of all statements."""
    return page(run(), "small", 0)


@cache
def some() -> str:
    """The page of statements of several kinds that take no time."""
    return page(run(SOME), "small", 0)


@cache
def own() -> str:
    """The page of a regularizer that Theorem 1.1 does not cover, with all that is folded opened."""
    found = run(["sum_norm_bounds", "unique_minimiser"], regularizer=LambertW())
    return page(found, "small", 0, summary(LambertW(), found)).replace("<details ", "<details open ")


class Outline(HTMLParser):
    """Tags that are left open, ids, and what is linked or loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "rect", "image"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "xlink:href", "src", "srcset", "data", "action"):
                self.links.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "use", "rect", "image"):
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


# All statements take half a minute.
each_page = pytest.mark.parametrize("made", [pytest.param(whole, marks=pytest.mark.slow), some, own])
statements = pytest.mark.parametrize(
    ("made", "names"), [pytest.param(whole, tuple(STATEMENTS), marks=pytest.mark.slow), (some, SOME)]
)


@each_page
def test_the_page_is_well_formed_and_needs_no_network(made: Any) -> None:
    outline = Outline(made())
    assert (outline.wrong, outline.open) == ([], [])
    assert len(outline.ids) == len(set(outline.ids))
    away = [link for link in outline.links if not link.startswith("data:image/png;base64,")]
    assert [link for link in away if link[0] != "#" or link[1:] not in outline.ids] == []
    assert not re.search(r"<script|@import|<link|url\((?!#)", made())


@statements
def test_the_contents_list_leads_to_every_statement(made: Any, names: tuple[str, ...]) -> None:
    nav = re.search(r"<nav.*?</nav>", made(), flags=re.DOTALL)
    assert nav
    assert re.findall(r'href="#(\w+)"', nav[0]) == [name for name in STATEMENTS if name in names]
    assert nav[0].count("✓") == len(names)


@statements
def test_every_figure_comes_with_a_sentence(made: Any, names: tuple[str, ...]) -> None:
    figures = re.findall(r"<figure>.*?</figure>", made(), flags=re.DOTALL)
    assert len(figures) >= len(names) - 1
    for figure in figures:
        caption = re.search(r"<figcaption.*?>(.*?)</figcaption>", figure, flags=re.DOTALL)
        assert caption
        assert caption[1].endswith(".")
        assert len(caption[1]) > 40


# Elements that stick out of the page, pairs of neighbours that overlap, and the smallest letters of text and figures.
LOOKS = """(page, view) => {
  const width = page.documentElement.clientWidth, out = [], over = [], small = [];
  const scrolled = (e) => e.closest(".plot") && !e.matches(".plot");
  for (const e of [page.body, ...page.body.querySelectorAll("*")]) {
    const box = e.getBoundingClientRect();
    if (!scrolled(e) && box.width && (box.right > width + 1 || box.left < -1))
      out.push(e.tagName + " " + e.textContent.slice(0, 60));
    if (!e.closest("svg") && box.width && e.scrollWidth > e.clientWidth + 1 && e.clientWidth
        && view.getComputedStyle(e).overflowX === "visible" && view.getComputedStyle(e).display !== "inline")
      out.push("wider inside: " + e.tagName + " " + e.textContent.slice(0, 60));
    const children = [...e.children].filter((c) => !c.closest("svg") && c.getBoundingClientRect().width
      && view.getComputedStyle(c).display !== "inline");
    for (let i = 0; i + 1 < children.length; i++) {
      const a = children[i].getBoundingClientRect(), b = children[i + 1].getBoundingClientRect();
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
        over.push(children[i].textContent.slice(0, 50) + " / " + children[i + 1].textContent.slice(0, 50));
    }
    if (e.tagName === "svg") {
      const points = 9 * box.width / e.viewBox.baseVal.width * 4 / 3 * 0.75;
      if (points < 8) small.push("figure letters of " + points.toFixed(1) + " px");
    } else if (e.children.length === 0 && e.textContent.trim() && !e.closest("svg, sub, sup")) {
      if (parseFloat(view.getComputedStyle(e).fontSize) < 12) small.push(e.textContent.slice(0, 60));
    }
  }
  return {out, over, small, scroll: page.documentElement.scrollWidth - width};
}"""


@pytest.mark.parametrize("width", [1280, 390])
@each_page
def test_nothing_sticks_out_or_overlaps(made: Any, width: int, tmp_path: Path) -> None:
    seen = look(made(), LOOKS, tmp_path, width)
    assert seen == {"out": [], "over": [], "small": [], "scroll": 0}


def test_the_look_sees_what_is_wrong(tmp_path: Path) -> None:
    """A word that does not break, two boxes on one place, and small print."""
    wrong = (
        '<!DOCTYPE html><body style="margin: 0"><p style="white-space: nowrap">' + "unbreakable" * 40 + "</p>"
        '<div style="height: 9px">aaaa</div><div style="height: 9px; margin-top: -9px">bbbb</div>'
        '<b style="font-size: 6px">c</b>'
    )
    seen = look(wrong, LOOKS, tmp_path, 390)
    assert any("unbreakable" in text for text in seen["out"])
    assert seen["scroll"] > 0
    assert seen["over"] == ["aaaa / bbbb"]
    assert seen["small"] == ["c"]


# The ratio of luminances of a text and the page, for every text; 4.5 is what WCAG asks for.
CONTRAST = """(page, view) => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const style = (e) => view.getComputedStyle(e), faint = [];
  const under = (e) => e === null ? "rgb(255, 255, 255)"
    : style(e).backgroundColor === "rgba(0, 0, 0, 0)" ? under(e.parentElement) : style(e).backgroundColor;
  for (const e of page.body.querySelectorAll("*")) {
    if (e.closest("svg") && e.tagName !== "svg" || !e.textContent.trim()) continue;
    const [a, b] = [light(style(e).color), light(under(e))].sort((x, y) => x - y);
    if ((b + 0.05) / (a + 0.05) < 4.5) faint.push(e.textContent.slice(0, 60));
  }
  return {faint, paper: light(under(page.body))};
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out(dark: bool, tmp_path: Path) -> None:
    text = own()
    if dark:
        assert "@media (prefers-color-scheme: dark)" in text
        text = text.replace("@media (prefers-color-scheme: dark)", "@media all")
    seen = look(text, CONTRAST, tmp_path)
    assert seen["faint"] == []
    assert (seen["paper"] < 0.1) == dark


def test_a_claim_opens_and_a_link_leads(tmp_path: Path) -> None:
    question = """async (page, view) => {
      const folded = page.querySelector("details:not([open])"), before = folded.offsetHeight;
      folded.querySelector("summary").click();
      const grows = folded.offsetHeight > before;
      page.querySelector('nav a[href="#reverse_maps"]').click();
      await new Promise((done) => setTimeout(done, 500));
      return {grows, top: page.getElementById("reverse_maps").getBoundingClientRect().top};
    }"""
    seen = look(some(), question, tmp_path)
    assert seen["grows"]
    assert abs(seen["top"]) < 900.0


# -- what is written ---------------------------------------------------------------------------------------------------


def made_of(*findings: Finding, series: bool = False) -> str:
    values = {"Power(p=0.5)": np.ones((3, 2))} if series else {}
    return page([Evidence("sum_norm_bounds", findings, values)], "small", 0)


def test_a_surprise_is_open_and_marked() -> None:
    text = made_of(Finding("1 < 0", Verdict.REFUTED, Verdict.HOLDS, 1, 2.0, 1e-9, "At 1 < 0 & more."))
    assert '<details class="finding" open>' in text
    assert "Expected: holds to tolerance." in text
    assert "At 1 &lt; 0 &amp; more." in text
    assert "not as expected" in text
    assert "✗" in text
    assert "<figure>" not in text


def test_the_same_claim_for_several_regularizers_is_one_line() -> None:
    several = [
        Finding(f"R_q >= sum, {name}", Verdict.HOLDS) for name in ("Power(p=0.5)", "L2()", "Power(p=0.66666666)")
    ]
    text = made_of(*several, Finding("R_q >= sum, L0()", Verdict.REFUTED), series=True)
    assert text.count("<details") == 2
    assert "R<sub>q</sub> ≥ sum <small" in text
    assert "Power(p=0.6667)" in text


def test_a_claim_that_comes_up_again_is_one_line() -> None:
    text = made_of(*[Finding("An instance is enclosed", Verdict.PROVED, detail=f"Number {i}.") for i in range(3)])
    assert text.count("<details") == 1
    assert "3 times" in text
    assert all(f"Number {i}." in text for i in range(3))


@pytest.mark.parametrize(
    ("typed", "set_"),
    [
        ("lam >= tau_S", "λ ≥ τ<sub>S</sub>"),
        ("eps = 0.2, LogSum(eps=0.1)", "ε = 0.2, LogSum(eps=0.1)"),
        ("||grad_g L||^2 <= q^-1(2)", "‖∇<sub>g</sub> L‖<sup>2</sup> ≤ q<sup>-1</sup>(2)"),
        ("a^(2/3) & e^w", "a<sup>2/3</sup> &amp; e<sup>w</sup>"),
        ("what optimality_gap claims of lambda", "what optimality_gap claims of lambda"),
    ],
)
def test_claims_are_typeset(typed: str, set_: str) -> None:
    assert f"<span>{set_}</span>" in made_of(Finding(typed, Verdict.HOLDS))


def test_statements_are_complete() -> None:
    for name in STATEMENTS:
        about = statement(name)
        assert about.text.strip()
        assert about.title
        assert about.source
        assert about.caption.endswith(".")
