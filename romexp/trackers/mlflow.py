"""MLflow, in a local database or on a server (`tracker=mlflow`): `mlflow ui`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from romexp.trackers.guard import Guarded, all_tags, begins, flat, heading, library, numbers_in, texts_in
from romexp.tracking import TrackedRun

AT_ONCE, LONGEST, METRICS_AT_ONCE = 100, 500, 1000
"""What MLflow's stores take: parameters in one call, characters of a parameter, and values in one call."""


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """Reports each job as one run of an MLflow experiment.

    Attributes:
        uri: address of the server or the database; None takes MLflow's own, which is $MLFLOW_TRACKING_URI or
            `mlflow.db` in the folder of the command.
        experiment: the MLflow experiment; None takes $MLFLOW_EXPERIMENT_NAME, else `romexp`.
        tags: labels, each a tag with the value `true`.
    """

    uri: str | None = None
    experiment: str | None = None
    tags: tuple[str, ...] = ()
    label: ClassVar[str] = "MLflow run"

    @contextmanager
    def run(
        self, *, folder: Path, name: str, group: str, job_type: str, config: Mapping[str, Any]
    ) -> Iterator[TrackedRun]:
        mlflow = library("mlflow", extra="mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # It tells of each table of its database.
        tags = {"group": heading(group, config), "job_type": job_type, "folder": str(folder)}
        tags |= dict.fromkeys(all_tags(self.tags, config), "true")
        with begins("mlflow"):
            run = _MlflowRun.begin(mlflow, self.uri or mlflow.get_tracking_uri(), self._experiment(), name, tags)
            run.parameters(flat(config))
        guarded, status = Guarded(run, "mlflow"), "FAILED"
        try:
            yield guarded
            status = "FINISHED"
        finally:
            guarded.call(lambda: run.client.set_terminated(run.run_id, status))

    def _experiment(self) -> str:
        return self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "romexp"


@dataclass
class _MlflowRun:
    mlflow: Any
    client: Any
    location: str
    run_id: str
    takes_images: ClassVar[bool] = True
    _step: int = field(default=0, init=False)

    @classmethod
    def begin(cls, mlflow: Any, uri: str, experiment: str, name: str, tags: Mapping[str, str]) -> _MlflowRun:
        client = mlflow.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        run_id = client.create_run(number, run_name=name, tags=dict(tags)).info.run_id
        is_server = uri.startswith(("http://", "https://"))
        at = f"{uri}/#/experiments/{number}/runs/{run_id}" if is_server else f"{uri}, run {run_id}"
        return cls(mlflow=mlflow, client=client, location=at, run_id=run_id)

    def parameters(self, values: Mapping[str, str]) -> None:
        """Set the run's parameters."""
        all_of_them = [self.mlflow.entities.Param(name, text[:LONGEST]) for name, text in values.items()]
        for start in range(0, len(all_of_them), AT_ONCE):
            self.client.log_batch(self.run_id, params=all_of_them[start : start + AT_ONCE])

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        self._step = self._step + 1 if step is None else step
        self._metrics([(name, value, self._step) for name, value in values.items()])

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        self._metrics(
            [(f"{chart}/{name}", value, step) for name, line in lines.items() for step, value in enumerate(line)]
        )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        data = {column: list(cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)}
        self.client.log_table(self.run_id, data=data, artifact_file=f"{name}.json")

    def summary(self, values: Mapping[str, Any]) -> None:
        self._metrics([(name, value, self._step) for name, value in numbers_in(values).items()])
        for name, text in texts_in(values).items():
            self.client.set_tag(self.run_id, name, text)

    def images(self, paths: Mapping[str, Path]) -> None:
        for path in paths.values():
            self.client.log_artifact(self.run_id, str(path), artifact_path="figures")

    def _metrics(self, points: Sequence[tuple[str, float, int]]) -> None:
        """Add points: name, value and step."""
        now, metric = int(time.time() * 1000), self.mlflow.entities.Metric
        found = [metric(name, float(value), now, step) for name, value, step in points]
        for start in range(0, len(found), METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=found[start : start + METRICS_AT_ONCE])
