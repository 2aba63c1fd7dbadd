"""The page's figures of causal traces: heat maps of single facts and of averages, and curves over layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from matplotlib.figure import Figure

from romexp.analysis.trace_settings import in_percent, metric_title, restores, setting_text, shown_scores, sign
from romexp.analysis.traces import GROUPS, KINDS, traced
from romexp.errors import DataError
from romexp.reporting.figures import traces as drawn
from romexp.reporting.figures.trace_scale import limits_of
from romexp.reporting.page.figures import PANEL, PageFigure
from romexp.reporting.page.heatmap import heatmap, value_text
from romexp.reporting.page.svg import inline_svg
from romexp.reporting.tables.traces import TraceStudy
from romexp.results.find import FoundRun
from romexp.results.rows import rows_with_places
from romexp.results.trace_rows import trace_row_fault

MOST_FACTS = 5
"""Number of facts of one study whose own heat maps the page shows."""
REPLACED = ("average_heatmaps", "average_lines", "severed", "trace_")
"""Beginnings of the names of the pictures that these figures replace."""


def trace_figures(study: TraceStudy, *, heading: str, identifier: str) -> Iterator[PageFigure]:
    """Figures of one study: averages as heat maps and as curves, severed paths, and its first facts.

    Args:
        heading: what the study is called on the page.
        identifier: id of the study in the page.
    """
    summary = study.summary
    groups, setting = summary["groups"], summary.get("setting", {})
    facts = f"{summary['n']} fact{'' if summary['n'] == 1 else 's'}"
    if groups:
        caption = f"Average indirect effect on {metric_title(setting)}: {heading}, {facts}"
        yield PageFigure(caption=f"{caption}{_remark(setting)}.", panels=tuple(_averages(summary, study)))
        panels = [
            inline_svg(figure, prefix=f"f-{identifier}-{kind}", label=f"{kind}: {caption}")
            for kind, figure in _curves(summary, study)
        ]
        yield PageFigure(
            caption=f"{caption}, by layer{_remark(setting)}. Bands are 95 % intervals.", panels=tuple(panels)
        )
        if (severed := drawn.severed_bars(summary, model=study.model)) is not None:
            caption = f"Restored states with parts severed: {heading}, {facts}"
            panel = inline_svg(_narrow(severed, columns=1), prefix=f"f-{identifier}-severed", label=caption)
            yield PageFigure(caption=f"{caption}{_remark(setting)}. Whiskers are 95 % intervals.", panels=(panel,))
    yield from single_facts(study.runs[0])


def single_facts(run: FoundRun) -> Iterator[PageFigure]:
    """Heat maps of the first traced facts of a run."""
    for row in islice(traced(_rows(run)), MOST_FACTS):
        figure = fact_figure(row, model=run.names.get("model", ""), window=_window(run))
        if figure is not None:
            yield figure


def fact_figure(row: Mapping[str, Any], *, model: str, window: int | None) -> PageFigure | None:
    """Heat maps of one fact on one scale. None if its row has no grids, or no normalized scores where these are wanted.

    Args:
        row: the row of a trace (docs/method.md §11.2).
        window: number of layers that are replaced together for MLPs and attention; None if it is not known.
    """
    shown = shown_scores(row)
    kinds = [kind for kind in KINDS if row.get(kind)]
    if shown is None or not kinds:
        return None
    setting = row.get("setting") or {}
    low, high = limits_of(shown, kinds)
    begin, end = row["subject_range"]
    labels = [f"{_shown(t)}{'*' if begin <= i < end else ''}" for i, t in enumerate(row["tokens"])]
    panels = [
        heatmap(
            shown[kind],
            labels=labels,
            kind=kind,
            title=_title(kind, window, setting),
            limits=(low, high) if sign(setting) > 0 else (high, low),
            percent=in_percent(setting),
        )
        for kind in kinds
    ]
    probability = row.get("probability", row["high_score"])
    levels = ", ".join(
        f"{run} {value_text(shown[score], percent=in_percent(setting))}"
        for run, score in (("clean", "high_score"), ("corrupted", "low_score"))
    )
    caption = f"{model}: “{row.get('prompt', '')}” → {row['answer'].strip()} ({probability:.0%}). "
    caption += f"{metric_title(setting)}: {levels}. Tokens of the subject have a star{_remark(setting)}."
    return PageFigure(caption=caption, panels=tuple(panels))


def _rows(run: FoundRun) -> list[dict[str, Any]]:
    """The run's first rows that are traces."""
    try:
        found = [row for _, _, row in islice(rows_with_places(run.path / "cases.jsonl"), 10 * MOST_FACTS)]
    except DataError:
        return []
    return [row for row in found if not trace_row_fault(row)]


def _averages(summary: Mapping[str, Any], study: TraceStudy) -> Iterator[Any]:
    groups, setting = summary["groups"], summary.get("setting", {})
    rows = [group for group in GROUPS if group in groups]
    kinds = [kind for kind in KINDS if any(kind in cells for cells in groups.values())]
    n_layers = max(len(cell["mean"]) for cells in groups.values() for cell in cells.values())
    grids = {kind: [_means(groups[g], kind, n_layers) for g in rows] for kind in kinds}
    scale = max(
        (v for row in grids["hidden" if "hidden" in grids else kinds[0]] for v in row if v is not None), default=0
    )
    for kind in kinds:
        title = _title(kind, _window(study.runs[0]), setting)
        limits = (0.0, max(scale, 1e-9))
        yield heatmap(grids[kind], labels=rows, kind=kind, title=title, limits=limits, percent=in_percent(setting))


def _means(cells: Mapping[str, Any], kind: str, n_layers: int) -> Sequence[float | None]:
    return cells[kind]["mean"] if kind in cells else [None] * n_layers


def _curves(summary: Mapping[str, Any], study: TraceStudy) -> Iterator[tuple[str, Figure]]:
    """A figure for each kind of state, which is as wide as a phone."""
    window = _window(study.runs[0]) or 0
    for kind in KINDS:
        groups = {g: {kind: cells[kind]} for g, cells in summary["groups"].items() if kind in cells}
        if groups:
            figure = drawn.average_lines({**summary, "groups": groups}, window=window, model=study.model)
            yield kind, _narrow(figure, columns=2)


def _narrow(figure: Figure, *, columns: int) -> Figure:
    """The figure as wide as a phone, without its title, which the page gives as the caption."""
    figure.suptitle("")
    axes = figure.axes[0]
    handles, labels = axes.get_legend_handles_labels()
    for legend in list(figure.legends):
        legend.remove()
    rows = -(-len(labels) // columns)
    figure.set_size_inches(PANEL, 2.4 + 0.19 * rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _window(run: FoundRun) -> int | None:
    value = (run.identity.get("tracer") or {}).get("window")
    return value if isinstance(value, int) else None


def _title(kind: str, window: int | None, setting: Mapping[str, Any]) -> str:
    done = "restored" if restores(setting) else "corrupted"
    title = f"{drawn.PARTS[kind]} {done}"
    return title if kind == "hidden" or window in (None, 1) else f"{title}, {window} layers"


def _remark(setting: Mapping[str, Any]) -> str:
    return f" ({setting_text(setting)})" if setting else ""


def _shown(token: str) -> str:
    return token.replace("\n", "\\n")
