"""Tells which of an editor's settings were chosen for another model than the one at hand.

The values in `conf/editor/` are those of GPT-2 XL, but for `OTHER_BASES`. What another model needs instead stands in
`conf/editor_model/<editor>_<model>.yaml`; the settings that some such file of an editor names are bound to a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from romexp.compose import CONF, compose_config, options
from romexp.editors.base import pick_layer
from romexp.lm.model import LanguageModel
from romexp.results.settings import shown_value

BASE_MODEL = "gpt2-xl"
"""Option of the model whose settings `conf/editor/` holds."""

OTHER_BASES = {"ultraedit": "Mistral 7B"}
"""Editors whose settings there are those of another model."""

SAME_CHOICE = {"layer": ("layer", "layer_fraction")}
"""Fields by which one setting can be given."""


def settings_not_tuned(
    editor: object,
    *,
    option: str,
    model: str,
    lm: LanguageModel,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
) -> dict[str, Any]:
    """The editor's settings that nobody chose for this model, with their values; empty if there are none.

    A setting is chosen if the model has a file with the editor's settings, if it has another value than in
    `conf/editor/`, if the user named it, or if it is what the model's own settings say. Editors with a trained network
    have none: a network is made for one model, and others are refused.

    Args:
        editor: the editor, with a number in place of `traced`.
        option: its option in the config group `editor`.
        model: the model's option in the config group `model`.
        overrides: the overrides of the command line.
        folders: the user's own folders of configurations, which may hold the model's file too.
    """
    files = [_file(option, model, folder=folder) for folder in (CONF, *folders)]
    if model == _base(option) or any(file.is_file() for file in files) or hasattr(editor, "checkpoint"):
        return {}
    if option not in options("editor") or not (bound := bound_settings(option)):
        return {}
    base: Mapping[str, Any] = compose_config(["model=hf", "model.path=none", f"editor={option}"]).editor
    named = {override.lstrip("+").partition("=")[0].removeprefix("editor.") for override in overrides}
    own = _own_settings(option, base, lm.name)
    found = {}
    for name in bound:
        fields = [field for field in SAME_CHOICE.get(name, (name,)) if hasattr(editor, field)]
        chosen = any(field in named or getattr(editor, field) != base[field] for field in fields)
        value = _value(editor, name, lm)
        if not chosen and not (own and _value(own, name, lm) == value):
            found[name] = value
    return found


def bound_settings(option: str) -> list[str]:
    """The settings of an editor that belong to a model: those that a file in `conf/editor_model/` names, sorted."""
    return sorted({str(name) for file in _files_of(option) for name in _read(file)})


def not_tuned_message(found: Mapping[str, Any], *, option: str, model: str, name: str) -> str:
    """One line for the user on the settings that `settings_not_tuned` found.

    Args:
        option: option of the editor.
        model: option of the model.
        name: name of the model.
    """
    values = " ".join(f"editor.{setting}={shown_value(value)}" for setting, value in found.items())
    known = next((other for other in _options_named(name) if other != model and _is_tuned(option, other)), None)
    advice = (
        f"for those of {known}: model={known} model.path=…"
        if known
        else "choose your own, or measure them: task=onboard"
    )
    return (
        f"settings not tuned for this model: editor={option} has none for {name} and takes those of {_base(option)} "
        f"({values}); {advice}"
    )


def _own_settings(option: str, base: Mapping[str, Any], name: str) -> DictConfig | None:
    """The editor's settings for the known model of this name, for a model that was given by its path."""
    for model in _options_named(name):
        if _is_tuned(option, model):
            file = _file(option, model)
            own = _read(file) if file.is_file() else {}
            return OmegaConf.create({**base, **own})
    return None


def _options_named(name: str) -> Iterator[str]:
    """Options of models with this name, or with a path that ends in it."""
    for option in options("model"):
        model = _read(CONF / "model" / f"{option}.yaml")
        path = model.get("path")
        if name == model.get("name") or (isinstance(path, str) and name == Path(path).name):
            yield option


def _is_tuned(option: str, model: str) -> bool:
    return model == _base(option) or _file(option, model).is_file()


def _base(option: str) -> str:
    """The model whose settings an editor has in `conf/editor/`."""
    return OTHER_BASES.get(option, BASE_MODEL)


def _file(option: str, model: str, *, folder: Path = CONF) -> Path:
    return folder / "editor_model" / f"{option}_{model}.yaml"


def _files_of(option: str) -> Iterator[Path]:
    """The editor's files. `ft_l_minifact` is one of `ft_l`, and not of `ft` for a model `l_minifact`."""
    longer = [f"{other}_" for other in options("editor") if other.startswith(f"{option}_")]
    for file in (CONF / "editor_model").glob(f"{option}_*.yaml"):
        if not file.stem.startswith(tuple(longer)):
            yield file


def _read(file: Path) -> dict[str, Any]:
    """The file's own values; what is missing there (`???`) stays."""
    values: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return values


def _value(settings: Any, name: str, lm: LanguageModel) -> Any:
    """The value of a setting; the number of the layer that an editor without one takes."""
    value = getattr(settings, name)
    if name == "layer" and value is None:
        return pick_layer(lm, layer=None, fraction=settings.layer_fraction)
    return value
