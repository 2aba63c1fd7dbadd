"""What a job returns to Hydra's sweeper, and the search by Optuna."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from tiny_runs import Command, start

from romexp.cli.objective import objective
from romexp.errors import ConfigError

SUMMARY = {
    "n_cases": 3,
    "pre": {"S": {"mean": 1.0}, "ES": {"mean": 2.0}},
    "post": {"S": {"mean": 90.0, "interval": [80, 95]}, "ES": {"mean": None}, "GE": {"mean": float("nan")}},
    "labels": ["a"],
}
RETURNED: list[Any] = []


class Probe(Callback):
    """What Hydra's sweeper gets of each job."""

    def on_job_end(self, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        RETURNED.append(job_return.return_value)


PROBE = "+hydra.callbacks.probe._target_=test_sweep_objective.Probe"


@pytest.fixture(autouse=True)
def _none_returned() -> None:
    RETURNED.clear()


def folder(path: Path, summary: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def test_names_of_the_summary(tmp_path: Path) -> None:
    run = folder(tmp_path, SUMMARY)
    assert objective(run, "S", wanted=False) == objective(run, None, wanted=True) == 90.0
    assert objective(run, "pre/es", wanted=False) == 2.0
    assert objective(run, ["S", "pre/S"], wanted=False) == (90.0, 1.0)
    assert objective(run, None, wanted=False) is None
    assert objective(folder(tmp_path, {"ate": {"mean": 0.2}}), None, wanted=True) == 0.2
    assert objective(folder(tmp_path, {"final": {"S": {"mean": 7}}}), "S", wanted=True) == 7.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GE", r"^objective: the run has no GE \(there are n_cases, S, pre/S, pre/ES\)$"),
        ("labels", "the run has no labels"),
        ("n_case", "the run has no n_case"),
    ],
)
def test_a_name_that_the_run_lacks_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        objective(folder(tmp_path, SUMMARY), name, wanted=False)
    with pytest.raises(ConfigError, match="it has no numbers"):
        objective(None, None, wanted=True)


def test_a_job_returns_its_objective(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, PROBE, "dataset.limit=2", "editor.layer=0,77,2", "objective=PS", "-m")
    assert done.status == 2
    summaries = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/edit/*/*/*/*/summary.json")]
    assert RETURNED[1] is None, "it failed"
    assert sorted([RETURNED[0], RETURNED[2]]) == sorted(s["post"]["PS"]["mean"] for s in summaries)


def test_a_wrong_objective_is_one_line_and_keeps_the_results(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(*tiny, "dataset.limit=2", "objective=PSS", "output_dir=run")
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "objective: the run has no PSS (there are" in done.err
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_optuna_sweeper") is not None, reason="the sweeper is installed")
@pytest.mark.parametrize("given", [["hparams_search=rome_minifact"], ["-m", "hydra/sweeper=optuna"]])
def test_a_missing_sweeper_is_one_line(given: list[str], romexp: Command) -> None:
    done = romexp(*given)
    assert done.status == 2
    assert done.err == "romexp: error: hydra/sweeper: a package is not installed: pip install 'romexp[optuna]'\n"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
def test_optuna_finds_the_layer_that_is_known(tmp_path: Path) -> None:
    """At layers 1 to 3 of minifact, where traces find its facts, edits succeed; at the last ones they do not."""
    given = ["hparams_search=rome_minifact", "tracker=none", "hydra.sweeper.n_trials=12", "dataset.limit=10"]
    process = start(*given, cwd=tmp_path)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    found = re.search(r"^best: editor\.layer=(\d) editor\.v_lr=(\S+): objective (\S+)$", out, re.MULTILINE)
    assert found, out
    assert int(found[1]) in (1, 2, 3)
    assert float(found[3]) > 95
    assert "12 jobs, 10 cases each" in out
    assert err.splitlines()[0] == "sweep, each with hparams_search=rome_minifact tracker=none dataset.limit=10"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
def test_optuna_goes_on_after_a_failing_job(tiny: list[str], tmp_path: Path) -> None:
    given = [each for each in tiny if not each.startswith("editor.layer")]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.max_failure_rate=1.0"]
    objectives = ["objective=[S,NS]", "hydra.sweeper.direction=[maximize,maximize]"]
    process = start(*given, *search, *objectives, "editor.layer=choice(0,2,77)", "dataset.limit=2", "-m", cwd=tmp_path)
    out, err = process.communicate(timeout=600)
    assert "best: editor.layer=" in out
    assert "objectives " in out
    assert "jobs failed" not in err or process.returncode == 2
    process = start(*given, *search, *objectives, "editor.layer=choice(0,2)", "dry_run=true", "-m", cwd=tmp_path)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert re.search(r"^in all: 6 jobs, \d+ cases left", out, re.MULTILINE)
    assert "best:" not in out
