"""Editing methods and second moments, with the settings that belong to a model: those of the command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from romexp.api import checks
from romexp.api.progress import bar
from romexp.compose import check_option, compose_config
from romexp.data.corpora import TextCorpus, TextList
from romexp.editors.base import Editor, Resources
from romexp.editors.traced_layer import with_traced_layer
from romexp.errors import ConfigError
from romexp.files import cache_folder
from romexp.lm.model import LanguageModel
from romexp.model_settings import not_tuned_message, settings_not_tuned
from romexp.stats.covariance import Covariance
from romexp.stats.readers import SUFFIXES

log = logging.getLogger(__name__)

Method = str | Editor
"""A method's name (an option of the config group `editor`) or an editor object."""
Moments = str | Path | Sequence[str] | Covariance | None
"""Where second moments come from: see `second_moments`."""


def editor(method: str, lm: LanguageModel | None = None, *, settings: Mapping[str, Any] | None = None) -> Editor:
    """An editing method as an object, to look at its hyper-parameters and to change them.

    Args:
        method: an option of the config group `editor`: `rome`, `ft`, `ft_l`, `mend`, …
        lm: the model whose settings apply (`conf/editor_model/`); None takes the method's own.
        settings: fields to change, as `{"layer": 3}`.

    Raises:
        ConfigError: there is no such method, or it has no such field.
    """
    if not isinstance(method, str):
        raise ConfigError(f"method: expected a name or an editor object, got {type(method).__name__}")
    check_option("editor", method, called="method")
    found: Editor = instantiate(compose_config([*model_override(lm), f"editor={method}"]).editor)
    return checks.with_settings(found, settings or {}, f"method {method}")


def editor_for(lm: LanguageModel, method: Method) -> Editor:
    """The editor that a method names or is, with the layer that a trace found where it says `traced`.

    Raises:
        ConfigError: neither a method's name nor an editor.
    """
    found = editor(method, lm) if isinstance(method, str) else method
    if not callable(found) or not is_dataclass(found) or isinstance(found, type):
        raise ConfigError(f"method: expected a name or an editor object, got {type(method).__name__}")
    chosen: Editor = with_traced_layer(found, cache_folder(None), lm.digest)
    if not_tuned := not_tuned_for(lm, method):
        option = getattr(lm, "option", "") or "hf"
        log.warning("%s", not_tuned_message(not_tuned, option=str(method), model=option, name=lm.name))
    return chosen


def not_tuned_for(lm: LanguageModel, method: Method) -> dict[str, Any]:
    """The settings with which a method, given by its name, would edit this model, but which are another model's.

    An editor object has the settings that the caller gave it.
    """
    if not isinstance(method, str):
        return {}
    option = getattr(lm, "option", "") or "hf"
    return settings_not_tuned(editor(method, lm), option=method, model=option, lm=lm)


@contextmanager
def resources_for(lm: LanguageModel, covariance: Moments, *, seed: int) -> Iterator[Resources]:
    """What editors may ask for: second moments, with a bar while they are measured, and a cache."""
    with bar(f"second moments of {lm.name}") as report:
        source = second_moments(lm, covariance).source(lm, progress=report)
        yield Resources(second_moment=source, prepare=source.prepare, cache_dir=cache_folder(None), seed=seed)


def second_moments(lm: LanguageModel, covariance: Moments) -> Covariance:
    """Where second moments come from.

    Args:
        covariance: None: where the model's configuration says, which for a model of your own is the English Wikipedia,
            downloaded once. A name: an option of the config group `covariance`, as `sampled` (texts that the model
            writes itself). A file: statistics (.npz, .safetensors, or a folder of them) or texts. A list of texts.

    Raises:
        ConfigError: none of these.
    """
    if isinstance(covariance, Covariance):
        return covariance
    base = model_override(lm)
    if covariance is None:
        return _instantiated(base)
    if isinstance(covariance, str | Path):
        path = Path(covariance).expanduser()
        if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES):
            return replace(_instantiated(base), path=path)
        if path.is_file():
            return replace(_instantiated([*base, "covariance=sampled"]), corpus=TextCorpus(path=path))
        check_option("covariance", str(covariance), called="covariance (no such file, and)")
        return _instantiated([*base, f"covariance={covariance}"])
    own = TextList(items=tuple(checks.texts(covariance, "covariance")))
    return replace(_instantiated([*base, "covariance=sampled"]), corpus=own)


def _instantiated(overrides: Sequence[str]) -> Covariance:
    found: Covariance = instantiate(compose_config(overrides).covariance)
    return found


def model_override(lm: LanguageModel | None) -> list[str]:
    """What says on the command line which model it is, as far as settings depend on it."""
    if lm is None:
        return ["model=hf", "model.path=none"]
    option = getattr(lm, "option", "")
    return [f"model={option}"] if option else ["model=hf", "model.path=none"]
