"""Tables of reports as CSV and LaTeX."""

from __future__ import annotations

import csv
from pathlib import Path

from foundation.storage import Storage
from ray_jobs.report.document import DataTable, Report, ReportSection
from ray_jobs.report.tables import as_csv, as_latex, named, write_tables

TABLE = DataTable(
    "Errors, 95 % of Q&A; models in bold",
    ("model", "R²"),
    (("a_b {x} \\ <y>", "0.5 ± 0.1"), ('NCF, "mse"', "−0.2")),
    marked=(1,),
)


def report(*tables: DataTable) -> Report:
    return Report("title", (), (), (ReportSection("section", tables),))


def test_csv_has_the_cells_as_they_are() -> None:
    assert list(csv.reader(as_csv(TABLE).splitlines())) == [
        ["model", "R²"],
        ["a_b {x} \\ <y>", "0.5 ± 0.1"],
        ['NCF, "mse"', "−0.2"],
    ]


def test_latex_is_escaped() -> None:
    lines = as_latex(TABLE).splitlines()
    assert lines[0] == r"% \usepackage{booktabs}"
    assert r"\caption{Errors, 95 \% of Q\&A; models in bold}" in lines
    assert r"\begin{tabular}{lr}" in lines
    assert r"model & R$^2$ \\" in lines
    assert r"a\_b \{x\} \textbackslash{} \textless{}y\textgreater{} & 0.5 $\pm$ 0.1 \\" in lines
    assert r'\textbf{NCF, "mse"} & $-$0.2 \\' in lines


def test_each_table_has_a_file_of_its_own_and_old_ones_are_removed(tmp_path: Path) -> None:
    other = DataTable("Other", ("a",), (("1",),))
    assert [name for name, _ in named(report(TABLE, other, TABLE))] == [
        "errors-95-of-q-a",
        "other",
        "errors-95-of-q-a-2",
    ]
    folder = Storage.at(tmp_path / "tables")
    write_tables(report(TABLE, other), folder)
    write_tables(report(other), folder)
    assert sorted(each.name for each in (tmp_path / "tables").iterdir()) == [
        "other.csv",
        "other.tex",
    ]
