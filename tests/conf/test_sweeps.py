"""Every file in sweeps/ is a multirun study whose jobs all compose."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_of_a_sweep_composes(path: Path) -> None:
    command = [sys.executable, "-m", "romexp", "-cd", "sweeps", "-cn", path.stem, "--cfg", "hydra"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    hydra = yaml.safe_load(shown.stdout)["hydra"]
    assert hydra["mode"] == "MULTIRUN"
    values = {key: expand(str(value)) for key, value in hydra["sweeper"]["params"].items()}
    jobs = [
        [f"{key}={value}" for key, value in zip(values, job, strict=True)]
        for job in itertools.product(*values.values())
    ]
    assert len(jobs) > 1
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        editors = [instantiate(compose("config", overrides=job).editor) for job in jobs]
    assert len({repr(editor) for editor in editors}) > 1


def expand(value: str) -> list[str]:
    """`a,b` or `range(0, 3)`, as Hydra's sweep syntax has them."""
    if value.startswith("range("):
        return [str(i) for i in range(*(int(part) for part in value[6:-1].split(",")))]
    return value.split(",")
