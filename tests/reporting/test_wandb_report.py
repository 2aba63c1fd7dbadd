"""The Weights & Biases report, as the JSON that would be sent; nothing is sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from romexp.errors import ConfigError
from romexp.reporting import wandb_report
from romexp.reporting.wandb_report import build, publish

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed (extra reports)")

METRICS = ("S", "ES", "NS")


@pytest.fixture
def grids() -> list[dict[str, Any]]:
    """The report's panel grids: editors, layers, runs."""
    spec = build(entity=None, project="romexp", title="Editors on minifact", metrics=METRICS)
    assert spec["displayName"] == "Editors on minifact"
    assert spec["project"]["name"] == "romexp"
    assert json.loads(json.dumps(spec)) == spec
    return [block["metadata"] for block in spec["spec"]["blocks"] if block["type"] == "panel-grid"]


def panels(grid: dict[str, Any]) -> list[dict[str, Any]]:
    return grid["panelBankSectionConfig"]["panels"]


def test_a_bar_panel_for_every_metric_grouped_by_what_is_compared(grids: list[dict[str, Any]]) -> None:
    bars, (runs,) = panels(grids[0]), grids[0]["runSets"]
    assert [panel["viewType"] for panel in bars] == ["Bar Chart"] * 3
    assert [panel["config"]["metrics"] for panel in bars] == [[f"summary_metrics.post/{name}"] for name in METRICS]
    assert {(panel["config"].get("groupBy"), panel["config"]["groupAgg"]) for panel in bars} == {(None, "mean")}
    assert grids[0]["panelBankSectionConfig"]["localPanelSettings"]["useRunsTableGroupingInPanels"] is True
    assert [(key["section"], key["name"]) for key in runs["grouping"]] == [
        ("config", "names.value.model"),
        ("config", "names.value.dataset"),
        ("config", "names.value.editor"),
    ]


def test_metrics_by_layer(grids: list[dict[str, Any]]) -> None:
    curves, (runs,) = panels(grids[1]), grids[1]["runSets"]
    assert [panel["config"]["xAxis"] for panel in curves] == ["config:layer.value"] * 3
    assert [panel["config"]["yAxis"] for panel in curves] == [f"summary:post/{name}" for name in METRICS]
    assert runs["grouping"] == [], "one point a run"


def test_the_table_of_runs(grids: list[dict[str, Any]]) -> None:
    (runs,) = grids[2]["runSets"]
    shown = runs["runFeed"]["columnOrder"]
    assert shown[:4] == ["run:displayName", *(f"config:names.value.{name}" for name in ("model", "dataset", "editor"))]
    assert shown[-3:] == [f"summary:post/{name}" for name in METRICS]
    assert "filter" in json.dumps(runs["filters"])
    conditions = {(one["key"]["name"], one["value"]) for one in runs["filters"]["filters"]}
    assert conditions == {("jobType", "edit"), ("state", "finished")}


def test_panels_do_not_overlap(grids: list[dict[str, Any]]) -> None:
    corners = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in panels(grids[0])]
    assert len(set(corners)) == len(corners)
    assert all(panel["layout"]["x"] + panel["layout"]["w"] <= 24 for panel in panels(grids[0]))


def test_the_same_report_is_the_same_text() -> None:
    one, same = (build(entity=None, project="romexp", title="t", metrics=METRICS) for _ in range(2))
    assert one == same
    assert one != build(entity=None, project="romexp", title="t", metrics=METRICS[:2])


def test_without_a_key_the_spec_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_report, "has_wandb_key", lambda: False)
    where = publish(entity="us", project="romexp", title="t", metrics=("ES",), folder=tmp_path / "report")
    assert where == str(tmp_path / "report" / "wandb_report.json")
    assert json.loads(Path(where).read_text())["project"] == {"name": "romexp", "entityName": "us"}
    (message,) = [record.getMessage() for record in caplog.records]
    assert "wandb login" in message
    assert where in message


def test_where_wandb_is_to_stay_offline_the_spec_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb_workspaces.reports.v2 as wr

    saved: list[Any] = []
    monkeypatch.setattr(wandb_report, "has_wandb_key", lambda: True)
    monkeypatch.setattr(wr.Report, "save", lambda self: saved.append(self))
    where = publish(entity="us", project="romexp", title="t", metrics=("ES",), folder=tmp_path, online=False)
    assert (where, saved) == (str(tmp_path / "wandb_report.json"), [])
    assert "W&B is not online (WANDB_MODE" in caplog.text


def test_with_a_key_it_is_saved_under_the_keys_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    import wandb_workspaces.reports.v2 as wr

    saved: list[Any] = []

    class Api:
        default_entity = "someone"

    monkeypatch.setattr(wandb_report, "has_wandb_key", lambda: True)
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(wr.Report, "save", lambda self: saved.append(self))
    monkeypatch.setattr(wr.Report, "url", property(lambda self: f"page of {self.entity}/{self.project}"))
    where = publish(entity=None, project="romexp", title="t", metrics=(), folder=tmp_path)
    assert where == "page of someone/romexp"
    assert len(saved) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    import wandb_workspaces.reports.v2 as wr

    def refuse(self: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb_report, "has_wandb_key", lambda: True)
    monkeypatch.setattr(wr.Report, "save", refuse)
    with pytest.raises(ConfigError, match="us/romexp: permission denied"):
        publish(entity="us", project="romexp", title="t", metrics=(), folder=tmp_path)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ConfigError, match=r"pip install 'romexp\[reports\]'"):
        build(entity=None, project="romexp", title="t")


def test_a_title_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 to 128 characters, not 129"):
        build(entity=None, project="romexp", title="x" * 129)


def test_it_says_which_cases_differ_only_where_they_do() -> None:
    note = "minifact, minifact: compared on the 10 cases that these editors share; left out: 10 more of ROME"
    said = json.dumps(build(entity=None, project="romexp", title="t", metrics=METRICS, notes=[note]))
    assert note in said
    assert "Each run is shown over all of its cases" in said
    assert "over all of its cases" not in json.dumps(build(entity=None, project="romexp", title="t", metrics=METRICS))
