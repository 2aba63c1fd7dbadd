"""Causal traces as one table: total effects, and where the indirect effects are highest (docs/method.md §2.4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

from romexp.analysis.missing import continuing
from romexp.analysis.published import PUBLISHED_TRACES, PublishedTrace
from romexp.analysis.trace_settings import Setting, in_percent, metric_title, setting_text, shown_scores, sign
from romexp.analysis.traces import GROUPS, KINDS, LAST_SUBJECT, best_layer, trace_summary, traced
from romexp.errors import DataError
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable, fixed
from romexp.reporting.terminal import literal
from romexp.results.find import FoundRun
from romexp.results.rows import Row
from romexp.results.settings import differing, short, sort_key

CAPTION = (
    "In % (log probabilities and divergences in nats, logit differences in logits), with the half-width of the 95 % "
    "interval. ATE: average total effect. Then the highest average indirect effect of a restored state, of MLPs and of "
    "attention at the last subject token, and its layer; “peak”: the highest anywhere."
)


@dataclass(frozen=True, kw_only=True)
class TraceStudy:
    """Traces of one model and data set with one configuration. Shards are joined.

    Attributes:
        label: model, data set, and the settings in which it differs from other studies of these.
        summary: see `romexp.analysis.traces.trace_summary`.
    """

    label: str
    model: str
    dataset: str
    runs: tuple[FoundRun, ...]
    summary: Mapping[str, Any]


def trace_studies(runs: Iterable[FoundRun]) -> tuple[list[TraceStudy], list[str]]:
    """Studies of `task=trace`, and one line for each run that cannot be used.

    Traces of single sentences are left out.
    """
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        if run.task == "trace" and run.names.get("dataset") != "prompt":
            key = {"names": run.names, "identity": run.same_study()}
            groups.setdefault(json.dumps(key, sort_keys=True), []).append(run)
    studies: list[TraceStudy] = []
    problems: list[str] = []
    for group in groups.values():
        rows: dict[int, Row] = {}
        for run in sorted(group, key=lambda run: (run.finished_at, str(run.path))):
            try:
                rows.update((row["case_id"], row) for row in run.rows())
            except DataError as error:
                problems.append(str(error))
        ordered = [rows[number] for number in sorted(rows)]
        try:
            summary = trace_summary(ordered)
        except (DataError, KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(f"{group[0].path}: its rows are no traces ({type(error).__name__}: {error})")
            continue
        if summary["n"]:
            studies.append(_study(group, summary))
        else:
            problems.append(f"{group[0].path}: not one of {len(ordered)} facts was traced")
    return _labelled(studies), problems


def trace_report(studies: Sequence[TraceStudy]) -> ReportTable:
    """One line for each study, and below it the paper's values if model, data set and settings are the paper's."""
    lines: list[Line] = []
    for study in studies:
        lines.append(_line(study))
        published = PUBLISHED_TRACES.get(study.model)
        if published is not None and _comparable(study, published):
            lines.append(replace(_published_line(published), model=study.model, dataset=study.dataset))
    unfinished = [study for study in studies if any(run.status != "done" for run in study.runs)]
    block = Block(
        title="",
        lines=tuple(lines),
        notes=(
            *(f"{study.label}: not finished" for study in unfinished),
            *(
                f"{study.label}: {several} of {study.summary['n']} facts have an answer of several tokens; p is "
                "that of its first token"
                for study in studies
                if (several := study.summary.get("n_several_tokens"))
            ),
        ),
        commands=tuple(each for study in unfinished for each in continuing(study.runs)),
    )
    effects = [Column(name=name) for kind in KINDS for name in (kind, "layer", f"{kind} peak")]
    return ReportTable(
        name="traces",
        title="Causal traces",
        columns=(
            Column(name="Model, facts", numeric=False),
            *(Column(name=name) for name in ("Facts", "clean", "corrupted", "ATE")),
            *effects,
        ),
        blocks=(block,) if lines else (),
        caption=CAPTION,
        records=tuple(_record(study) for study in studies),
    )


def _comparable(study: TraceStudy, published: PublishedTrace) -> bool:
    tracer = study.runs[0].identity.get("tracer") or {}
    if study.summary.get("setting"):
        return False
    return study.dataset == "known" and all(tracer.get(name) == value for name, value in published.tracer.items())


def _study(group: Sequence[FoundRun], summary: Mapping[str, Any]) -> TraceStudy:
    names = group[0].names
    model, dataset = str(names.get("model", "")), str(names.get("dataset", ""))
    setting = setting_text(summary.get("setting", {}))
    label = f"{model}, {dataset} ({setting})" if setting else f"{model}, {dataset}"
    return TraceStudy(label=label, model=model, dataset=dataset, runs=tuple(group), summary=summary)


def _labelled(studies: Sequence[TraceStudy]) -> list[TraceStudy]:
    """The studies, sorted by model, data set and the settings in which they differ, which are added to their labels."""
    out: list[tuple[list[Any], TraceStudy]] = []
    for study in studies:
        same = [other for other in studies if other.label == study.label]
        fields = differing([other.runs[0].same_study() for other in same])[[o is study for o in same].index(True)]
        label = f"{study.label} ({short(fields)})" if fields else study.label
        place = [study.model, study.dataset, *map(sort_key, fields.values())]
        out.append((place, replace(study, label=label)))
    return [study for _, study in sorted(out, key=lambda each: each[0])]


def _line(study: TraceStudy) -> Line:
    summary = study.summary
    setting = summary.get("setting", {})
    cells = [_number(summary[name]["mean"], summary[name]["half_width"], setting) for name in ("high", "low", "ate")]
    for kind in KINDS:
        cells += _effect(summary, kind)
    return Line(
        cells=(Cell(text=study.label), Cell(text=str(summary["n"]), value=float(summary["n"])), *cells),
        model=study.model,
        dataset=study.dataset,
    )


def _effect(summary: Mapping[str, Any], kind: str) -> list[Cell]:
    """Three cells: highest effect at the last subject token, its layer, and the highest effect at any token."""
    cell, peak = summary["groups"].get(LAST_SUBJECT, {}).get(kind), summary["peaks"].get(kind)
    if cell is None or peak is None:
        return [Cell(text="–")] * 3
    effect, half, layer = best_layer(cell)
    setting = summary.get("setting", {})
    highest = _number(peak["aie"], peak["half_width"], setting)
    where = f"{highest.text} {peak['group']}, layer {peak['layer']}"
    return [
        _number(effect, half, setting),
        Cell(text=str(layer), value=float(layer)),
        Cell(text=where, value=highest.value),
    ]


def _published_line(published: PublishedTrace) -> Line:
    cells = [Cell(text=str(published.facts), value=float(published.facts))]
    cells += [Cell(text=fixed(value), value=value) for value in (published.high, published.low, published.ate)]
    for effect, layer in (published.hidden, published.mlp, published.attn):
        cells += [
            Cell(text=fixed(effect), value=effect),
            Cell(text="–" if layer is None else str(layer)),
            Cell(text="–"),
        ]
    return Line(cells=(Cell(text="published"), *cells), role="published", below=True)


def _number(mean: float, half_width: float | None, setting: Setting) -> Cell:
    """A mean in % or in the metric's unit with its half-width, or with a dash for a single fact."""
    scale = 100 if in_percent(setting) else 1
    shown = fixed if in_percent(setting) else "{:.2f}".format
    width = "–" if half_width is None else shown(scale * half_width)
    return Cell(text=f"{shown(scale * mean)} ({width})", value=scale * mean)


