"""A report as one self-contained HTML page and as Markdown, from the same sections."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import PurePosixPath

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class DataTable:
    """Cells as text; the first column is left-aligned, the others right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A pipe table."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = [self.header, tuple(rule), *self.rows]
        return "\n".join("| " + " | ".join(_escape(c) for c in line) + " |" for line in lines)


@dataclass(frozen=True)
class Plot:
    """A picture and what it shows."""

    name: str
    """File name without its ending."""
    description: str
    """Says in words what is to be seen: the alternative text."""
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class ReportSection:
    """A heading with paragraphs, tables and pictures below it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[DataTable, ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    warnings: tuple[str, ...]
    """What a reader must not overlook, such as that the data are synthetic."""
    sections: tuple[ReportSection, ...]
    footnotes: tuple[str, ...]
    """Licences and attributions."""

    @property
    def plots(self) -> tuple[Plot, ...]:
        """All pictures."""
        return tuple(plot for section in self.sections for plot in section.plots)

    def markdown(self, plot_folder: str) -> str:
        """Markdown that shows pictures from ``plot_folder``, relative to the report."""
        parts = [f"# {self.title}"]
        parts += [f"> **{warning}**" for warning in self.warnings]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += section.paragraphs
            parts += [table.markdown() for table in section.tables]
            parts += [
                f"![{plot.description}]({PurePosixPath(plot_folder) / plot.name}.png)"
                for plot in section.plots
            ]
        parts.append("---")
        parts += [f"*{note}*" for note in self.footnotes]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One page that needs nothing else: style and pictures are inside."""
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        return environment.from_string(_PAGE).render(report=self, style=Markup(_STYLE))


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.8rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #c9d1d9; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #c9d1d9; text-align: right;
         font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #57606a; }
img { max-width: 100%; height: auto; }
.warning { background: #fff4ce; border-left: .4rem solid #9a6700; padding: .6rem 1rem; }
footer { margin-top: 3rem; color: #424a53; font-size: .85rem; }
@media print { body { max-width: none; margin: 0; } h2, table, img { break-inside: avoid; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title><style>{{ style }}</style></head>
<body>
<main>
<h1>{{ report.title }}</h1>
{% for warning in report.warnings %}<p class="warning" role="note">{{ warning }}</p>
{% endfor %}{% for section in report.sections %}<section>
<h2>{{ section.title }}</h2>
{% for paragraph in section.paragraphs %}<p>{{ paragraph }}</p>
{% endfor %}{% for table in section.tables %}<table>
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>
{% endfor %}{% for plot in section.plots %}<figure>
<img src="{{ plot.data_uri }}" alt="{{ plot.description }}">
</figure>
{% endfor %}</section>
{% endfor %}</main>
<footer>{% for note in report.footnotes %}<p>{{ note }}</p>
{% endfor %}</footer>
</body></html>
"""
