"""Writes tables in LaTeX with booktabs."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from pylatexenc.latexencode import (
    RULE_DICT,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
    get_builtin_uni2latex_dict,
)

from romexp.reporting.tables.model import Column, Line, ReportTable

LATEX_PACKAGES = ("booktabs", "xcolor", "graphicx", "longtable")
"""Packages that a document with such a table needs."""

MOST_LINES = 24
"""Most lines of a `table`; more do not fit on a landscape page."""

_OWN_CODES = {
    "[": "{[}", "|": r"\textbar{}", "\x7f": "?", "–": "--", "−": "$-$", "“": "``", "”": "''", "→": r"$\to$",
    "ε": r"$\varepsilon$",
}  # fmt: skip
"""Characters that pylatexenc would not convert, or would convert to longer code. A bare `[` after the end of a line
would begin an optional argument."""

_ENCODED = (range(0x180), range(0x391, 0x3CA), range(0x2010, 0x2027))
"""Codes of European and Greek letters and punctuation. Most other conversions of pylatexenc need more packages."""

_NOT_IN_FONTS = re.compile(r"\\(k\{|DH|TH|dh|th|DJ|dj|NG|ng|guil|quote|nument|nobreak)")
"""Commands in these conversions for characters that the standard fonts of LaTeX lack."""

_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def to_latex(table: ReportTable) -> str:
    """A `table`, or a `longtable` if it would not fit on a page, for a document with `LATEX_PACKAGES`."""
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    head = [*_latex_headings(table.columns), " & ".join(latex(column.name) for column in table.columns) + r" \\"]
    grouped = any(line.below for block in table.blocks for line in block.lines)
    body: list[str] = []
    for block in table.blocks:
        body.append(r"\midrule")
        if block.title:
            body.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textbf{{{latex(block.title)}}}}} \\*")
        for line, after in itertools.zip_longest(block.lines, block.lines[1:]):
            joined = after is not None and after.below  # then there is no page break between the two lines
            body += [r"\addlinespace"] if grouped and not line.below else []
            body.append(" & ".join(_latex_cells(line)) + (r" \\*" if joined else r" \\"))
    said = [table.caption, *(f"{block.title}: {remark}." for block in table.blocks for remark in block.remarks)]
    caption = f"\\caption{{{latex(table.title)}. {latex(' '.join(said))}}}\n\\label{{tab:{table.name}}}"
    make = _long if sum(len(block.lines) for block in table.blocks) > MOST_LINES else _float
    return f"% needs {', '.join(LATEX_PACKAGES)}\n" + make(caption, spec, "\n".join(head), "\n".join(body))


def _float(caption: str, spec: str, head: str, body: str) -> str:
    """A `table`, which is scaled down if it is wider than the text."""
    return (
        f"\\begin{{table}}\n\\centering\n{caption}\n\\smallskip\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{head}\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n\\end{{table}}\n"
    )


def _long(caption: str, spec: str, head: str, body: str) -> str:
    """A `longtable` in small type, over several pages with the headings on each."""
    return (
        "\\begingroup\n\\scriptsize\\setlength{\\tabcolsep}{3pt}\\setlength{\\LTcapwidth}{\\linewidth}\n"
        f"\\begin{{longtable}}{{{spec}}}\n{caption} \\\\\n"
        f"\\toprule\n{head}\n\\endfirsthead\n\\toprule\n{head}\n\\midrule\n\\endhead\n\\bottomrule\n\\endfoot\n"
        f"{body}\n\\end{{longtable}}\n\\endgroup\n"
    )


def latex_document(names: Sequence[str]) -> str:
    """A document that shows the tables of these names."""
    packages = "\n".join(f"\\usepackage{{{name}}}" for name in LATEX_PACKAGES)
    tables = "\n".join(f"\\input{{{name}.tex}}\n\\clearpage" for name in names)
    return (
        "\\documentclass[a4paper,landscape]{article}\n\\usepackage[margin=1.5cm]{geometry}\n"
        f"{packages}\n\\begin{{document}}\n{tables}\n\\end{{document}}\n"
    )


def latex(text: str) -> str:
    """The text in LaTeX, on one line.

    A character that the standard fonts lack loses its accents or becomes a question mark.

    >>> latex("a_b & 5 %")
    'a\\\\_b \\\\& 5 \\\\%'
    """
    return _ENCODER.unicode_to_latex(re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text))


def _nearest(character: str) -> str:
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return latex(bare) if bare and bare.isprintable() else "?"


def _rules() -> Iterator[UnicodeToLatexConversionRule]:
    """Rules of the encoder. For each character, the first rule that knows it is used."""
    yield UnicodeToLatexConversionRule(
        RULE_DICT, {ord(character): written for character, written in _OWN_CODES.items()}
    )
    known = get_builtin_uni2latex_dict()
    plain = [code for code in itertools.chain(*_ENCODED) if code in known and not _NOT_IN_FONTS.search(known[code])]
    yield UnicodeToLatexConversionRule(RULE_DICT, {code: known[code] for code in plain})


_ENCODER = UnicodeToLatexEncoder(
    conversion_rules=list(_rules()),
    replacement_latex_protection="braces-after-macro",
    unknown_char_policy=_nearest,
    unknown_char_warning=False,
)


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
        text = _MINUS.sub("$-$", text) if number else (r"\quad " + text if line.below else text)
        if cell.mark == "best":
            text = rf"\textbf{{\textcolor{{green!50!black}}{{{text}}}}}"
        elif cell.mark == "strong":
            text = rf"\textbf{{{text}}}"
        elif cell.mark == "failure":
            text = rf"\textcolor{{red}}{{{text}}}"
        yield rf"\textcolor{{gray}}{{{text}}}" if line.role != "measured" and not cell.mark else text
