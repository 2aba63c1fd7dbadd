"""Edits and scores against golden numbers: the authors' outputs where they are at hand, a small set of our own always.

Tolerances are absolute for u and NLLs, relative for Λ'. The shared README expects 1e-5 for u, which cannot be had: the
condition number of its float32 second moment is 2e5, and the golden u itself is 2.9e-5 from the float64 solution with
that matrix. Ours is that solution.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edit_cases import furthest, no_moment, term

from romexp.editors.base import Edit, Resources
from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import score
from romexp.lm.weight_delta import WeightDelta
from romexp.stats.second_moment import SecondMoment

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")
LAYERS = {"shared": 3, "small": 1}
TOLERANCES = {
    "shared": {"u": 5e-5, "right": 1e-4, "pre": 1e-4, "rome": 2e-4, "ft": 1e-3, "ft_l": 1e-3},
    "small": {"u": 1e-6, "right": 1e-4, "pre": 1e-5, "rome": 1e-4, "ft": 1e-4, "ft_l": 1e-4},
}
"""Measured: shared 2.9e-5, 3.3e-5, 1.7e-5, 1.3e-4, 1.7e-5, 1.3e-5; small 4e-7, 2e-6, 2e-6, 2e-6, 2e-6, 2e-6."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A folder of golden numbers, read."""

    name: str
    folder: Path
    lm: LanguageModel
    records: list[dict[str, Any]]
    requests: list[EditRequest]
    resources: Resources

    @property
    def rome(self) -> Rome:
        return Rome(
            layer=LAYERS[self.name], clamp_norm_factor=3.0, context_templates=str(self.folder / "contexts.json")
        )

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module", params=["small", "shared"])
def golden_set(request: pytest.FixtureRequest) -> Golden:
    if request.param == "shared":
        folder = request.getfixturevalue("golden")
    else:
        folder = Path(__file__).resolve().parent.parent / "golden_small"
    records = json.loads((folder / "records.json").read_text())
    rewrites = [record["requested_rewrite"] for record in records]
    moment = np.load(folder / f"covariance_layer{LAYERS[request.param]}.npz")["moment"]
    return Golden(
        name=request.param,
        folder=folder,
        lm=PretrainedModel(path=str(folder / "model"), device="cpu").load(),
        records=records,
        requests=[
            EditRequest(
                subject=r["subject"],
                prompt=r["prompt"],
                target_new=r["target_new"]["str"],
                target_true=r["target_true"]["str"],
            )
            for r in rewrites
        ],
        resources=Resources(second_moment=lambda _: SecondMoment(matrix=torch.tensor(moment), count=0)),
    )


@pytest.fixture(scope="module")
def rome_edits(golden_set: Golden) -> list[Edit]:
    return golden_set.rome(golden_set.lm, golden_set.requests, resources=golden_set.resources)


def nlls(golden: Golden, deltas: Sequence[WeightDelta | None]) -> np.ndarray:
    """[nll of target_new, nll of target_true] of all prompts of all records, each record through its own delta."""
    asked = [
        (Query(prompt=prompt, targets=(request.target_new, request.target_true)), delta)
        for record, request, delta in zip(golden.records, golden.requests, deltas, strict=True)
        for prompts in ([request.text], *(record[kind] for kind in KINDS[1:]))
        for prompt in prompts
    ]
    scores = score(golden.lm, [query for query, _ in asked], deltas=[delta for _, delta in asked])
    return np.array([[one.nll for one in scored] for scored in scores])


def expected_nlls(golden: Golden, which: str) -> np.ndarray:
    return np.array([pair for row in golden.json("nll.json") for kind in KINDS for pair in row[which][kind]])


def assert_nlls(golden: Golden, which: str, deltas: Sequence[WeightDelta | None]) -> None:
    expected, tolerance = expected_nlls(golden, which), TOLERANCES[golden.name][which]
    np.testing.assert_allclose(nlls(golden, deltas), expected, atol=tolerance, rtol=5e-6)  # float32 of NLLs up to 17
    if which != "pre":  # a control: the edit is seen
        assert np.abs(expected - expected_nlls(golden, "pre")).max() > 1


def test_unedited_scores(golden_set: Golden) -> None:
    assert_nlls(golden_set, "pre", [None] * len(golden_set.requests))


def test_rome_vectors(golden_set: Golden, rome_edits: list[Edit]) -> None:
    expected, tolerance = np.load(golden_set.folder / "rome.npz"), TOLERANCES[golden_set.name]
    u, right = (
        np.stack([getattr(term(edit.delta), side)[:, 0].numpy() for edit in rome_edits]) for side in ("left", "right")
    )
    assert [record["case_id"] for record in golden_set.records] == expected["case_id"].tolist()
    np.testing.assert_allclose(u, expected["u"], atol=tolerance["u"], rtol=0)
    distance = np.linalg.norm(right - expected["right"], axis=1) / np.linalg.norm(expected["right"], axis=1)
    assert distance.max() < tolerance["right"]


def test_rome_scores(golden_set: Golden, rome_edits: list[Edit]) -> None:
    assert_nlls(golden_set, "rome", [edit.delta for edit in rome_edits])


def test_rome_edits_of_a_batch_are_those_of_each_request_alone(golden_set: Golden, rome_edits: list[Edit]) -> None:
    """With the paper's 20 passes on a model that knows its facts; measured 6e-5."""
    alone = [
        golden_set.rome(golden_set.lm, [request], resources=golden_set.resources)[0]
        for request in golden_set.requests[:3]
    ]
    assert furthest(rome_edits[:3], alone) < 1e-3
    assert furthest(rome_edits[:2], alone[1:]) > 0.1


@pytest.mark.parametrize(
    ("which", "tuner"), [("ft", FineTune(layer=1)), ("ft_l", FineTune(layer=0, norm_constraint=2e-3))]
)
def test_fine_tuning_scores(golden_set: Golden, which: str, tuner: FineTune) -> None:
    edits = tuner(golden_set.lm, golden_set.requests, resources=Resources(second_moment=no_moment))
    assert_nlls(golden_set, which, [edit.delta for edit in edits])


def test_samples(golden_set: Golden, rome_edits: list[Edit]) -> None:
    """A seed gives the text it has always given, before and after the edit."""
    if golden_set.name == "shared":
        pytest.skip("the shared set has no sampled texts")
    prompts = [record["generation_prompts"][0] for record in golden_set.records]
    expected = golden_set.json("texts.json")
    unedited: list[WeightDelta | None] = [None] * len(prompts)
    for which, deltas in (("pre", unedited), ("rome", [edit.delta for edit in rome_edits])):
        for seed in (0, 1):
            texts = generate(
                golden_set.lm,
                prompts,
                sampler=Sampler(max_length=24),
                seeds=[seed] * len(prompts),
                deltas=deltas,
            )
            assert texts == [row[which][seed] for row in expected]
    assert any(row["pre"] != row["rome"] for row in expected)
