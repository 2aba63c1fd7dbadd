"""A Weights & Biases report on the runs of a project: metrics by editor, metrics by layer, and the table of runs.

`publish` saves the report and returns its URL. Without a W&B key it writes the report's spec as JSON and returns the
path of that file. Runs are grouped by entries of their config that `romexp.tasks.run` writes: `names.model`,
`names.dataset`, `names.editor` and `layer`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from romexp.analysis.metrics import COUNTERFACT
from romexp.errors import ConfigError
from romexp.files import write_text
from romexp.wandb_settings import has_wandb_key

log = logging.getLogger(__name__)

NAMES = ("model", "dataset", "editor")
"""Entries of a run's `names` by which runs are grouped."""

FILE = "wandb_report.json"
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 6
"""Number of panels in a row, and width and height of a panel on W&B's grid of 24 columns."""

_BARS = (
    "Means × 100 after the edit, by model, data set and editor. Where several runs share all three, a bar is their "
    "mean and the line their range."
)
_OWN_CASES = (
    "Each run is shown over all of its cases. romexp task=report compares editors on the cases that they share; of "
    "these runs it says:"
)
_LAYERS = "One point for each run, over its configured layer; the line is the mean of the runs shown."

Spec = dict[str, Any]


def publish(
    *,
    entity: str | None,
    project: str,
    title: str,
    metrics: Sequence[str],
    folder: Path,
    online: bool = True,
    notes: Sequence[str] = (),
) -> str:
    """Create a new report. An earlier report of the same title is not changed.

    Args:
        entity: W&B user or team; None takes the key's default.
        project: the W&B project of the runs; it is created if there is none.
        title: at most 128 characters.
        metrics: the paper's names (ES, PS, …), in the order of the panels; if empty, those of CounterFact.
        folder: folder for the spec if the report is not saved to W&B.
        online: whether the user lets it be saved to W&B. If not, or if there is no key, only the spec is written.
        notes: what the reader must know about the runs: editors whose cases differ, settings that are another model's.

    Returns:
        The report's URL, or the path of its spec.

    Raises:
        ConfigError: wandb-workspaces is not installed, the title is too long, or W&B refused the report.
    """
    report = _report(entity=entity, project=project, title=title, metrics=metrics, notes=notes)
    if not (has_key := has_wandb_key()) or not online:
        path = folder / FILE
        write_text(path, json.dumps(_spec(report), indent=2, ensure_ascii=False) + "\n")
        reason = "W&B is not online (WANDB_MODE, WANDB_DISABLED or tracker.mode)" if has_key else "no W&B key"
        then = "online" if has_key else "after `wandb login`"
        log.warning("%s: the report is written to %s; %s the same command saves it to W&B", reason, path, then)
        return str(path)
    import wandb

    try:
        report.entity = entity or wandb.Api().default_entity
        report.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise ConfigError(f"W&B did not save the report to {report.entity or ''}/{project}: {error}") from error
    return str(report.url)


def build(
    *, entity: str | None, project: str, title: str, metrics: Sequence[str] = (), notes: Sequence[str] = ()
) -> Spec:
    """The report as JSON-ready values, as W&B would get it. No network request is made.

    Raises:
        ConfigError: wandb-workspaces is not installed, or the title is too long.
    """
    return _spec(_report(entity=entity, project=project, title=title, metrics=metrics, notes=notes))


def _spec(report: Any) -> Spec:
    view = json.loads(report._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return {key: view[key] for key in ("displayName", "description", "project", "spec")}


def _report(*, entity: str | None, project: str, title: str, metrics: Sequence[str], notes: Sequence[str]) -> Any:
    wr = _library()
    if not 0 < len(title) <= 128:
        raise ConfigError(f"W&B takes titles of 1 to 128 characters, not {len(title)}: {title!r}")
    names = tuple(metrics) or COUNTERFACT
    bars = _grid(wr, "editors", _edits(wr, names, grouped=True), [_bars(wr, i, name) for i, name in enumerate(names)])
    curves = _grid(wr, "layers", _edits(wr, names), [_layers(wr, i, name) for i, name in enumerate(names)])
    runs = _grid(wr, "runs", _edits(wr, names), [_cases(wr)])
    return wr.Report(
        entity=entity or "",  # a run set without a project shows the runs of the report's project
        project=project,
        title=title,
        description="Model editing: each fact edited by itself, measured before and after.",
        width="fluid",
        blocks=[
            wr.H2("Editors"),
            wr.P(_BARS),
            *_notes(wr, notes),
            bars,
            wr.H2("Layers"),
            wr.P(_LAYERS),
            curves,
            wr.H2("Runs"),
            runs,
        ],
    )


def _notes(wr: Any, notes: Sequence[str]) -> list[Any]:
    """Paragraphs on what the panels cannot tell apart: they show each run over all of its cases."""
    return [wr.P(text) for text in ([_OWN_CASES, *notes] if notes else [])]


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ConfigError("W&B reports need wandb-workspaces: pip install 'romexp[reports]'") from error
    return wr


def _grid(wr: Any, name: str, runs: Any, panels: Sequence[Any]) -> Any:
    """A grid of panels over one set of runs. Ids are made from positions, so that equal reports have equal specs."""
    for number, part in enumerate((runs, *panels)):
        part._id = hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:11]
    return wr.PanelGrid(runsets=[runs], panels=list(panels))


def _edits(wr: Any, metrics: Sequence[str], *, grouped: bool = False) -> Any:
    """The set of finished edit runs, with the columns of its table; panels show groups of runs if `grouped`."""
    columns = [f"config:names.value.{name}" for name in NAMES] + ["config:layer.value"]
    columns += [f"summary:{key}" for key in ("n_cases", *(f"post/{metric}" for metric in metrics))]
    return wr.Runset(
        name="edits",
        filters="JobType = 'edit' and State = 'finished'",
        groupby=[f"config.names.{name}" for name in NAMES] if grouped else [],
        order=[wr.OrderBy("Name", ascending=True)],  # a run's name begins with model, data set and editor
        pinned_columns=["run:displayName"],
        visible_columns=columns,
        lock_columns=True,
    )


def _bars(wr: Any, index: int, metric: str) -> Any:
    return wr.BarPlot(
        title=metric,
        metrics=[wr.SummaryMetric(f"post/{metric}")],
        orientation="h",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        layout=_place(wr, index),
    )


def _layers(wr: Any, index: int, metric: str) -> Any:
    return wr.ScatterPlot(
        title=f"{metric} by layer",
        x=wr.Config("layer"),
        y=wr.SummaryMetric(f"post/{metric}"),
        running_ymean=True,
        legend_template="${config:names.editor} ${config:names.model}",
        layout=_place(wr, index),
    )


def _cases(wr: Any) -> Any:
    """The table of cases that every run logs."""
    return wr.WeavePanelSummaryTable(table_name="cases", layout=wr.Layout(x=0, y=0, w=_COLUMNS * _WIDTH, h=2 * _HEIGHT))


def _place(wr: Any, index: int) -> Any:
    row, column = divmod(index, _COLUMNS)
    return wr.Layout(x=column * _WIDTH, y=row * _HEIGHT, w=_WIDTH, h=_HEIGHT)
