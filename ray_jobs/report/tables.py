"""The tables of a report as CSV and LaTeX files, for papers and other programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Final

from foundation.storage import Storage
from ray_jobs.report.document import DataTable, Report

_LONGEST_NAME: Final = 60
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "−": r"$-$",
        "×": r"$\times$",
        "²": r"$^2$",
    }
)


def write_tables(report: Report, folder: Storage) -> None:
    """Write each table as ``NAME.csv`` and ``NAME.tex``; those of an earlier report are removed."""
    folder.delete()
    for name, table in named(report):
        (folder / f"{name}.csv").write_text(as_csv(table))
        (folder / f"{name}.tex").write_text(as_latex(table))


def named(report: Report) -> Iterator[tuple[str, DataTable]]:
    """The tables with names of files: the beginning of the caption, numbered if it repeats."""
    used: dict[str, int] = {}
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, DataTable):
                title = block.caption.partition(";")[0].lower()
                words = re.sub(r"[^a-z0-9]+", "-", title).strip("-")
                name = words[:_LONGEST_NAME].strip("-") or "table"
                used[name] = used.get(name, 0) + 1
                yield name if used[name] == 1 else f"{name}-{used[name]}", block


def as_csv(table: DataTable) -> str:
    """The header and the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    return text.getvalue()


def as_latex(table: DataTable) -> str:
    """A ``table`` with the rules of the package booktabs; rows that stand out are bold."""
    columns = "".join("l" if i in table.words else "r" for i in range(len(table.header)))
    rows = [
        " & ".join([_bold(row[0]) if i in table.marked else _latex(row[0]), *map(_latex, row[1:])])
        for i, row in enumerate(table.rows)
    ]
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_latex, table.header)) + r" \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)


def _bold(text: str) -> str:
    return rf"\textbf{{{_latex(text)}}}"
