"""Writes what `task=onboard` measured as files of the groups `model` and `editor_model`, in a folder of the user's."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from romexp.compose import compose_config, options
from romexp.errors import ConfigError
from romexp.files import write_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NOT_WRITTEN = ("_target_", "name", "layer", "layer_fraction", "cache_dir")
"""Fields that are written in another way or are the same for every model."""


def option_name(given: str | None, model: str) -> str:
    """The name of the model's new option: `given`, or one made of the model's name that is free.

    Raises:
        ConfigError: the name is no plain file name, or an option that ships with romexp.
    """
    shipped = options("model")
    if given is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("._-")[:80] or "model"
        return f"{name}-onboarded" if name in shipped else name
    if not NAME.fullmatch(given):
        raise ConfigError(
            f"task.name: {given!r} is no name of a file of settings: letters, digits, '.', '_' and '-', beginning with "
            "a letter or digit, at most 100"
        )
    if given in shipped:
        raise ConfigError(f"task.name: model={given} ships with romexp; choose another name")
    return given


@dataclass(frozen=True, kw_only=True)
class SettingsFiles:
    """The files for one model and one editor.

    Attributes:
        folder: the folder with the groups, for `--config-dir`.
        name: the model's option.
        editor: the editor's option.
        run: the run's hash, by which a file is known again.
    """

    folder: Path
    name: str
    editor: str
    run: str

    @property
    def model_file(self) -> Path:
        return self.folder / "model" / f"{self.name}.yaml"

    @property
    def editor_file(self) -> Path:
        return self.folder / "editor_model" / f"{self.editor}_{self.name}.yaml"

    def check_free(self, model: Mapping[str, Any], covariance: str) -> None:
        """Make the folders, and see that nothing of another run would be overwritten.

        Raises:
            ConfigError: there is a file of another run, or of another model.
            OSError: nothing can be written there.
        """
        for file in (self.model_file, self.editor_file):
            write_text(file.with_name(f".{file.name}.tried"), "")  # an error now, and not after the scan
            file.with_name(f".{file.name}.tried").unlink()
        if self.editor_file.exists() and not self._is_own(self.editor_file):
            raise ConfigError(f"{self.editor_file} exists already: remove it, or choose another task.name")
        if self.model_file.exists() and _content(self.model_file) != _plain(self._model(model, covariance)):
            raise ConfigError(f"{self.model_file} exists already and is another model's: choose another task.name")

    def write(
        self,
        *,
        model: Mapping[str, Any],
        covariance: str,
        settings: Mapping[str, Any],
        about_model: str,
        about_settings: Sequence[str],
    ) -> None:
        """Write both files. A model's file that is there stays.

        Args:
            model: the model's configuration.
            covariance: option of the source of second moments.
            settings: the editor's settings.
            about_model: one line about the model.
            about_settings: what was measured; each becomes a paragraph of the comment.
        """
        marked = [*about_settings, f"Run {self.run} of romexp task=onboard."]
        if not self.model_file.exists():
            text = f"{_comment([about_model])}{_dumped(self._model(model, covariance))}"
            write_text(self.model_file, text.replace("\n- _self_\n", "\n- _self_\n\n", 1).replace("\n- ", "\n  - "))
        write_text(self.editor_file, _comment(marked) + _dumped(settings))

    def _is_own(self, file: Path) -> bool:
        return f"Run {self.run} " in " ".join(file.read_text(encoding="utf-8", errors="replace").split())

    def _model(self, model: Mapping[str, Any], covariance: str) -> dict[str, Any]:
        """The content of the model's file: what differs from `conf/model/hf.yaml`."""
        base: Any = OmegaConf.to_container(compose_config(["model=hf", "model.path=none"]).model)
        path = model["path"]
        if isinstance(path, str) and Path(path).expanduser().exists():
            path = str(Path(path).expanduser().absolute())
        other = {key: value for key, value in model.items() if key not in NOT_WRITTEN and value != base.get(key)}
        return {
            "defaults": ["hf", {"override /covariance@_global_.covariance": covariance}, "_self_"],
            **other,
            "path": path,
            "name": model["name"],
        }


def editor_settings(editor: Mapping[str, Any], option: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the editor's file: the chosen settings, and those that differ from `conf/editor/<option>.yaml`.

    Args:
        editor: the editor's configuration.
        chosen: the settings that were measured.
    """
    base: Any = OmegaConf.to_container(compose_config(["model=hf", "model.path=none", f"editor={option}"]).editor)
    other = {
        key: value
        for key, value in editor.items()
        if key not in (*NOT_WRITTEN, *chosen) and _plain(value) != _plain(base.get(key))
    }
    return {**chosen, **other}


def _content(file: Path) -> Any:
    try:
        return _plain(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _plain(value: Any) -> Any:
    """The value as JSON knows it: lists in place of tuples, texts in place of paths."""
    return json.loads(json.dumps(value, default=str))


def _dumped(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True, width=1000)
    return text


def _comment(paragraphs: Sequence[str]) -> str:
    """The paragraphs as comment lines of at most 120 characters."""
    lines = [line for text in paragraphs for line in textwrap.wrap(text, 118, break_on_hyphens=False)]
    return "".join(f"# {line}\n" for line in lines)
