"""Opens the folder of a run: its name and lock, its earlier results, its status and manifest (docs/method.md §11)."""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from romexp.cli.finished_runs import WAS_FINISHED
from romexp.cli.job import Job
from romexp.cli.progress import Report
from romexp.data.dataset import Loaded
from romexp.errors import RecordError, without_errors
from romexp.files import write_text
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.os_errors import describe as describe_os_error
from romexp.redact import command_without_secrets
from romexp.results.environment import describe, now
from romexp.results.folder import RunFolder, Status
from romexp.results.identity import Identity, digest, refuse_other
from romexp.results.rows import Row
from romexp.tasks.kept_results import RowFault, read_manifest
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)

Item = TypeVar("Item")

RECORDED = ("command", "commit", "folder_commit", "host")
"""Parts of a session's record that the tracker gets too, beside the configuration."""


@dataclass(kw_only=True)
class Run:
    """An open run; this process is the only one that writes into its folder.

    Attributes:
        job: settings that all tasks share.
        folder: its files.
        manifest: content of `manifest.json`; tasks add to it, `session` writes it.
        was_done: whether an earlier process has finished this run, and its results are still there.
    """

    job: Job
    folder: RunFolder
    manifest: dict[str, Any]
    was_done: bool
    _timings: dict[str, float] = field(default_factory=dict)

    def add_seconds(self, **seconds: float) -> None:
        """Add seconds to this session's `timings`; keywords name what the time was spent on."""
        for what, more in seconds.items():
            self._timings[what] = self._timings.get(what, 0.0) + more

    def run_batches(
        self,
        items: Mapping[int, Item],
        work: Callable[[Sequence[Item]], Sequence[Row | RecordError]],
        *,
        batch_size: int,
        report: Report,
        kind: str,
        fault: RowFault,
        quiet: bool = False,
        live: Callable[[Sequence[Row]], None] | None = None,
    ) -> None:
        """Append a row for every item that has none yet, batch by batch; list items with errors in `set_aside`.

        A row with a fault counts as none: its item gets another, which replaces it.

        Args:
            items: items by case id.
            work: returns, for each item of a batch, its row or the error because of which it gets none.
            report: is called with the numbers of finished and of all pending items.
            kind: name of an item in messages.
            fault: why a row does not count; empty if it does.
            quiet: log no warning for items with errors.
            live: is called with the rows of each batch when they are on disk.
        """
        rows = self.folder.rows()
        finished = {row["case_id"] for row in rows if not (reason := fault(row)) or _warn(kind, row, reason)}
        pending = [(case_id, item) for case_id, item in items.items() if case_id not in finished]
        if finished:
            log.info("%d of %d %ss were finished before; continuing after them", len(finished), len(items), kind)
        aside: list[Mapping[str, Any]] = []
        self.manifest["set_aside"] = aside
        for start in range(0, len(pending), batch_size):
            report(start, len(pending))
            batch, began = pending[start : start + batch_size], time.perf_counter()
            outcomes = work([item for _, item in batch])
            self.folder.append(made := without_errors(outcomes))
            if live is not None:
                live(made)
            numbers = (f"{kind}s", start + 1, start + len(batch), len(pending), time.perf_counter() - began)
            log.debug("%s %d to %d of %d in %.1f s", *numbers)
            for (case_id, _), error in zip(batch, outcomes, strict=True):
                if isinstance(error, RecordError):
                    aside.append({"case_id": case_id, "field": error.field, "reason": error.reason})
                    if not quiet:
                        log.warning("%s %d set aside: %s: %s", kind, case_id, error.field, error.reason)

    @contextmanager
    def session(self, *, name: str, group: str, job_type: str) -> Iterator[TrackedRun]:
        """Set the status to `running` and open a run of the tracker; at the end set the status to `done` or `failed`.

        Only inside this context may results be changed.

        Args:
            name: name of the tracker's run.
            group: group of the tracker's run.
            job_type: kind of the tracker's run.
        """
        session: dict[str, Any] = {"started": now(), "command": self._command(), **describe()}
        self.manifest.setdefault("sessions", []).append(session)
        self.manifest.pop("error", None)
        self.folder.write("manifest", self.manifest)
        self.folder.set_status("running")
        start = time.perf_counter()
        try:
            config = self._tracked_config() | {each: session[each] for each in RECORDED}
            tracker = self.job.tracker.run(
                folder=self.folder.path, name=name, group=group, job_type=job_type, config=config
            )
            with tracker as tracked:
                session |= {"tracked_at": tracked.location, "tracked_by": self.job.tracker.label}
                yield tracked
        except BaseException as error:
            self.manifest["error"] = _text(error)
            with suppress(OSError):  # On a full disk this fails too, and the first error is the one to show.
                self._close(session, "failed", time.perf_counter() - start)
            raise
        self._close(session, "done", time.perf_counter() - start)

    def _command(self) -> str:
        """The command as it was typed, or what does the same; quoted for a POSIX shell, without passwords."""
        return shlex.join(["romexp", *command_without_secrets(self.job.typed or self.job.overrides)])

    def _tracked_config(self) -> dict[str, Any]:
        """The configuration, with `names`, `hash` and `layer`, by which dashboards compare runs.

        They are at the top level because a W&B sweep over a config group (`editor=rome,ft`) stores its choice under the
        group's name, in place of the group's values.
        """
        names = self.manifest["names"]
        config = {**self.job.config, "names": names, "hash": self.manifest["hash"]}
        layer = self.job.config.get("editor", {}).get("layer") if "editor" in names else None
        return config if layer is None else config | {"layer": layer}

    def _close(self, session: dict[str, Any], status: Status, total: float) -> None:
        timings = {what: round(seconds, 3) for what, seconds in {**self._timings, "total": total}.items()}
        log.debug("%s after %.1f s", status, total)
        session |= {"finished": now(), "timings": timings}
        self.folder.write("manifest", self.manifest)
        self.folder.set_status(status)

    def tracked(self) -> list[str]:
        """Where the last session's tracker stores its run, behind what it calls a run; a line for each of several."""
        session = (self.manifest.get("sessions") or [{}])[-1]
        label = session.get("tracked_by", "W&B run")
        return [f"{label}: {place}" for place in str(session.get("tracked_at", "")).splitlines()]

    def closing_lines(self) -> list[str]:
        """Lines that the command prints at the end: paths of the results, and the number of records set aside."""
        lines = [f"results: {self.folder.path}"]
        if (self.folder.path / "figures").is_dir():
            lines.append(f"figures: {self.folder.path / 'figures'}")
        lines += self.tracked()
        aside = len(self.manifest.get("set_aside", ())) + len(self.manifest.get("rejected", ()))
        if aside:
            lines.append(f"set aside: {aside} records, named in {self.folder.path / 'manifest.json'}")
        return lines


