"""The five things that an edit of a known fact may be asked to do (Hase et al. 2023; docs/method.md §14.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from romexp.editors.base import Goal
from romexp.errors import ConfigError, RecordError
from romexp.facts import NO_TRUE_TARGET, Case, EditRequest, answer_text

Objective = Literal["error_injection", "tracing_reversal", "erasure", "amplification", "forcing"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One edit that is wanted of one fact.

    Attributes:
        case: the fact. Its request's new target is the one that the edit trains and that is measured.
        goal: whether the target is to become more or less likely.
        noised: whether the subject is noised while the edit is made and measured.
    """

    case: Case
    objective: Objective
    goal: Goal
    noised: bool

    @property
    def request(self) -> EditRequest:
        return self.case.request

    @property
    def target(self) -> str:
        return self.case.request.target_new


def check_objectives(names: Sequence[str]) -> None:
    """Check a list of objectives.

    Raises:
        ConfigError: it is empty, or a name is unknown or stands there twice.
    """
    if unknown := [name for name in names if name not in OBJECTIVES]:
        raise ConfigError(f"task.objectives: {unknown[0]!r} is none of {', '.join(OBJECTIVES)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError("task.objectives: expected at least one objective, each once")


def wanted(case: Case, objective: Objective, *, noised_answer: str, copies: int) -> Wanted:
    """What an objective asks of a fact that the model knows.

    Args:
        noised_answer: what the model says where the subject is noised.
        copies: number of noised rows of `forcing`.

    Raises:
        RecordError: the objective asks nothing of this fact: its target is what the model says already.
    """
    request = case.request
    targets = {"error_injection": request.target_new, "tracing_reversal": answer_text(noised_answer)}
    target = targets.get(objective, request.target_true)
    if objective == "tracing_reversal" and (not target or answer_text(request.target_true).startswith(target)):
        raise RecordError(
            f"with a noised subject the model says {noised_answer!r}, so there is nothing to reverse", field="prompt"
        )
    goal = Goal(unsay=objective == "erasure", copies=copies if objective == "forcing" else 1)
    return Wanted(
        case=replace(case, request=replace(request, target_new=target)),
        objective=objective,
        goal=goal,
        noised=objective == "forcing",
    )


def check_case(case: Case) -> None:
    """Make sure that a case says what the model should answer before the edit, without which there is no trace.

    Raises:
        RecordError: it does not.
    """
    if not answer_text(case.request.target_true) or case.request.target_true == NO_TRUE_TARGET:
        raise RecordError("the record does not say the true answer; only known facts are traced", field="target_true")
