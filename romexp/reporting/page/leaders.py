"""Who wins and by how much: the editors of one study, sorted by S, with the best value of each metric marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from romexp.analysis.intervals import interval_of
from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import UNEDITED, Statistics
from romexp.analysis.trace_settings import in_percent, metric_title
from romexp.reporting.figures.style import BOUNDED, TITLES, UNEDITED_COLOR, editor_color
from romexp.reporting.page.headings import study_heading
from romexp.reporting.tables.model import failing, fixed, in_parentheses
from romexp.reporting.tables.paired import paired
from romexp.reporting.tables.remarks import remarks, shown_label

MOST_ROWS = 12
"""Most editors in the chart; the table of the study has all."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of the chart.

    Attributes:
        text: the number; a dash if there is none.
        reach: what follows it: the interval of S, or how far the interval reaches.
        bar: length of its bar and the ends of its interval, as parts of the column's scale; None without a bar.
        best: whether no other editor has a higher printed value.
        failure: whether it is a clear failure, by the paper's thresholds.
    """

    text: str
    reach: str = ""
    bar: tuple[float, float, float] | None = None
    best: bool = False
    failure: bool = False


def leading_first(studies: Sequence[tuple[Study, Study]]) -> list[tuple[Study, Study]]:
    """Studies and the same on shared cases: that with the most runs of an editor first, the others as they were.

    Of equal ones the one with the most cases is first.
    """

    def size(pair: tuple[Study, Study]) -> tuple[int, int]:
        runs = sum(len(entry.runs) for entry in pair[0].entries if entry.edits)
        return runs, len(pair[0].unedited_results)

    first = max(studies, key=size, default=None)
    return sorted(studies, key=lambda pair: pair is not first)


def leaders(study: Study, compared: Study) -> dict[str, Any]:
    """Values of the chart for the template.

    Args:
        compared: the study on the cases that its entries share, from which the values come.
    """
    entries = sorted((entry for entry in compared.entries if entry.edits), key=_order)
    shown = entries[:MOST_ROWS]
    before = compared.unedited["pre"]
    columns = [name for name in compared.columns if any(_mean(e.metrics, name) is not None for e in shown)]
    best = {name: _best([entry for entry in entries if not entry.apart], name) for name in columns}
    scales = {name: _scale([before, *(entry.metrics for entry in shown)], name) for name in columns}
    rows = [
        {
            "label": shown_label(entry),
            "color": editor_color(entry.editor),
            "values": [_value(entry, name, best[name], scales[name], zsre=study.kind == "zsre") for name in columns],
        }
        for entry in shown
    ]
    unedited = [_plain(before, name, scales[name]) for name in columns]
    return {
        "heading": study_heading(study, compared),
        "headline": headline(entries, before),
        "columns": [(name, TITLES.get(name, name)) for name in columns],
        "rows": [*rows, {"label": UNEDITED, "color": UNEDITED_COLOR, "values": unedited}],
        "hidden": len(entries) - len(shown),
        "notes": remarks(compared),
    }


def headline(entries: Sequence[Entry], before: Mapping[str, Statistics]) -> dict[str, str] | None:
    """The winner's name, its S, and how far it is ahead; None if no editor has an S.

    Args:
        entries: the editors, in descending order of S.
        before: the unedited model's statistics.
    """
    ranked = [entry for entry in entries if not entry.apart and _mean(entry.metrics, "S") is not None]
    if not ranked:
        return None
    first, *others = ranked
    text = {"winner": shown_label(first), "score": _number(first.metrics["S"])}
    if others:
        return text | {"lead": _lead(first, others[0])}
    unedited = _mean(before, "S")
    return text | {"lead": "" if unedited is None else f"The unedited model has {fixed(unedited)}."}


def trace_headline(summary: Mapping[str, Any]) -> str:
    """What a page of traces alone says first: the total effect, and where MLPs matter most."""
    setting = summary.get("setting", {})

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if in_percent(setting) else f"{value:.2f}"

    high, low, effect = (shown(summary[name]["mean"]) for name in ("high", "low", "ate"))
    text = f"The corruption takes {metric_title(setting)} from {high} to {low}, a total effect of {effect}."
    peak = summary.get("peaks", {}).get("mlp")
    if peak:
        where = f"at the {peak['group']}, layer {peak['layer']}"
        text += f" MLPs have the highest indirect effect {where}: {shown(peak['aie'])}."
    return text


def _lead(first: Entry, second: Entry) -> str:
    """By how much the first editor is ahead of the second, on the cases that both have."""
    pair = paired(first, second)
    difference = pair.differences.get("S")
    name = shown_label(second)
    if difference is None or difference["mean"] is None:
        return f"Next is {name} with {_number(second.metrics['S'])}."
    low, high = difference.get("interval") or (None, None)
    ahead = f"{fixed(difference['mean'])} points"
    if low is None or high is None:
        return f"That is {ahead} more than {name}."
    interval = f"95 % interval {fixed(low)} to {fixed(high)}"
    if low <= 0:
        return f"That is {ahead} more than {name}, which {pair.n} cases do not tell apart ({interval})."
    return f"That is {ahead} more than {name} ({interval})."


def _order(entry: Entry) -> tuple[bool, bool, float]:
    score = _mean(entry.metrics, "S")
    return entry.apart, score is None, -(score or 0.0)


def _mean(side: Mapping[str, Statistics], name: str) -> float | None:
    return (side.get(name) or {}).get("mean")


def _best(entries: Sequence[Entry], name: str) -> str | None:
    """The highest printed value of a metric; None if fewer than two editors have one."""
    values = [mean for entry in entries if (mean := _mean(entry.metrics, name)) is not None]
    return fixed(max(values)) if len(values) > 1 else None


def _scale(sides: Sequence[Mapping[str, Statistics]], name: str) -> float | None:
    """The value with the longest bar; None if a value is negative, since such a column has no bars."""
    values = [mean for side in sides if (mean := _mean(side, name)) is not None]
    if name in BOUNDED:
        return 100.0
    return max(values) if values and min(values) >= 0 and max(values) > 0 else None


def _value(entry: Entry, name: str, best: str | None, scale: float | None, *, zsre: bool) -> Value:
    value = _plain(entry.metrics, name, scale)
    mean = _mean(entry.metrics, name)
    is_best = best is not None and value.text == best and not entry.apart
    return Value(
        text=value.text, reach=value.reach, bar=value.bar, best=is_best, failure=failing(name, mean, zsre=zsre)
    )


def _plain(side: Mapping[str, Statistics], name: str, scale: float | None) -> Value:
    entry, mean = side.get(name), _mean(side, name)
    if entry is None or mean is None:
        return Value(text="–")
    low, high = interval_of(entry)
    reach = in_parentheses(entry).strip()
    if name == "S" and low is not None and high is not None:
        reach = f"{fixed(low)} to {fixed(high)}"
    bar = None
    if scale:
        bar = tuple(min(max((mean if end is None else end) / scale, 0.0), 1.0) for end in (mean, low, high))
    return Value(text=fixed(mean), reach=reach, bar=bar)  # type: ignore[arg-type]  # three values


def _number(entry: Statistics) -> str:
    return fixed(entry["mean"])
