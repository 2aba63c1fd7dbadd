"""What `model.path` may point to: a folder, an id on the Hugging Face hub, a GGUF file, or a file of a Python package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from romexp.errors import ConfigError
from romexp.files import cache_folder
from romexp.lm.architecture import Architecture
from romexp.lm.gguf import SUFFIX, convert_once

PACKAGE = "pkg://"
"""Begins a path inside an installed Python package: `pkg://<package>/<file or folder>`."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What `from_pretrained` can load.

    Attributes:
        path: a folder, or an id on the hub.
        name: the name of the model, if the settings give none.
        provenance: what the weights were converted from, JSON-ready; empty if they are used as they are stored.
    """

    path: str
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def find_source(
    path: str | Path,
    *,
    setup: str,
    dtype: torch.dtype,
    cache_dir: str | Path | None,
    architecture: Architecture | None,
) -> ModelSource:
    """Find what `model.path` points to. A GGUF file is converted first, if it was not converted before.

    Args:
        path: as for `local_path`.
        setup: the command that installs the package of the path, for error messages; may be empty.
        dtype: type of the weights of a GGUF file.
        cache_dir: the folder that keeps a converted file; see `romexp.files.cache_folder`.
        architecture: as for `romexp.lm.gguf.convert_once`.

    Raises:
        ConfigError: there is no such folder, package or file, or a GGUF file cannot be converted.
        DataError: the cache cannot be written.
    """
    found = local_path(path, setup=setup)
    here = Path(found)
    if here.suffix.lower() == SUFFIX and not here.is_dir():
        if not here.is_file():
            raise ConfigError(f"model.path: there is no file {found!r}; a GGUF file must be on this machine")
        folder, origin = convert_once(here, dtype=dtype, cache_dir=cache_folder(cache_dir), architecture=architecture)
        return ModelSource(path=str(folder), name=here.stem, provenance=origin)
    if (here.is_absolute() or found.startswith(".")) and not here.is_dir():
        raise ConfigError(f"model.path: there is no folder {found!r}")
    return ModelSource(path=found, name=here.resolve().name if here.is_dir() else here.name)


def local_path(path: str | Path, *, setup: str = "") -> str:
    """`path`, where `~` and `pkg://` are replaced by the folders that they mean. It need not exist.

    Args:
        path: a folder, an id on the hub, a GGUF file, or `pkg://<package>/<file or folder>`. The package is looked up
            and not imported.
        setup: as for `find_source`.

    Raises:
        ConfigError: there is no such package.
    """
    text = str(path)
    if not text.startswith(PACKAGE):
        return str(Path(text).expanduser()) if text.startswith("~") else text
    package, _, inner = text.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not inner:
        raise ConfigError(f"model.path: expected {PACKAGE}<package>/<file or folder>, not {text!r}")
    spec = find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if not roots:
        how = f"; to install it: {setup}" if setup else ""
        raise ConfigError(f"model.path: {text} needs the Python package {package}, which is not installed{how}")
    places = [root / inner for root in roots]
    return str(next((place for place in places if place.exists()), places[0]))


def is_installed(path: str | Path) -> bool:
    """Whether what a path in a Python package points to is there. True for any other path, which is not looked up."""
    try:
        return not str(path).startswith(PACKAGE) or Path(local_path(path)).exists()
    except ConfigError:
        return False