def _record(study: TraceStudy) -> Mapping[str, Any]:
    summary = study.summary
    record: dict[str, Any] = {
        "model": study.model,
        "dataset": study.dataset,
        "study": study.label,
        "facts": summary["n"],
    } | dict(summary.get("setting", {}))
    for name in ("high", "low", "ate"):
        record |= {name: summary[name]["mean"], f"{name}_half_width": summary[name]["half_width"]}
    for kind in KINDS:
        cell = summary["groups"].get(LAST_SUBJECT, {}).get(kind)
        best = best_layer(cell) if cell else (None,) * 3
        record |= dict(zip((kind, f"{kind}_half_width", f"{kind}_layer"), best, strict=True))
        peak = summary["peaks"].get(kind) or {}
        record |= {f"{kind}_peak_{name}": peak.get(name) for name in ("aie", "half_width", "layer", "group")}
    return record


def trace_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Averages over facts; for a single fact, its prediction and the layers where replacing a state matters most."""
    if len(rows) == 1 and traced(rows) and (row := shown_scores(rows[0])) is not None:
        return _single(row, title)
    setting = summary.get("setting", {})
    ate, high, low = (_share(summary[name], setting) for name in ("ate", "high", "low"))
    caption = f"{summary['n']} facts traced, {summary['n_incorrect']} predicted otherwise; "
    caption += f"ATE {ate}, clean {high}, corrupted {low}"
    if setting:
        title = f"{title} ({setting_text(setting)})"
        caption = f"{metric_title(setting)}: {caption}"
    if without := summary.get("n_without_scale"):
        caption += f"; {without} whose total effect is too small to be a scale"
    if summary["suggested_layer"] is not None:
        caption += f"; suggested layer for editing: {summary['suggested_layer']}"
    if several := summary.get("n_several_tokens"):
        caption += f"; {several} with an answer of several tokens, of which p is that of the first"
    table = _table(title, caption)
    table.add_column("highest average indirect effect at")
    for kind in KINDS:
        table.add_column(kind, justify="right")
        table.add_column("layer", justify="right")
    for group in GROUPS:
        cells = summary["groups"].get(group)
        if cells:
            table.add_row(group, *(text for kind in KINDS for text in _peak(cells.get(kind), setting)))
    return table


def _table(title: str, caption: str) -> Table:
    return FittingTable(title=title, caption=caption, title_justify="left", caption_justify="left")


def _peak(cell: Mapping[str, Any] | None, setting: Setting) -> tuple[str, str]:
    if cell is None:
        return "", ""
    effect, half_width, layer = best_layer(cell)
    return _with_width(effect, half_width, setting), str(layer)


def _share(statistic: Mapping[str, Any], setting: Setting) -> str:
    if statistic["mean"] is None:
        return "–"
    return _with_width(statistic["mean"], statistic["half_width"], setting)


def _with_width(mean: float, half_width: float | None, setting: Setting) -> str:
    return f"{_shown(mean, setting)} ({'–' if half_width is None else _shown(half_width, setting)})"


def _shown(value: float, setting: Setting) -> str:
    return f"{value:.1%}" if in_percent(setting) else f"{value:.2f}"


def _single(row: Mapping[str, Any], title: str) -> Table:
    answer = row["answer"].strip()
    if (tokens := row.get("completion_tokens", 1)) > 1:
        answer += f" (the first of {tokens} tokens of {row['completion'].strip()})"
    setting = row.get("setting") or {}
    levels = f"clean {_shown(row['high_score'], setting)}, corrupted {_shown(row['low_score'], setting)}"
    caption = f"{row['prompt']} → {answer}: {levels}"
    if setting:
        title, caption = f"{title} ({setting_text(setting)})", f"{caption} ({metric_title(setting)})"
    if row.get("partner"):
        caption += f"; in the subject's place {row['partner']} → {row['foil'].strip()}"
    table, upwards = _table(title, caption), sign(setting) > 0
    best = "highest" if upwards else "lowest"
    table.add_column("token, subject starred")
    kinds = [kind for kind in KINDS if row.get(kind)]
    for kind in kinds:
        table.add_column(f"{kind}: {best} {'p' if not setting else 'score'}", justify="right")
        table.add_column("layer", justify="right")
    begin, end = row["subject_range"]
    for i, token in enumerate(row["tokens"]):
        cells = []
        for kind in kinds:
            values = np.array(row[kind][i], dtype=float)
            if np.isnan(values).all():
                cells += ["", ""]
                continue
            layer = int(np.nanargmax(values) if upwards else np.nanargmin(values))
            cells += [_shown(values[layer], setting), str(layer)]
        table.add_row(literal(repr(token) + ("*" if begin <= i < end else "")), *cells)
    return table
