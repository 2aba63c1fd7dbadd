"""Finds saved edits: single files, and results folders with what is known about their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from romexp.errors import ConfigError, DataError
from romexp.lm.saved_edit import ModelOrigin, SavedEdit
from romexp.results.folder import RunFolder
from romexp.results.rows import CaseResult


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundEdit:
    """A saved edit, with what its run measured.

    Attributes:
        saved: the edit.
        file: its file; None if it was never saved.
        result: the measurements of its case, with this edit alone; None if there are none.
    """

    saved: SavedEdit
    file: Path | None = None
    result: CaseResult | None = None

    @property
    def label(self) -> str:
        """Names the edit in messages."""
        return str(self.file) if self.file else f"the edit of {self.saved.request.text!r}"


def gather_edits(paths: Sequence[Path]) -> list[FoundEdit]:
    """Read saved edits.

    Args:
        paths: files of edits; results folders, which stand for all their saved edits; or folders of such files.

    Returns:
        the edits in order of `paths`, those of a folder in order of their cases. A file named twice is taken once.

    Raises:
        DataError: a file or folder is missing, or holds no edits; or two edits are about the same prompt.
        ConfigError: the edits are of different models.
    """
    files = dict.fromkeys(file.resolve() for path in paths for file in _files(path.expanduser()))
    runs: dict[Path, _RunFacts] = {}
    found = []
    for file in files:
        folder = file.parent.parent if file.parent.name == "deltas" else file.parent
        if folder not in runs:
            runs[folder] = _RunFacts.read(folder)
        found.append(runs[folder].complete(FoundEdit(saved=SavedEdit.load(file), file=file)))
    _refuse_repeated(found)
    return found


def common_origin(edits: Sequence[FoundEdit]) -> ModelOrigin:
    """The model that the edits are for. It is empty if none of them says it.

    Raises:
        ConfigError: the edits are of different models.
    """
    first: FoundEdit | None = None
    for edit in edits:
        if not edit.saved.model.digest:
            continue
        if first is None:
            first = edit
        elif edit.saved.model.digest != first.saved.model.digest:
            one, other = first.saved.model, edit.saved.model
            raise ConfigError(f"edits of two models: {first.label} is for {one}, {edit.label} for {other}")
    return first.saved.model if first else ModelOrigin()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"no saved edit and no folder {path}")
    inner = path / "deltas"
    found = list((inner if inner.is_dir() else path).glob("*.safetensors"))
    if not found:
        raise DataError(f"{path}: no saved edits there (task=edit saves them with save_deltas=true)")
    return sorted(found, key=lambda file: (not file.stem.isdigit(), file.stem.zfill(20)))


def _refuse_repeated(edits: Sequence[FoundEdit]) -> None:
    """Two edits of one fact would be added to each other, and the model would be edited twice as far as either says."""
    seen: dict[str, FoundEdit] = {}
    for edit in edits:
        other = seen.setdefault(edit.saved.request.text, edit)
        if other is not edit:
            raise DataError(
                f"two edits of {edit.saved.request.text!r}: {other.label} and {edit.label}; name one of them"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _RunFacts:
    """What a results folder says about its saved edits.

    Attributes:
        method: the editor's label.
        settings: the editor's hyper-parameters.
        model: the edited model.
        results: measurements by case id.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: ModelOrigin = field(default_factory=ModelOrigin)
    results: Mapping[int, CaseResult] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _RunFacts:
        """Read the folder of a run. For another folder all is empty.

        Raises:
            DataError: a file of the run is damaged.
        """
        folder = RunFolder(path)
        manifest = folder.read("manifest")
        if not manifest:
            return cls()
        said, config = manifest.get("model") or {}, _configured_model(path / "config.yaml")
        editor = (manifest.get("identity") or {}).get("editor")
        rows = [CaseResult.from_json(row) for row in folder.rows()]
        return cls(
            method=str(manifest.get("editor_label") or ""),
            settings=editor if isinstance(editor, Mapping) else {},
            model=ModelOrigin(
                name=str(said.get("name") or ""),
                digest=str(said.get("digest") or ""),
                source=config.get("path", ""),
                revision=config.get("revision", ""),
                dtype=str(said.get("dtype") or "").removeprefix("torch."),
            ),
            results={row.case_id: row for row in rows},
        )

    def complete(self, edit: FoundEdit) -> FoundEdit:
        """The edit with what its own file does not say."""
        saved = edit.saved
        saved = replace(
            saved,
            method=saved.method or self.method,
            settings=saved.settings or self.settings,
            model=saved.model if saved.model.digest else self.model,
        )
        result = self.results.get(saved.case_id) if saved.case_id is not None else None
        return replace(edit, saved=saved, result=result)


def _configured_model(file: Path) -> dict[str, str]:
    """The texts of the model's settings in a stored configuration. What is no text, such as the shipped model's path,
    which a function gives, is left out."""
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    except (OSError, YAMLError, ValueError) as error:
        raise DataError(f"{file}: not a stored configuration ({str(error).splitlines()[0]})") from error
    model = config.get("model") if isinstance(config, dict) else None
    return {key: value for key, value in (model or {}).items() if isinstance(value, str)}
