from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest

from ncf.report import DataTable, Plot, Report, ReportSection

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
        sections=(
            ReportSection(
                title=f"Results {NASTY}",
                paragraphs=("First paragraph.", f"Second {NASTY}"),
                tables=(
                    DataTable(
                        ("model", "RMSE"),
                        ((f"NCF {NASTY}", "0.81"), ("a|b\nc", "0.92")),
                    ),
                ),
                plots=(
                    Plot("curves", f"Error by epoch {NASTY}", PICTURE),
                    Plot("bars", "Error by model", b"second"),
                ),
            ),
            ReportSection(title="Empty section"),
        ),
        footnotes=(f"TMDb {NASTY}",),
    )


def test_the_page_shows_every_text_as_it_is(report: Report) -> None:
    page = Reader(report.html())
    assert page.open == []
    assert page.of("title") == page.of("h1") == [f"Report {NASTY}"]
    assert page.of("h2") == [f"Results {NASTY}", "Empty section"]
    assert page.of("p") == [
        f"Synthetic data {NASTY}",
        "First paragraph.",
        f"Second {NASTY}",
        f"TMDb {NASTY}",
    ]
    assert page.of("th") == ["model", "RMSE"]
    assert page.of("td") == [f"NCF {NASTY}", "0.81", "a|b\nc", "0.92"]


def test_no_text_becomes_a_tag(report: Report) -> None:
    assert "script" not in {tag for tag, _ in Reader(report.html()).tags}


def test_the_page_needs_nothing_from_elsewhere(report: Report) -> None:
    page = Reader(report.html())
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    fetched = [v for _, attrs in page.tags for k, v in attrs.items() if k in FETCHING]
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
    table = DataTable(("model", "RMSE", "MAE"), (("NCF", "0.81", "0.61"), ("mean", "1.05", "0.83")))
    assert table.markdown().splitlines() == [
        "| model | RMSE | MAE |",
        "| --- | ---: | ---: |",
        "| NCF | 0.81 | 0.61 |",
        "| mean | 1.05 | 0.83 |",
    ]


def test_markdown_tables_escape_pipes_and_line_ends() -> None:
    table = DataTable(("a|b", "c"), (("Alien | Aliens\n(1986)", "1"),))
    assert table.markdown().splitlines() == [
        r"| a\|b | c |",
        "| --- | ---: |",
        r"| Alien \| Aliens (1986) | 1 |",
    ]


def test_the_markdown_report_by_hand() -> None:
    report = Report(
        title="Title",
        warnings=("Careful.",),
        sections=(
            ReportSection("One", ("Text.",), (DataTable(("x",), (("1",),)),)),
            ReportSection("Two", plots=(Plot("curve", "A curve", b""),)),
        ),
        footnotes=("Note.",),
    )
    expected = """# Title

> **Careful.**

## One

Text.

| x |
| --- |
| 1 |

## Two

![A curve](plots/curve.png)

---

*Note.*
"""
    assert report.markdown("plots") == expected