@contextmanager
def open_run(
    job: Job,
    *,
    names: Mapping[str, str],
    identity: Identity,
    facts: Mapping[str, Any],
    lacking: Callable[[RunFolder, Mapping[str, Any]], str] = lambda folder, manifest: "",
) -> Iterator[Run]:
    """Lock the run's folder, remove an incomplete last row, and store the configuration beside the results.

    Args:
        names: parts of the folder's path in order (task, model, …), used where `output_dir` is not set.
        identity: everything that affects the result.
        facts: further entries of the manifest (digests, device, records set aside).
        lacking: called with the folder of a finished run and its manifest. It returns in words what its results lack;
            then the run goes on as if it had not been finished. Empty if they are complete.

    A job of a sweep waits for another process that is writing into the folder, and then takes its results.

    Raises:
        ConfigError: another process is writing into the folder, or it holds results of another configuration.
        DataError: the folder's manifest is damaged.
    """
    folder = RunFolder(folder_path(job, names, identity))
    with folder.locked(wait=job.sweep is not None):
        before = read_manifest(folder)
        refuse_other(folder.path, before["identity"] if before and "identity" in before else None, identity)
        manifest: dict[str, Any] = {"identity": identity, "hash": digest(identity), "names": dict(names)}
        manifest |= {"overrides": list(job.overrides), **facts}
        if before:
            manifest["sessions"] = before.get("sessions", [])
            manifest |= {key: before[key] for key in before if key not in manifest}
        was_done = before is not None and folder.status == "done"
        if was_done and (lost := lacking(folder, manifest)):
            log.warning("this run was finished before, but %s lacks %s: it is done again", folder.path, lost)
            was_done = False
        if was_done:
            log.info(WAS_FINISHED)
        else:
            job.log.write_to(folder.path)
            log.debug("romexp %s", " ".join(job.overrides))
            folder.prepare_to_append()
            write_text(folder.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(job.config))))
        yield Run(job=job, folder=folder, manifest=manifest, was_done=was_done)


