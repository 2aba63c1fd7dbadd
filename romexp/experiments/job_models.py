"""One loaded model, kept from job to job of a process: a sweep over layers or editors reads its weights once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command makes one before it knows whether torch is needed
    from romexp.lm.model import LanguageModel, PretrainedModel

Key = tuple[Any, ...]
Stamp = tuple[int, int]
"""Size in bytes and time of change in ns: a file of the same stamp is taken to be the same."""


class LoadedModels:
    """Holds at most one model. Two requests are for the same one if every field of `PretrainedModel` is equal and the
    files of a local folder have not changed.

    Jobs leave a model's weights as they were (`romexp.lm.deltas.applied`), so the next job may have it.
    """

    def __init__(self) -> None:
        self._held: tuple[Key, LanguageModel] | None = None

    def load(self, model: PretrainedModel) -> LanguageModel:
        """The model that is held, if it is this one; else load it, after letting go of the other.

        Raises:
            ConfigError: as `PretrainedModel.load`.
        """
        key = (model, _files(model.path))
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self.forget()
        lm = model.load()
        self._held = (key, lm)
        return lm

    def forget(self) -> None:
        """Let go of the model: another is needed, or a job failed and may have left it changed."""
        self._held = None

    def __reduce__(self) -> tuple[type[LoadedModels], tuple[()]]:
        """Weights do not travel to worker processes: they begin with nothing held."""
        return (LoadedModels, ())


def stamp(file: Path) -> Stamp:
    """Of a file that is there."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _files(path: str | Path) -> tuple[tuple[str, Stamp], ...]:
    """Name and stamp of each file of a local folder; nothing for a hub id."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return ()
    return tuple((file.name, stamp(file)) for file in sorted(folder.iterdir()) if file.is_file())
