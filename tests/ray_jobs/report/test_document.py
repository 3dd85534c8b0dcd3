from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from ray_jobs.report.document import DataTable, Heading, Listing, Plot, Report, ReportSection, Text

PICTURE = b"\x89PNG\r\n\x1a\n not really"
NASTY = "<script>alert('x')</script> & \"quotes\""
FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Reader(HTMLParser):
    """What a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]


@pytest.fixture
def report() -> Report:
    return Report(
        title=f"Report {NASTY}",
        warnings=(f"Synthetic data {NASTY}",),
        key_figures=((f"RMSE {NASTY}", f"0.8 {NASTY}"),),
        sections=(
            ReportSection(
                f"Results {NASTY}",
                (
                    Text("First paragraph."),
                    Plot("curves", f"Below it {NASTY}", f"Error by epoch {NASTY}", PICTURE),
                    Heading(f"Inside {NASTY}"),
                    DataTable(
                        f"Errors {NASTY}",
                        ("model", "RMSE", "remark"),
                        ((f"NCF {NASTY}", "0.81", "good"), ("a|b\nc", "0.92", NASTY)),
                        words=(0, 2),
                    ),
                    Text(f"Second {NASTY}"),
                    Plot("bars", "Below that", "Error by model", b"second"),
                    Listing(f"File {NASTY}", f"key = 1\nother = '{NASTY}'\n"),
                ),
            ),
            ReportSection("Empty section"),
        ),
    )


def test_the_page_shows_every_text_as_it_is_and_in_order(report: Report) -> None:
    page = Reader(report.html())
    assert page.open == []
    assert page.of("title") == page.of("h1") == [f"Report {NASTY}"]
    assert page.of("h2") == [f"Results {NASTY}", "Empty section"]
    assert page.of("h3") == [f"Inside {NASTY}"]
    assert page.of("dt") == [f"RMSE {NASTY}"]
    assert page.of("dd") == [f"0.8 {NASTY}"]
    assert page.of("p") == [
        f"Synthetic data {NASTY}",
        "Contents",
        "First paragraph.",
        f"Second {NASTY}",
    ]
    assert page.of("caption") == [f"Errors {NASTY}"]
    assert page.of("th") == ["model", "RMSE", "remark", f"NCF {NASTY}", "a|b\nc"]
    assert page.of("td") == ["0.81", "good", "0.92", NASTY]
    assert page.of("figcaption") == [f"Below it {NASTY}", "Below that"]
    assert page.of("summary") == [f"File {NASTY}"]
    assert page.of("pre") == [f"key = 1\nother = '{NASTY}'"]
    order = [text for _, text in page.texts]
    assert order.index("First paragraph.") < order.index(f"Below it {NASTY}")
    assert order.index(f"Below it {NASTY}") < order.index(f"Errors {NASTY}")
    assert order.index(f"Errors {NASTY}") < order.index(f"Second {NASTY}")


def test_contents_lead_to_every_section(report: Report) -> None:
    page = Reader(report.html())
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    targets = [f"#{attrs['id']}" for tag, attrs in page.tags if tag == "h2"]
    assert links == targets
    assert len(set(targets)) == 2
    assert page.of("a") == page.of("h2")


def test_tables_tell_what_their_cells_belong_to(report: Report) -> None:
    cells = [(tag, attrs) for tag, attrs in Reader(report.html()).tags if tag in ("th", "td")]
    scopes = [attrs["scope"] for tag, attrs in cells if tag == "th"]
    assert scopes == ["col"] * 3 + ["row"] * 2
    words = ["words" if "class" in attrs else "" for _, attrs in cells]
    assert words == ["words", "", "words"] * 3
    (scrolls,) = (attrs for _, attrs in Reader(report.html()).tags if attrs.get("role") == "group")
    assert scrolls["tabindex"] == "0"  # for those who scroll by keyboard
    assert scrolls["aria-label"] == f"Errors {NASTY}"


def test_what_is_folded_is_printed(report: Report) -> None:
    (style,) = Reader(report.html()).of("style")
    printed = style[style.index("@media print") :]
    assert "details::details-content { content-visibility: visible" in printed


def test_no_text_becomes_a_tag(report: Report) -> None:
    assert "script" not in {tag for tag, _ in Reader(report.html()).tags}


def test_the_page_needs_nothing_from_elsewhere(report: Report) -> None:
    page = Reader(report.html())
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    fetched = [
        v for tag, attrs in page.tags for k, v in attrs.items() if k in FETCHING and tag != "a"
    ]
    assert len(fetched) == 2
    assert all(value and value.startswith("data:image/png;base64,") for value in fetched)
    (style,) = page.of("style")
    assert "url(" not in style
    assert "@import" not in style
    assert "color" in style  # the style is there, and not escaped
    assert "&#" not in style


def test_every_picture_is_inside_the_page_and_said_in_words(report: Report) -> None:
    images = [attrs for tag, attrs in Reader(report.html()).tags if tag == "img"]
    assert [image["alt"] for image in images] == [f"Error by epoch {NASTY}", "Error by model"]
    encoded = [(image["src"] or "").removeprefix("data:image/png;base64,") for image in images]
    assert [base64.b64decode(text) for text in encoded] == [PICTURE, b"second"]
    assert [plot.name for plot in report.plots] == ["curves", "bars"]


def test_the_page_names_its_language_and_encoding(report: Report) -> None:
    html = report.html()
    assert html.startswith("<!DOCTYPE html>")
    tags = Reader(html).tags
    assert ("html", {"lang": "en"}) in tags
    assert ("meta", {"charset": "utf-8"}) in tags


def test_a_markdown_table_by_hand() -> None:
    rows = (("NCF", "0.81", "best"), ("mean", "1.05", ""))
    table = DataTable("Errors", ("model", "RMSE", "remark"), rows, words=(0, 2))
    assert table.markdown("plots").splitlines() == [
        "**Errors**",
        "",
        "| model | RMSE | remark |",
        "| --- | ---: | --- |",
        "| NCF | 0.81 | best |",
        "| mean | 1.05 |  |",
    ]


def test_markdown_tables_escape_pipes_and_line_ends() -> None:
    table = DataTable("Films", ("a|b", "c"), (("Alien | Aliens\n(1986)", "1"),))
    assert table.markdown("plots").splitlines()[2:] == [
        r"| a\|b | c |",
        "| --- | ---: |",
        r"| Alien \| Aliens (1986) | 1 |",
    ]


HOSTILE = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) `code` & <b>\x1b[31m|\n# x"


def test_texts_of_others_are_shown_as_they_are_and_do_nothing() -> None:
    """In every place of a report; Markdown lets HTML through."""
    blocks = (
        Heading(HOSTILE),
        Text(HOSTILE),
        DataTable(HOSTILE, (HOSTILE,), ((HOSTILE,),)),
        Plot("plot", HOSTILE, HOSTILE, b""),
        Listing(HOSTILE, f"```\n{HOSTILE}"),
    )
    report = Report(HOSTILE, (HOSTILE,), ((HOSTILE, HOSTILE),), (ReportSection(HOSTILE, blocks),))
    shown, _, listing = report.markdown("plots").rpartition("\n````\n```\n")
    assert listing.endswith("\n````\n")
    assert "<" not in shown.replace("&lt;", "")
    assert "](javascript" not in shown
    assert "\x1b" not in shown
    assert not re.search(r"(?<!\\)`(?!```)", shown.removesuffix("\n````"))
    assert "<img src=x" not in report.html()
    assert "onerror=alert(1)&gt;" in report.html()


def test_the_markdown_report_by_hand() -> None:
    report = Report(
        title="Title",
        warnings=("Careful.",),
        key_figures=(("RMSE", "0.8"), ("MAE", "0.6")),
        sections=(
            ReportSection("One", (Text("Text."), DataTable("Numbers", ("x",), (("1",),)))),
            ReportSection(
                "Two",
                (
                    Heading("Inside"),
                    Plot("curve", "It falls.", "A curve", b""),
                    Listing("A file", "key = 1\n"),
                ),
            ),
        ),
    )
    expected = """# Title

> **Careful.**

- RMSE: **0.8**
- MAE: **0.6**

## One

Text.

**Numbers**

| x |
| --- |
| 1 |

## Two

### Inside

![A curve](plots/curve.png)

*It falls.*

**A file**

```
key = 1
```
"""
    assert report.markdown("plots") == expected
