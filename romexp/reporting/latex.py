"""Tables in LaTeX, with booktabs."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from romexp.reporting.report_table import Column, Line, ReportTable

LATEX_PACKAGES = ("booktabs", "xcolor", "graphicx")
"""What a document needs that takes in a table."""

_ESCAPED: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "[": "{[}", "|": r"\textbar{}", '"': "''", "–": "--", "−": "$-$", "±": r"$\pm$",
    "Δ": r"$\Delta$", "ε": r"$\varepsilon$", "σ": r"$\sigma$", "×": r"$\times$", "→": r"$\to$", "·": r"$\cdot$",
    "§": r"\S{}", "“": "``", "”": "''", "’": "'",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}  # fmt: skip


def to_latex(table: ReportTable) -> str:
    """A `table` environment to be read by a document with `LATEX_PACKAGES`."""
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    rows: list[str] = [*_latex_headings(table.columns)]
    rows.append(" & ".join(latex(column.name) for column in table.columns) + r" \\")
    for block in table.blocks:
        rows.append(r"\midrule")
        if block.title:
            rows.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textbf{{{latex(block.title)}}}}} \\")
        rows += [" & ".join(_latex_cells(line)) + r" \\" for line in block.lines]
    body = "\n".join(rows)
    return (
        f"% needs {', '.join(LATEX_PACKAGES)}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{latex(table.title)}. {latex(table.caption)}}}\n\\label{{tab:{table.name}}}\n"
        "\\resizebox{\\linewidth}{!}{%\n"
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n\\end{{table}}\n"
    )


def latex_document(names: Sequence[str]) -> str:
    """A document that takes in the tables of these names, to look at them."""
    packages = "\n".join(f"\\usepackage{{{name}}}" for name in LATEX_PACKAGES)
    tables = "\n".join(f"\\input{{{name}.tex}}\n\\clearpage" for name in names)
    return (
        "\\documentclass[a4paper,landscape]{article}\n\\usepackage[margin=1.5cm]{geometry}\n"
        f"{packages}\n\\begin{{document}}\n{tables}\n\\end{{document}}\n"
    )


def latex(text: str) -> str:
    """Text as LaTeX sets it; what pdflatex has no letter for loses its accents, or becomes a question mark.

    >>> latex("a_b & 5 %")
    'a\\\\_b \\\\& 5 \\\\%'
    """
    return "".join(map(_latex_character, text))


def _latex_character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    known = ord(character) < 128 or character in "ßøØæÆåÅ" or (ord(character) < 256 and bare.isalpha())
    return character if known else "".join(_ESCAPED.get(each, each) for each in bare) or "?"


def _latex_headings(columns: Sequence[Column]) -> Iterator[str]:
    """The line above the columns' names, with rules under shared headings."""
    if not any(column.heading for column in columns):
        return
    cells, rules, position = [], [], 1
    for heading, group in itertools.groupby(columns, key=lambda column: column.heading):
        width = len(list(group))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{latex(heading)}}}")
        rules += [rf"\cmidrule(lr){{{position}-{position + width - 1}}}"] if heading else []
        position += width
    yield " & ".join(cells) + r" \\"
    yield "".join(rules)


def _latex_cells(line: Line) -> Iterator[str]:
    for number, cell in enumerate(line.cells):
        text = latex(cell.text)
        if number == 0:
            text = r"\quad " + text if line.role != "measured" else text
        if cell.mark == "best":
            text = rf"\textbf{{\textcolor{{green!50!black}}{{{text}}}}}"
        elif cell.mark == "strong":
            text = rf"\textbf{{{text}}}"
        elif cell.mark == "failure":
            text = rf"\textcolor{{red}}{{{text}}}"
        yield rf"\textcolor{{gray}}{{{text}}}" if line.role != "measured" and not cell.mark else text
