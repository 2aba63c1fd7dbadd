"""What a wheel holds: configuration, sweeps and the shipped model travel in it and serve from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked; built from a copy, so that nothing is left in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("romexp", "conf", "sweeps"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    wheels = tmp_path_factory.mktemp("wheels")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(wheels),
    ]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("romexp-*.whl")
    assert wheel.stat().st_size < 20_000_000
    unpacked = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return unpacked


def files(folder: Path, *suffixes: str) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if path.suffix in suffixes and "__pycache__" not in path.parts}


def test_everything_travels(site: Path) -> None:
    assert files(site / "romexp" / "conf", ".yaml") == files(ROOT / "conf", ".yaml")
    assert files(site / "romexp" / "sweeps", ".yaml") == files(ROOT / "sweeps", ".yaml")
    assets = Path("minifact", "assets")
    kinds = (".json", ".txt", ".npy", ".safetensors")
    assert files(site / "romexp" / assets, *kinds) == files(ROOT / "romexp" / assets, *kinds)
    assert files(site / "romexp", ".py") == files(ROOT / "romexp", ".py")
    assert {path.name for path in site.iterdir()} == {"romexp", "romexp-0.1.0.dist-info"}


def test_the_command_works_from_any_folder(site: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "ROMEXP_CACHE": str(tmp_path / "cache"),
    }
    arguments = ["dataset.limit=2", "evaluator.generation=off", "tracker=none", "output_dir=run"]
    command = [sys.executable, "-m", "romexp", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ROME" in done.stdout
    assert len((tmp_path / "run" / "cases.jsonl").read_text().splitlines()) == 2
