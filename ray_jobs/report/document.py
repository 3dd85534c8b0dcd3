"""The content of a report: sections of tables, plots and text, as Markdown or as one HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar = "heading"
    text: str

    def markdown(self, plot_folder: str) -> str:
        """Below that of the section."""
        return f"### {_escape(self.text)}"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str

    def markdown(self, plot_folder: str) -> str:
        """A paragraph."""
        return _escape(self.text)


@dataclass(frozen=True)
class DataTable:
    """Cells as text; the first cell of a row names it."""

    kind: ClassVar = "table"
    caption: str
    """Says what the figures are; unlike that of any other table in the report."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    """Positions of the columns that hold words and are left-aligned; others hold numbers."""
    marked: tuple[int, ...] = ()
    """Positions of the rows that stand out."""

    def markdown(self, plot_folder: str) -> str:
        """A pipe table, with the caption above it."""
        rule = tuple("---" if i in self.words else "---:" for i in range(len(self.header)))
        rows = (
            (
                f"**{_escape(row[0])}**" if i in self.marked else _escape(row[0]),
                *map(_escape, row[1:]),
            )
            for i, row in enumerate(self.rows)
        )
        header = tuple(map(_escape, self.header))
        lines = ["| " + " | ".join(line) + " |" for line in (header, *rows)]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        return "\n".join([f"**{_escape(self.caption)}**", "", *lines])


@dataclass(frozen=True)
class Plot:
    """A picture and what it shows."""

    kind: ClassVar = "plot"
    name: str
    """File name without its ending."""
    caption: str
    """A line to be read below the picture."""
    description: str
    """Says in words what is to be seen: the alternative text."""
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    def markdown(self, plot_folder: str) -> str:
        """The picture from ``plot_folder``, with the caption below it."""
        file = PurePosixPath(plot_folder) / f"{self.name}.png"
        return f"![{_escape(self.description)}]({file})\n\n*{_escape(self.caption)}*"


@dataclass(frozen=True)
class Listing:
    """A long text, such as a file, that is shown on demand."""

    kind: ClassVar = "listing"
    title: str
    text: str

    def markdown(self, plot_folder: str) -> str:
        """A block of code."""
        longest = max((len(run) for run in re.findall("`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"**{_escape(self.title)}**\n\n{fence}\n{self.text.rstrip()}\n{fence}"


Block = Heading | Text | DataTable | Plot | Listing


@dataclass(frozen=True)
class ReportSection:
    """A heading with what stands below it, in this order."""

    title: str
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    warnings: tuple[str, ...]
    """What a reader must not overlook, such as that the data are synthetic."""
    key_figures: tuple[tuple[str, ...], ...]
    """Name and value of the few figures that a reader looks for first, and possibly what to compare
    them with."""
    sections: tuple[ReportSection, ...]
    verdicts: tuple[str, ...] = ()
    """The conclusions, each a sentence."""

    @property
    def plots(self) -> Iterator[Plot]:
        """All pictures."""
        return (b for section in self.sections for b in section.blocks if isinstance(b, Plot))

    def markdown(self, plot_folder: str) -> str:
        """Markdown that shows pictures from ``plot_folder``, relative to the report."""
        parts = [f"# {_escape(self.title)}"]
        parts += [_escape(verdict) for verdict in self.verdicts]
        parts += [f"> **{_escape(warning)}**" for warning in self.warnings]
        if self.key_figures:
            figures = [
                f"- {_escape(name)}: **{_escape(value)}**"
                + "".join(f" ({_escape(o)})" for o in other)
                for name, value, *other in self.key_figures
            ]
            parts.append("\n".join(figures))
        for section in self.sections:
            parts.append(f"## {_escape(section.title)}")
            parts += [block.markdown(plot_folder) for block in section.blocks]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One page that needs nothing else: style and pictures are inside."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("template.html").render(report=self)


_ESCAPED: Final = (
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ("\\", "\\\\"),
    ("|", "\\|"),
    ("](", "]\\("),
    ("`", "\\`"),
)
"""What is written instead of what would be a tag, a link, code, or the border of a cell."""


def _escape(text: str) -> str:
    """A text, such as a title, on one line and so that Markdown shows it as it is."""
    text = "".join(c if c.isprintable() else " " for c in text)
    for special, written in _ESCAPED:
        text = text.replace(special, written)
    return text
