"""Imports modules of a checkout of other people's code from a temporary copy in which some texts are replaced. Nothing
of the checkout is kept here, and nothing in it is changed.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch

PACKAGES = ("rome", "memit", "util", "dsets", "experiments", "baselines")
EMPTIED = {
    "rome/layer_stats.py": "layer_stats = None\n",
    "dsets/__init__.py": "AttributeSnippets = KnownsDataset = object\n",
}


def import_copy(
    folder: Path,
    device: torch.device,
    names: Mapping[str, str],
    *,
    other: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, ModuleType]:
    """Import modules of a changed copy of a checkout. Those of an earlier copy are removed first.

    Args:
        names: the modules, by a short name.
        other: further texts to replace, by file and old text.
    """
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "copy"
        _copy(folder, root, device, other or {})
        sys.path.insert(0, str(root))
        here = os.getcwd()
        try:
            os.chdir(root)  # globals.yml is read from the working directory
            return {key: importlib.import_module(name) for key, name in names.items()}
        finally:
            os.chdir(here)
            sys.path.remove(str(root))


def _copy(folder: Path, root: Path, device: torch.device, other: Mapping[str, Mapping[str, str]]) -> None:
    for source in [folder / "globals.yml", *(path for name in PACKAGES for path in (folder / name).rglob("*.py"))]:
        relative = source.relative_to(folder)
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if str(relative) in EMPTIED:
            target.write_text(EMPTIED[str(relative)])
        elif source.suffix == ".py":
            text = re.sub(r"""(["'])cuda(:0)?\1""", repr(str(device)), source.read_text())
            for old, new in other.get(str(relative), {}).items():
                text = text.replace(old, new)
            target.write_text(text.replace(".cuda()", f".to({str(device)!r})"))
        else:
            shutil.copy(source, target)
