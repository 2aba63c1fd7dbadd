"""Packages import in one direction (DESIGN §2): facts → lm → stats → {tracing, editors, evaluation} → experiments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import romexp

PACKAGE = Path(romexp.__file__).parent
BASE = {"credentials", "errors", "facts", "files", "seeds"}
MAY_IMPORT: dict[str, set[str]] = {
    "credentials": set(),
    "errors": set(),
    "facts": set(),
    "files": set(),
    "seeds": set(),
    "lm": BASE,
    "data": BASE,
    "reporting": BASE,
    "tracking": BASE,
    "stats": BASE | {"lm"},
    "tracing": BASE | {"lm", "stats"},
    "editors": BASE | {"lm", "stats"},
    "learning": BASE | {"lm", "stats", "editors"},
    "evaluation": BASE | {"lm", "stats"},
    "minifact": BASE | {"lm", "data"},
    "experiments": BASE
    | {"lm", "data", "reporting", "tracking", "stats", "tracing", "editors", "learning", "evaluation", "minifact"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in MAY_IMPORT)


def part_of(module: str) -> str:
    """`romexp.lm.model` is part of `lm`."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    """Every module of the project that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "romexp" else set()
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == "romexp"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in MAY_IMPORT, f"say in {__file__} what romexp.{part} may import"
    wrong = {name for name in imported(path) if part_of(name) not in MAY_IMPORT[part] | {part, "", "__version__"}}
    assert not wrong, f"romexp.{part} must not import {', '.join(sorted(wrong))}"


def test_the_test_sees_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import torch\ndef f():\n    from romexp.editors.base import Edit\nfrom romexp import facts\n")
    assert imported(file) == {"romexp.editors.base", "romexp", "romexp.facts"}
    assert part_of("romexp.editors.base") == "editors"
