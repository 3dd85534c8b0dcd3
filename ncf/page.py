"""A report as one HTML page that loads nothing, for a screen and for paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from ncf.report import Report


def page(report: Report) -> str:
    """The page of ``report``: style and pictures are inside, and there is no script."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE).render(report=report, style=Markup(_STYLE))


# Colours of text have a contrast of 4.5 or more on their ground (WCAG 2.2, level AA).
_STYLE: Final = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #4d5661; --line: #d0d7de; --ground: #f6f8fa;
        --accent: #0b5394; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body { margin: 0; font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
       color: var(--ink); background: #fff; }
.layout { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0 3rem;
          max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -.01em; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 3.5rem 0 .75rem; padding-top: .75rem;
     border-top: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .75rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
.warning { background: #fff4ce; border-left: .35rem solid #9a6700; padding: .6rem 1rem; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
       margin: 1.25rem 0; }
.key div { background: var(--ground); border: 1px solid var(--line); border-radius: .4rem;
           padding: .6rem .9rem; }
.key dt { color: var(--soft); font-size: .85rem; line-height: 1.35; }
.key dd { margin: .15rem 0 0; font-size: 1.3rem; font-weight: 600;
          font-variant-numeric: tabular-nums; }
.contents { font-size: .92rem; }
.contents p { font-weight: 600; margin: 0 0 .4rem; }
.contents ol { list-style: none; margin: 0; padding: 0; }
.contents a { display: block; padding: .25rem 0; text-decoration: none; }
.contents a:hover, .contents a:focus { text-decoration: underline; }
.scroll { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-size: .92rem; line-height: 1.4; }
caption { text-align: left; font-weight: 600; padding: 0 0 .45rem; }
th, td { padding: .32rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
         vertical-align: top; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; }
thead th { border-bottom: 2px solid #57606a; vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 400; }
.words { text-align: left; white-space: normal; min-width: 6rem; }
th:first-child, td:first-child { padding-left: 0; }
figure { margin: 1.5rem 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; max-width: 46rem; }
details { margin: 1.25rem 0; border: 1px solid var(--line); border-radius: .4rem; }
summary { cursor: pointer; padding: .5rem .9rem; font-weight: 600; }
pre { margin: 0; padding: .8rem .9rem; border-top: 1px solid var(--line);
      background: var(--ground); font: .85rem/1.5 ui-monospace, Consolas, monospace;
      white-space: pre-wrap; overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (min-width: 72rem) {
  .layout { grid-template-columns: 13rem minmax(0, 52rem); max-width: 72rem; }
  header, main { grid-column: 2; }
  .contents { grid-area: 1 / 1 / span 2; position: sticky; top: 1.5rem; align-self: start;
              max-height: calc(100vh - 3rem); overflow-y: auto; }
}
@media (max-width: 71.99rem) {
  .contents { border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
              margin: .5rem 0 0; }
  .contents ol { columns: 14rem; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@page { margin: 16mm 15mm; }
@media print {
  body { font-size: 10pt; }
  .layout { display: block; max-width: none; padding: 0; }
  .contents { display: none; }
  h1 { font-size: 18pt; }
  h2 { font-size: 14pt; margin-top: 18pt; }
  h2, h3, caption, summary { break-after: avoid; }
  figure, .warning, .key div, tr { break-inside: avoid; }
  .short { break-inside: avoid; }
  thead { display: table-header-group; }
  p { orphans: 3; widows: 3; max-width: none; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding: 2pt 5pt; }
  figure img { max-height: 110mm; width: auto; }
  .key { grid-template-columns: repeat(4, 1fr); }
  pre { font-size: 7.5pt; background: none; columns: 2; }
  details::details-content { content-visibility: visible; block-size: auto; display: block; }
}
"""

_PAGE: Final = """\
{% macro heading(block) %}
<h3>{{ block.text }}</h3>
{% endmacro %}
{% macro text(block) %}
<p>{{ block.text }}</p>
{% endmacro %}
{% macro table(block) %}
<div class="scroll{{ ' short' if block.rows | length <= 20 }}" role="group" tabindex="0" \
aria-label="{{ block.caption }}">
<table>
<caption>{{ block.caption }}</caption>
<thead><tr>
{% for cell in block.header %}
<th scope="col"{{ ' class=words' if loop.index0 in block.words }}>{{ cell }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in block.rows %}
<tr><th scope="row" class="words">{{ row[0] }}</th>
{%- for cell in row[1:] %}
<td{{ ' class=words' if loop.index in block.words }}>{{ cell }}</td>
{%- endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% macro plot(block) %}
<figure>
<img src="{{ block.data_uri }}" alt="{{ block.description }}">
<figcaption>{{ block.caption }}</figcaption>
</figure>
{% endmacro %}
{% macro listing(block) %}
<details>
<summary>{{ block.title }}</summary>
<pre>{{ block.text }}</pre>
</details>
{% endmacro %}
{% set show = {"heading": heading, "text": text, "table": table, "plot": plot, \
"listing": listing} %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>{{ style }}</style>
</head>
<body>
<div class="layout">
<header>
<h1>{{ report.title }}</h1>
{% for warning in report.warnings %}
<p class="warning" role="note">{{ warning }}</p>
{% endfor %}
{% if report.key_figures %}
<dl class="key">
{% for name, value in report.key_figures %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
</header>
<nav class="contents" aria-label="Contents">
<p>Contents</p>
<ol>
{% for section in report.sections %}
<li><a href="#section-{{ loop.index }}">{{ section.title }}</a></li>
{% endfor %}
</ol>
</nav>
<main>
{% for section in report.sections %}
<section>
<h2 id="section-{{ loop.index }}">{{ section.title }}</h2>
{% for block in section.blocks %}
{{ show[block.kind](block) }}
{%- endfor %}
</section>
{% endfor %}
</main>
</div>
</body>
</html>
"""
