"""The command line gives the edits and scores of the authors' code (shared/golden_memit, whose README gives the
tolerances): `task=lifelong` with MEMIT, EMMET and AlphaEdit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import Command, rows

from romexp.lm.weight_delta import WeightDelta

pytestmark = pytest.mark.slow

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts")


@pytest.fixture(scope="module")
def folder(golden: Path, shared: Path) -> Path:
    """The golden numbers of MEMIT and its successors; the model and the records are those of `golden`."""
    path = shared / "golden_memit"
    if not path.is_dir():
        pytest.skip(f"no golden numbers in {path}")
    return path


@pytest.fixture(scope="module")
def given(golden: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that all golden runs share."""
    place = tmp_path_factory.mktemp("golden")
    settings = json.loads((folder / "settings.json").read_text())
    (place / "contexts.json").write_text(json.dumps(settings["context_templates"]))
    return [
        "task=lifelong",
        "task.order=file",
        "model=hf",
        f"model.path={golden / 'model'}",
        "model.device=cpu",
        "dataset=counterfact",
        f"dataset.path={golden / 'records.json'}",
        f"editor.context_templates={place / 'contexts.json'}",
        "editor.clamp_norm_factor=0.75",
        f"covariance.path={folder / 'moments.npz'}",
        "evaluator.generation=off",
        "save_deltas=true",
        "tracker=none",
        f"cache_dir={place / 'cache'}",
    ]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def update(run: Path, edits: int, layer: int) -> np.ndarray:
    """What a run has added to a layer's matrix after so many edits (in × out)."""
    delta = WeightDelta.load(run / "deltas" / f"{edits}.safetensors")
    return delta.terms[f"transformer.h.{layer}.mlp.c_proj.weight"].dense().numpy()


def nlls(found: dict[str, Any]) -> list[list[float]]:
    """[nll of target_new, nll of target_true] of all prompts of a case."""
    pairs = [pair for kind in KINDS for pair in found[kind]]
    return [[pair["target_new"], pair["target_true"]] if isinstance(pair, dict) else pair for pair in pairs]


def check_nlls(run: Path, expected: list[dict[str, Any]], *, measured_at: int, atol: float) -> None:
    """Compare the NLLs of all cases, before and after, with the golden ones."""
    found = {row["case_id"]: row for row in rows(run) if row["measured_at"] == measured_at}
    assert len(found) == len(expected)
    after = [pair for row in expected for pair in nlls(found[row["case_id"]]["post"])]
    np.testing.assert_allclose(after, [pair for row in expected for pair in nlls(row)], atol=atol)
    before = [pair for row in expected for pair in nlls(found[row["case_id"]]["pre"])]
    assert np.abs(np.array(before) - after).max() > 0.1  # a control: the edit is seen


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("memit", "l23_c075_w20_b10", ["editor.layers=[2,3]", "editor.mom2_update_weight=20"]),
        ("emmet", "l3_c075_w20_b10", ["editor.layers=[3]", "editor.mom2_update_weight=20"]),
    ],
)
def test_one_batch(
    romexp: Command, given: list[str], folder: Path, tmp_path: Path, kind: str, name: str, settings: list[str]
) -> None:
    """Measured: 3e-6 for edits, 5e-5 for NLLs."""
    more = [f"editor={kind}", *settings, "task.edits=10", "task.step=10", "output_dir=run"]
    done = romexp(*given, *more)
    assert done.status == 0, done.err
    arrays = np.load(folder / f"{kind}.npz")
    for layer in (2, 3) if kind == "memit" else (3,):
        stored = f"{name}.layer{layer}"
        expected = arrays[f"{stored}.adjoint"] @ arrays[f"{stored}.residual"].T
        assert relative(update(tmp_path / "run", 10, layer), expected) < 5e-5
    expected_nlls = json.loads((folder / "nll.json").read_text())[f"{kind}.{name}"]
    check_nlls(tmp_path / "run", expected_nlls, measured_at=10, atol=5e-4)


def test_alphaedit_in_three_batches(romexp: Command, given: list[str], folder: Path, tmp_path: Path) -> None:
    """Measured: 1e-4 to 1.5e-4 for edits."""
    settings = ["editor.layers=[2,3]", "editor.nullspace_threshold=0.00298", "editor.L2=0.1"]
    steps = ["task.edits=15", "task.step=5", "output_dir=run"]
    done = romexp(*given, "editor=alphaedit", *settings, *steps)
    assert done.status == 0, done.err
    arrays, run = np.load(folder / "alphaedit.npz"), tmp_path / "run"
    for layer in (2, 3):
        before = np.zeros((512, 128), dtype=np.float32)
        for batch in (1, 2, 3):
            after = update(run, 5 * batch, layer)
            expected = arrays[f"l23_c075_L01.batch{batch}.layer{layer}.delta"]
            assert relative(after - before, expected) < (5e-4 if batch == 1 else 2e-3)
            before = after
    expected_nlls = json.loads((folder / "nll.json").read_text())["alphaedit.l23_c075_L01"]["after_batch_3"]
    check_nlls(run, expected_nlls, measured_at=15, atol=1e-2)
