"""Does the steps of `task=lifelong`: edits, saves the state, measures, watches (docs/method.md §13.3)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from romexp.edit_batch import EditBatch
from romexp.editors.sequence import SequenceState, edit_together, measured_delta
from romexp.errors import DataError, RecordError
from romexp.lm.weight_delta import WeightDelta
from romexp.results.progress import Progress
from romexp.results.rows import Row
from romexp.tasks.lifelong_plan import Batch, Step
from romexp.tasks.lifelong_watch import WatchOfRun
from romexp.tasks.run import Run

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class StepsOfRun:
    """The steps of one run: it edits, saves the state, measures, and appends rows.

    Attributes:
        run: the open run.
        runner: edits and measures.
        save_deltas: write the sum of edits after each step to `deltas/<number of edits>.safetensors`.
        watch: looks for signs of collapse before the first step and at each checkpoint; None does not.
    """

    run: Run
    runner: EditBatch
    save_deltas: bool
    watch: WatchOfRun | None = None

    def __post_init__(self) -> None:
        self._unit = 0
        self._state: SequenceState = SequenceState()
        self._said: dict[str, Any] = {"edits": 0}
        if self._file.is_file():
            self._state, self._said = SequenceState.load(self._file)
        self.run.manifest["set_aside"] = self.progress.set_aside

    @cached_property
    def progress(self) -> Progress:
        return Progress.of(self.run.folder)

    @property
    def _file(self) -> Path:
        return self.run.folder.path / "state.safetensors"

    def begin(self) -> None:
        """Watch the original model, unless that is done."""
        if self.watch is not None:
            self._unit = 1
            if not self.progress.done:
                self.watch.look(0, WeightDelta())
                self.progress.add([])

    def do(self, step: Step) -> list[Row]:
        """Do what is not done yet of a step. Returns its rows, also those that a killed process had made of it; none if
        it was done before.
        """
        first, watched = self._unit, self.watch is not None and step.is_checkpoint
        self._unit += 1 + len(step.batches) + watched
        if self.progress.done >= self._unit:
            return []
        whole = self.progress.done == first
        self._edit(step)
        if whole:
            self.progress.add([], self._aside(step))
        delta = measured_delta(self.runner.editor, self.runner.lm, self._state)
        if self.save_deltas:
            delta.save(self.run.folder.delta(step.edited_at), metadata={"edits": step.edited_at})
        rows: list[Row] = []
        for batch in step.batches[self.progress.done - first - 1 :]:
            rows += self._measure(batch, step, delta)
        if self.watch is not None and watched:
            self.watch.look(step.edited_at, delta)
            self.progress.add([])
        return rows if whole else [row for row in self.run.folder.rows() if row["measured_at"] == step.edited_at]

    def _edit(self, step: Step) -> None:
        """Edit the cases of a step, unless the saved state holds them already.

        Raises:
            DataError: the saved state is that of another step.
        """
        if self._said["edits"] == step.edited_at:
            return
        if self._said["edits"] != step.edited_at - len(step.cases):
            raise DataError(f"{self._file}: holds {self._said['edits']} edits, which do not fit progress.json")
        start = time.perf_counter()
        made = edit_together(
            self.runner.editor,
            self.runner.lm,
            [case.request for case in step.cases],
            resources=self.runner.resources,
            state=self._state,
        )
        seconds = time.perf_counter() - start
        self.run.add_seconds(edit=seconds)
        outcomes = [
            {"error": {"field": each.field, "reason": each.reason}} if isinstance(each, RecordError) else dict(each)
            for each in made.outcomes
        ]
        self._state = made.state.as_saved()
        self._said = {"edits": step.edited_at, "outcomes": outcomes, "seconds": seconds / len(step.cases)}
        self._state.save(self._file, metadata=self._said)

    def _aside(self, step: Step) -> list[dict[str, Any]]:
        """The cases of the step that could not be edited, with the reasons."""
        outcomes = zip(step.cases, self._said["outcomes"], strict=True)
        aside = [{"case_id": case.case_id, **said["error"]} for case, said in outcomes if "error" in said]
        for each in aside:
            log.warning("case %d set aside: %s: %s", each["case_id"], each["field"], each["reason"])
        return aside

    def _measure(self, batch: Batch, step: Step, delta: WeightDelta) -> list[Row]:
        """Measure a batch of cases on the edited model, and append their rows."""
        left_out = {each["case_id"] for each in self.progress.set_aside}
        chosen = [(case, at) for case, at in batch if case.case_id not in left_out]
        own = {case.case_id: said for case, said in zip(step.cases, self._said["outcomes"], strict=True)}
        if not chosen:
            self.progress.add([])
            return []
        start = time.perf_counter()
        found = self.runner.measured_together(
            [case for case, _ in chosen],
            delta,
            diagnostics=[own.get(case.case_id, {}) for case, _ in chosen],
            seconds=self._said["seconds"],
        )
        self.run.add_seconds(evaluate=time.perf_counter() - start)
        rows, aside = [], []
        for (case, edited_at), result in zip(chosen, found, strict=True):
            if isinstance(result, RecordError):
                aside.append({"case_id": case.case_id, "field": result.field, "reason": result.reason})
            else:
                times = {"edited_at": edited_at, "measured_at": step.edited_at}
                rows.append({"case_id": case.case_id, **times, **result.to_json()})
        self.progress.add(rows, aside)
        return rows
