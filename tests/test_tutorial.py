"""docs/tutorial.ipynb runs, and what it shows is what comes out of it today."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def tutorial() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorial", ROOT / "docs" / "tutorial.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(cell: Any) -> str:
    """What a reader sees below a cell, without pictures."""
    texts = []
    for output in cell.outputs:
        if output.get("name") != "stderr":
            texts.append(output["text"] if "text" in output else output["data"]["text/plain"])
    return " ".join("\n".join(texts).split())  # where the kernel cuts what is printed depends on its pace


def alike(one: str, other: str) -> bool:
    """The same words; numbers may differ as they do from one processor to the next."""
    if NUMBER.split(one) != NUMBER.split(other):
        return False
    pairs = zip(map(float, NUMBER.findall(one)), map(float, NUMBER.findall(other)), strict=True)
    return all(math.isclose(a, b, rel_tol=0.05, abs_tol=0.02) for a, b in pairs)


@pytest.mark.slow
def test_the_tutorial_shows_what_comes_out_of_it(tmp_path: Path) -> None:
    import nbformat

    module = tutorial()
    stored = nbformat.read(module.NOTEBOOK, as_version=4)
    fresh = module.executed(tmp_path)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert len(code) > 10
    wrong = [
        (cell.source, shown(cell), shown(new))
        for cell, new in zip(code, [cell for cell in fresh.cells if cell.cell_type == "code"], strict=True)
        if not alike(shown(cell), shown(new))
    ]
    assert not wrong, "run docs/refresh.py"
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"), [("P 0.93", "P 0.94", True), ("P 0.93", "P 0.5", False), ("cello", "piano", False)]
)
def test_the_comparison_sees_differences(one: str, other: str, same: bool) -> None:
    assert alike(one, other) is same