def _text(error: BaseException) -> str:
    return describe_os_error(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _warn(kind: str, row: Row, reason: str) -> bool:
    log.warning("the row of %s %d is damaged (%s): it is made again", kind, row["case_id"], reason)
    return False


def describe_inputs(job: Job, lm: LanguageModel, loaded: Loaded[Any]) -> dict[str, Any]:
    """Entries of the manifest that describe the model, the data set and the seed of a run."""
    return {
        "model": describe_model(lm),
        "dataset": {"name": loaded.name, "path": loaded.path, "sha256": loaded.sha256, "cases": len(loaded.items)},
        "rejected": [asdict(record) for record in loaded.rejected],
        "seed": job.seed,
    }


def model_identity(lm: LanguageModel, settings: PretrainedModel) -> dict[str, Any]:
    """What of the model affects the results. `matmul_precision` is there only where it is not `highest`."""
    chosen = {} if lm.matmul_precision == "highest" else {"matmul_precision": lm.matmul_precision}
    return {"digest": lm.digest, "dtype": settings.dtype} | chosen


def title_of(described: Mapping[str, Any]) -> str:
    """The model's name for titles of tables, from its entry in the manifest; with what is not as in the paper.

    >>> title_of({"name": "gpt2", "dtype": "torch.bfloat16", "matmul_precision": "highest"})
    'gpt2 in bfloat16'
    """
    dtype = str(described.get("dtype", "")).removeprefix("torch.")
    precision = described.get("matmul_precision", "highest")
    unusual = [*([dtype] if dtype not in ("", "float32") else [])]
    unusual += [f"{precision} precision"] if precision != "highest" else []
    return f"{described['name']}{' in ' if unusual else ''}{' and '.join(unusual)}"


def describe_model(lm: LanguageModel) -> dict[str, Any]:
    """The entry of the manifest that describes a model. `converted_from` is there only for a GGUF file."""
    described: dict[str, Any] = {"name": lm.name, "digest": lm.digest, "dtype": str(lm.dtype), "device": str(lm.device)}
    described |= {"matmul_precision": lm.matmul_precision}
    if lm.matmul_precision != "highest":
        described |= {"matmul_precision_has_effect": lm.precision_has_effect}
    return described | ({"converted_from": dict(lm.provenance)} if lm.provenance else {})


def folder_path(job: Job, names: Mapping[str, str], identity: Identity) -> Path:
    """`output_dir`, or `<outputs>/<names…>/<hash>`."""
    if job.output_dir is not None:
        return job.output_dir
    return job.outputs.joinpath(*(slug(name) for name in names.values()), digest(identity))


def slug(name: str) -> str:
    """The name, changed so that it is valid as a folder name on any system.

    >>> slug("EleutherAI/gpt-j-6b")
    'EleutherAI_gpt-j-6b'
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or "_"
