"""A Weights & Biases report over a project's runs: editors by metric, metrics by layer, the table of runs.

    publish(*, entity, project, title, metrics, folder) -> str

saves it and returns its URL, or, where there is no key, writes its spec as JSON into `folder` and returns that path.
Runs are grouped by what they say in their config: `names.model`, `names.dataset`, `names.editor`; layers by `layer`
(`romexp.tasks.run`).
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
from romexp.tracking import has_wandb_key

log = logging.getLogger(__name__)

NAMES = ("model", "dataset", "editor")
"""By what runs are compared."""

FILE = "wandb_report.json"
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 6
"""Panels in a row of the report, and the size of one on W&B's grid of 24 columns."""

_BARS = (
    "Means × 100 after the edit, by model, data set and editor. Where several runs share all three, a bar is their "
    "mean and the line their range."
)
_LAYERS = "One point a run, over the edited layer as it was configured; the line is the mean of the runs shown."

Spec = dict[str, Any]


def publish(*, entity: str | None, project: str, title: str, metrics: Sequence[str], folder: Path) -> str:
    """Make the report anew; an earlier one of the same title stays as it is.

    Args:
        entity: user or team; None is the key's own.
        project: the W&B project in which the runs lie; made if there is none.
        title: at most 128 characters.
        metrics: the paper's names (ES, PS, …), in the order of the panels; none takes CounterFact's.
        folder: where the spec goes if it cannot be saved to W&B.

    Returns:
        The report's URL, or the path of its spec.

    Raises:
        ConfigError: wandb-workspaces is not installed, the title is too long, or W&B refused the report.
    """
    report = _report(entity=entity, project=project, title=title, metrics=metrics)
    if not has_wandb_key():
        path = folder / FILE
        write_text(path, json.dumps(_spec(report), indent=2, ensure_ascii=False) + "\n")
        log.warning("no W&B key: the report is add_title in %s; after `wandb login` the same command saves it", path)
        return str(path)
    import wandb

    try:
        report.entity = entity or wandb.Api().default_entity
        report.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise ConfigError(f"W&B did not save the report to {report.entity or ''}/{project}: {error}") from error
    return str(report.url)


def build(*, entity: str | None, project: str, title: str, metrics: Sequence[str] = ()) -> Spec:
    """What W&B would be sent: the report as JSON-ready values. Touches no network.

    Raises:
        ConfigError: wandb-workspaces is not installed, or the title is too long.
    """
    return _spec(_report(entity=entity, project=project, title=title, metrics=metrics))


def _spec(report: Any) -> Spec:
    view = json.loads(report._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return {key: view[key] for key in ("displayName", "description", "project", "spec")}


def _report(*, entity: str | None, project: str, title: str, metrics: Sequence[str]) -> Any:
    wr = _library()
    if not 0 < len(title) <= 128:
        raise ConfigError(f"W&B takes titles of 1 to 128 characters, not {len(title)}: {title!r}")
    names = tuple(metrics) or COUNTERFACT
    bars = _grid(wr, "editors", _edits(wr, names, grouped=True), [_bars(wr, i, name) for i, name in enumerate(names)])
    curves = _grid(wr, "layers", _edits(wr, names), [_layers(wr, i, name) for i, name in enumerate(names)])
    runs = _grid(wr, "runs", _edits(wr, names), [_cases(wr)])
    return wr.Report(
        entity=entity or "",  # a run set without a project shows the runs of the report's own
        project=project,
        title=title,
        description="Model editing: each fact edited by itself, measured before and after.",
        width="fluid",
        blocks=[wr.H2("Editors"), wr.P(_BARS), bars, wr.H2("Layers"), wr.P(_LAYERS), curves, wr.H2("Runs"), runs],
    )


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ConfigError("W&B reports need wandb-workspaces: pip install 'romexp[reports]'") from error
    return wr


def _grid(wr: Any, name: str, runs: Any, panels: Sequence[Any]) -> Any:
    """Panels over one set of runs. Their ids are made from their places, so that the same report is the same text."""
    for number, part in enumerate((runs, *panels)):
        part._id = hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:11]
    return wr.PanelGrid(runsets=[runs], panels=list(panels))


def _edits(wr: Any, metrics: Sequence[str], *, grouped: bool = False) -> Any:
    """The finished edit runs, with the columns of their table; panels show the groups if there are any."""
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
