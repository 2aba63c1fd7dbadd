"""Packages import in one direction: the contracts stand in setup.cfg, `lint-imports` holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter is not installed")
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent


def test_imports_point_one_way(tmp_path: Path) -> None:
    assert lint_imports(config_filename=str(ROOT / "setup.cfg"), cache_dir=str(tmp_path)) == 0


def test_the_test_sees_imports(tmp_path: Path) -> None:
    upside_down = tmp_path / "upside_down.cfg"
    upside_down.write_text(
        "[importlinter]\nroot_package = romexp\n"
        "[importlinter:contract:layers]\nname = upside down\ntype = layers\ncontainers = romexp\n"
        "layers =\n    lm\n    editors\n"
    )
    assert lint_imports(config_filename=str(upside_down), cache_dir=str(tmp_path)) != 0
