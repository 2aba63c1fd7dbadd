"""`task=train_minifact`: generates the shipped minifact world, data, model and second moments from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.data.corpora import TextCorpus
from romexp.errors import DataError
from romexp.lm.model import PretrainedModel
from romexp.minifact import assets
from romexp.minifact.train import TrainMinifact
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.terminal import literal
from romexp.results.folder import RunFolder
from romexp.results.identity import fingerprint
from romexp.stats.covariance import Covariance, ship
from romexp.tasks.run import open_run


@dataclass(frozen=True, kw_only=True)
class TrainMinifactExperiment:
    """Write everything that `romexp/minifact/assets` holds into `<result folder>/assets`.

    Attributes:
        trainer: world, corpus, model and optimizer.
        covariance: how the shipped second moments are computed; its corpus is replaced by the generated one.
        log_every: number of steps between two points of the loss curve.
    """

    trainer: TrainMinifact
    covariance: Covariance
    log_every: int = 20

    def __post_init__(self) -> None:
        check_bounds(self, "task", from_1=("log_every",))

    def __call__(self, job: Job) -> Outcome:
        """Generate all files. The summary holds the recall of the world's facts by kind of prompt."""
        identity = {"task": "train_minifact", "trainer": fingerprint(self.trainer)}
        with open_run(
            job, names={"task": "train_minifact"}, identity=identity, facts={"seed": job.seed}, lacking=_lacking
        ) as run:
            out = run.folder.path / "assets"
            if not run.was_done:
                with run.session(name=run.manifest["hash"], group="minifact", job_type="train_minifact") as tracked:
                    with bars(job.sweep) as bar:
                        report = bar("steps")

                        def on_step(step: int, loss: float, model: Any) -> None:
                            report(step, self.trainer.training.steps)
                            if step % self.log_every == 0:
                                tracked.log({"loss": loss}, step=step)

                        recall = asdict(self.trainer(out, on_step))
                    lm = PretrainedModel(path=str(out / assets.MODEL), name="minifact").load()
                    corpus = TextCorpus(path=out / assets.CORPUS, unit="line")
                    ship(replace(self.covariance, corpus=corpus), lm, out / assets.SECOND_MOMENTS)
                    run.folder.write("summary", recall)
                    tracked.summary(recall)
            summary = run.folder.read("summary") or {}
            table = FittingTable("prompts", "recall", title="minifact")
            for kind, value in summary.items():
                table.add_row(literal(kind), literal(json.dumps(value)))
            use = f"to ship it: copy {out} over romexp/minifact/assets"
            return Outcome(tables=(table,), lines=(f"results: {run.folder.path}", use))


def _lacking(folder: RunFolder, manifest: Mapping[str, Any]) -> str:
    """What the folder of a finished run lacks; empty if nothing."""
    out = folder.path / "assets"
    files = [out / assets.MODEL / "model.safetensors", out / assets.CORPUS, out / assets.SECOND_MOMENTS]
    lost = [file.name for file in files if not file.is_file() or not file.stat().st_size]
    try:
        return ", ".join(lost) or ("" if folder.read("summary") else "its summary")
    except DataError as error:
        return f"a readable summary ({error})"
