"""The page of `task=onboard`: one HTML file with the scan of layers and learning rates, the checks and the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from romexp.analysis.intervals import interval_of
from romexp.analysis.sweeps import sweep_axis
from romexp.reporting.figures.style import TITLES, editor_color, mean_of
from romexp.reporting.figures.sweeps import sweep_figure
from romexp.reporting.html import render
from romexp.reporting.page.figures import PANEL
from romexp.reporting.page.svg import inline_svg
from romexp.reporting.tables.model import fixed

TEMPLATE = Path(__file__).parent / "templates" / "onboarding.html"
DRAWN = ("S", "ES", "PS", "NS", "Efficacy", "Paraphrase", "Specificity")
"""Metrics with a panel."""
SHOWN = (*DRAWN, "PM")
"""Metrics with a column."""


def onboarding_page(summary: Mapping[str, Any], *, model: str, editor: tuple[str, str], files: Sequence[str]) -> str:
    """The page as one text. Equal input gives equal text.

    Args:
        summary: the summary of the run.
        model: name of the model.
        editor: the editor's option and its label.
        files: the files of settings.
    """
    said = summary["sentences"]
    scans = [
        _scan(summary, "layers", "layer", title="Layers", sentence=said[1], editor=editor),
        _scan(summary, "rates", summary["rate_field"], title="Learning rate", sentence=said[2], editor=editor),
    ]
    low, high = interval_of(summary["S"])
    return render(
        TEMPLATE,
        ("page_cut.js", "onboarding.js"),
        styles=("page.css", "page_figures.css"),
        title=f"{model}: settings for {editor[1]}",
        data=None,
        model=model,
        editor=editor[1],
        score=fixed(summary["S"]["mean"]),
        interval="" if low is None or high is None else f"{fixed(low)} to {fixed(high)}",
        before=fixed(summary["pre"]["S"]["mean"]),
        chosen=[(name, f"{value:g}") for name, value in summary["chosen"].items()],
        records=summary["records"],
        measured=str(summary["measured"])[:16].replace("T", " "),
        sentences=[said[0], *said[3:]],
        command=summary["command"],
        files=files,
        scans=scans,
        checks=[_check(check) for check in summary["checks"]],
        tokenizer=summary["tokenizer"],
    )


def _scan(
    summary: Mapping[str, Any], key: str, field: str, *, title: str, sentence: str, editor: tuple[str, str]
) -> dict[str, Any]:
    entries = summary[key]
    metrics = [name for name in SHOWN if any(name in entry["post"] for entry in entries)]
    return {
        "title": title,
        "field": field,
        "sentence": sentence,
        "panels": _panels(entries, summary["pre"], f"editor.{field}", editor) if len(entries) > 1 else [],
        "caption": f"{editor[1]} by {field}, {summary['records']}. Bands are 95 % intervals; the vertical line is the "
        "choice, the dashed one the unedited model.",
        "metrics": [(name, TITLES.get(name, name)) for name in metrics],
        "rows": [
            {
                "value": f"{entry['value']:g}",
                "chosen": entry["behind"] is None,
                "cells": _cells(entry, metrics),
                "command": entry["command"],
            }
            for entry in entries
        ],
    }


def _panels(
    entries: Sequence[Mapping[str, Any]], before: Mapping[str, Any], field: str, editor: tuple[str, str]
) -> list[Markup]:
    """A panel for each metric, all of the width of a phone."""
    axis = sweep_axis([{field: entry["value"]} for entry in entries], x=field)
    assert axis is not None  # there are several values
    sides = [entry["post"] for entry in entries]
    chosen = next(entry["value"] for entry in entries if entry["behind"] is None)
    panels = []
    for metric in [name for name in DRAWN if any(mean_of(side, name) is not None for side in sides)]:
        figure: Figure = sweep_figure(
            axis, sides, before=before, single=(editor[1], editor_color(editor[0])), title="", panels=[[metric]]
        )
        figure.axes[0].axvline(chosen, color="0.4", linewidth=1, zorder=0)
        figure.set_size_inches(PANEL, figure.get_figheight())
        panels.append(inline_svg(figure, prefix=f"{field.replace('.', '-')}-{metric}", label=f"{metric} by {field}"))
    return panels


def _cells(entry: Mapping[str, Any], metrics: Sequence[str]) -> list[dict[str, str]]:
    """The first metric, by how much it is behind that of the choice, and the other metrics."""
    first, *others = (_cell(entry["post"].get(name)) for name in metrics)
    return [first, {"text": "", "interval": ""} if entry["behind"] is None else _cell(entry["behind"]), *others]


def _cell(entry: Mapping[str, Any] | None) -> dict[str, str]:
    if entry is None or entry["mean"] is None:
        return {"text": "–", "interval": ""}
    low, high = interval_of(entry)
    return {
        "text": fixed(entry["mean"]),
        "interval": "" if low is None or high is None else f"{fixed(low)} to {fixed(high)}",
    }


def _check(check: Mapping[str, Any]) -> dict[str, str]:
    """A row. There is none of a check that failed, since that ends the command."""
    numbers = {name: f"{check[name]:.2g}" for name in ("measured", "limit")}
    return {"name": check["name"], "unit": check["unit"], **numbers}
