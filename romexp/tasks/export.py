"""`task=export`: writes saved edits as a PEFT adapter or as a whole Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from rich.table import Table
from rich.text import Text

from romexp.cli.job import Job, Outcome
from romexp.compose import compose_config, options
from romexp.errors import ConfigError
from romexp.export.export import Format, export_edits
from romexp.export.exported import ExportedFolder
from romexp.export.gather import common_origin, gather_edits
from romexp.export.hub import check_can_push, push
from romexp.lm.model import PretrainedModel
from romexp.lm.saved_edit import ModelOrigin
from romexp.results.identity import digest
from romexp.tasks.run import slug

SHOWN = 20
"""The largest number of edits that are listed on the screen. The model card lists them all."""


@dataclass(frozen=True, kw_only=True)
class ExportEdits:
    """Export the sum of saved edits.

    Attributes:
        model: the unedited model; used if the command line names it, or if the edits do not.
        edits: files of saved edits, and results folders, which stand for all their saved edits.
        format: `peft`, a LoRA adapter, or `hf`, a whole model.
        push_to_hub: repository on the Hugging Face hub to which the export is sent; None sends nothing.
    """

    model: PretrainedModel
    edits: str | tuple[str, ...] | None = None
    format: Format = "peft"
    push_to_hub: str | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"task.format: expected {' or '.join(get_args(Format))}, not {self.format!r}")

    def __call__(self, job: Job) -> Outcome:
        """Write the export, or show the one that is there already.

        Raises:
            RomexpError: the edits or the model cannot be used, or the export does not give the edit's numbers.
        """
        paths = [self.edits] if isinstance(self.edits, str) else list(self.edits or ())
        if not paths:
            raise ConfigError("task.edits must be given: files of saved edits, or results folders of save_deltas=true")
        if self.push_to_hub is not None:
            check_can_push(self.push_to_hub)
        found = gather_edits([Path(path) for path in paths])
        settings = self._model(job, common_origin(found))
        lm = job.load(settings)
        folder = job.output_dir
        if folder is None:
            name = digest([lm.digest, sorted(str(edit.file) for edit in found)])
            folder = job.outputs / "export" / slug(lm.name) / self.format / name
        exported = export_edits(
            lm, found, folder, format=self.format, source=str(settings.path), revision=settings.revision
        )
        lines = [
            *_mean_line(exported),
            _check_line(exported),
            f"model card: {folder / 'README.md'}",
            f"export: {folder}",
        ]
        if self.push_to_hub is not None:
            lines.append(f"sent to: {push(folder, self.push_to_hub)}")
        return Outcome(tables=(_table(exported),), lines=lines)

    def _model(self, job: Job, origin: ModelOrigin) -> PretrainedModel:
        """How to load the unedited model: as the command line says, else as the edits say."""
        if _names_model(job.overrides) or not origin.source:
            return self.model
        if origin.source in options("model"):
            from hydra.utils import instantiate

            base: PretrainedModel = instantiate(compose_config([f"model={origin.source}"]).model)
        else:
            base = PretrainedModel(path=origin.source, name=origin.name, revision=origin.revision or None)
        own = self.model
        return replace(
            base,
            dtype=own.dtype if "model.dtype" in _keys(job.overrides) else origin.dtype or base.dtype,
            matmul_precision=own.matmul_precision,
            device=own.device,
            device_map=own.device_map,
            attn_implementation=own.attn_implementation,
            architecture=base.architecture or own.architecture,
        )


def _names_model(overrides: Sequence[str]) -> bool:
    """Whether the command line, or a file that it names, says which model is meant."""
    return bool(_keys(overrides) & {"model", "model.path", "-cn", "experiment"})


def _keys(overrides: Sequence[str]) -> set[str]:
    return {override.lstrip("+").partition("=")[0] for override in overrides}


def _table(exported: ExportedFolder) -> Table:
    edits = exported.said["edits"]
    more = f", the first {SHOWN}" if len(edits) > SHOWN else ""
    title = f"P of the new answer, {len(edits):,} {'edit' if len(edits) == 1 else 'edits'}{more}"
    table = Table(title=title)
    table.add_column("Prompt", ratio=1)
    table.add_column("New answer")
    for column in ("before", "alone", "together"):
        table.add_column(column, justify="right")
    for edit in edits[:SHOWN]:
        request, p = edit["request"], edit["probability"]
        prompt = request["prompt"].replace("{}", request["subject"], 1)
        numbers = [f"{p[side]:.3f}" for side in ("before", "alone", "together")]
        table.add_row(Text(prompt), Text(request["target_new"]), *numbers)
    return table


def _mean_line(exported: ExportedFolder) -> list[str]:
    edits = exported.said["edits"]
    if len(edits) == 1:
        return []
    alone, together = (sum(edit["probability"][side] for edit in edits) / len(edits) for side in ("alone", "together"))
    return [f"mean P of the new answers: {alone:.3f} with each edit alone, {together:.3f} with all together"]


def _check_line(exported: ExportedFolder) -> str:
    check = exported.said["check"]
    line = (
        f"loaded from disk in a fresh process: the NLLs differ by at most {check['largest_difference']:.1g} "
        f"(allowed in {check['dtype']}: {check['tolerance']:g})"
    )
    if check["rounding"] > 1e-3:
        line += f"; rounding to {check['dtype']} takes away {100 * check['rounding']:.1f} % of the edit"
    return line
