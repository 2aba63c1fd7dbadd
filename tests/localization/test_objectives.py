"""What each objective asks of a fact, and editors at chosen layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from localization_cases import editors, memit

from romexp.editors.base import Edit, Goal, Resources
from romexp.editors.none import NoEdit
from romexp.errors import ConfigError, RecordError
from romexp.facts import Case, EditRequest
from romexp.lm.model import LanguageModel
from romexp.localization.methods import Methods
from romexp.localization.objectives import OBJECTIVES, check_case, check_objectives, wanted

REQUEST = EditRequest(subject="Steve Jobs", prompt="{} was the founder of", target_new="Paris", target_true="Apple")
CASE = Case(case_id=1, request=REQUEST)


def test_targets_and_goals() -> None:
    asked = {name: wanted(CASE, name, noised_answer=" Seattle", copies=7) for name in OBJECTIVES}
    assert {name: job.target for name, job in asked.items()} == {
        "error_injection": "Paris",
        "tracing_reversal": "Seattle",
        "erasure": "Apple",
        "amplification": "Apple",
        "forcing": "Apple",
    }
    assert {name for name, job in asked.items() if job.goal.unsay} == {"erasure"}
    assert {name: job.goal.copies for name, job in asked.items() if job.noised} == {"forcing": 7}


@pytest.mark.parametrize("said", [" Apple", "", " Ap"])
def test_nothing_to_reverse(said: str) -> None:
    with pytest.raises(RecordError, match="nothing to reverse"):
        wanted(CASE, "tracing_reversal", noised_answer=said, copies=1)


@pytest.mark.parametrize("true", ["", " ", "<|endoftext|>"])
def test_facts_without_true_answers_are_refused(true: str) -> None:
    check_case(CASE)
    with pytest.raises(RecordError, match="true answer"):
        check_case(replace(CASE, request=replace(REQUEST, target_true=true)))


@pytest.mark.parametrize("names", [[], ["erasing"], ["erasure", "erasure"]])
def test_bad_lists_of_objectives(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"task\.objectives"):
        check_objectives(names)


def test_editors_at_a_layer() -> None:
    settings = {"rome": {"forcing": {"v_lr": 0.05}}}
    methods = Methods(editors=editors() | {"memit": memit()}, width=5, settings=settings)

    def at(method: str, objective: str, layer: int) -> Any:
        return methods.at(method, objective, layer, n_layers=8)

    assert (at("rome", "erasure", 4).layer, at("ft", "erasure", 0).layer) == (4, 0)
    assert [at("memit", "erasure", layer).layers for layer in (0, 4, 7)] == [(0, 1, 2), (2, 3, 4, 5, 6), (5, 6, 7)]
    assert (at("rome", "forcing", 1).v_lr, at("rome", "erasure", 1).v_lr) == (0.05, 0.5)
    assert methods.layers_of_moments([4], n_layers=8) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"memit": {"erasure": {"v_lr": 1}}}, "no method 'memit'"),
        ({"rome": {"erasing": {"v_lr": 1}}}, "'erasing'"),
        ({"rome": {"erasure": {"lr": 1}}}, "no setting 'lr'"),
    ],
)
def test_bad_settings(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Methods(editors=editors(), width=5, settings=settings)


def test_editors_without_a_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match="layer of one's choice"):
        Methods(editors={"none": NoEdit()}, width=5)


def probability(lm: LanguageModel, request: EditRequest, edit: Edit | None) -> float:
    from romexp.lm.packing import Query
    from romexp.lm.scoring import score

    query = Query(prompt=request.text, targets=(request.target_new,))
    (scores,) = score(lm, [query], deltas=[edit.delta if edit else None])
    assert not isinstance(scores, RecordError)
    return float(torch.tensor(-sum(scores[0].token_nlls)).exp())


@pytest.mark.parametrize("method", ["rome", "ft", "memit"])
def test_unsaying_makes_the_target_less_likely(minifact_lm: LanguageModel, method: str) -> None:
    request = EditRequest(subject="Selus Dunwood", prompt="{} plays the", target_new="cello", target_true="cello")
    (token,) = (
        minifact_lm.model(input_ids=torch.tensor([minifact_lm.tokenizer(request.text)["input_ids"]]))
        .logits[:, -1]
        .argmax(-1)
        .tolist()
    )
    request = replace(request, target_new=minifact_lm.tokenizer.decode([token]).strip())
    editor = Methods(editors=editors() | {"memit": memit()}, width=3).at(method, "erasure", 2, n_layers=8)
    if method == "memit":
        editor = replace(editor, v_num_grad_steps=12, mom2_update_weight=1e-6)
    moment = _identity(minifact_lm)
    resources = Resources(second_moment=lambda layer: moment)
    before = probability(minifact_lm, request, None)
    changes = []
    for goal in (Goal(unsay=True), Goal()):
        (edit,) = editor(minifact_lm, [request], resources=replace(resources, goal=goal))
        assert isinstance(edit, Edit)
        changes.append(probability(minifact_lm, request, edit) - before)
    assert changes[0] < -0.1 * before
    assert changes[1] >= -1e-3  # control: the usual goal raises it


def _identity(lm: LanguageModel) -> Any:
    class Moment:
        def solve(self, keys: torch.Tensor) -> torch.Tensor:
            return keys.double()

    return Moment()


def test_copies_of_a_prompt_are_averaged(minifact_lm: LanguageModel) -> None:
    """Without noise all copies are equal, so that the edit is that of one."""
    request = EditRequest(subject="Selus Dunwood", prompt="{} plays the", target_new="cello")
    made = []
    for copies in (1, 3):
        resources = Resources(second_moment=lambda layer: None, goal=Goal(copies=copies))  # type: ignore[arg-type, return-value]
        (edit, other) = editors()["ft"](
            minifact_lm, [request, replace(request, target_new="violin")], resources=resources
        )
        assert isinstance(edit, Edit)
        assert isinstance(other, Edit)
        made.append([term.dense() for each in (edit, other) for term in each.delta.terms.values()])
    for one, three in zip(*made, strict=True):
        assert torch.allclose(one, three, atol=1e-4)
    assert not torch.allclose(made[0][0], made[0][-1], atol=1e-4)  # control: two requests, two edits
