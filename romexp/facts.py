"""The types of the project's data: facts, edit requests and evaluation cases (docs/method.md §1).

All data sets are read into these types, and all editors and evaluators use them. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from romexp.errors import ConfigError, DataError

LARGEST_ID = 2**63 - 1
"""The largest number of a case or fact. Tables of results store it in 64 bits."""

NO_TRUE_TARGET = "<|endoftext|>"
"""zsRE's cases have this text in place of the true target, as in the authors' code. No zsRE metric reads it."""

Measurements = dict[str, Any]
"""JSON-ready raw measurements of one case on one model. `romexp.analysis` computes metrics from them."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """A request to make the model answer `target_new` to a prompt about `subject` (docs/method.md §1.1).

    Attributes:
        subject: the subject of the fact.
        prompt: template with exactly one `{}` for the subject.
        target_new: the answer after the edit, without a leading space. `with_answer` adds one (docs/method.md §1.5).
        target_true: the answer before the edit, likewise without a leading space; empty if it is not known. Only
            metrics that compare both answers and some editors need it.
        relation_id: identifies the relation; reference texts are found by it.
        target_new_id: identifies the new target; reference texts are found by it.
    """

    subject: str
    prompt: str
    target_new: str
    target_true: str = ""
    relation_id: str = ""
    target_new_id: str = ""

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return fill(self.prompt, self.subject)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One record of an evaluation data set: an edit request, and the prompts that judge the edit (docs/method.md §1).

    All prompts are complete strings without a trailing space.

    Attributes:
        case_id: number of the case.
        request: the edit request.
        paraphrase_prompts: prompts about the same fact in other words.
        neighborhood_prompts: prompts about other subjects, whose answers the edit should not change.
        attribute_prompts: prompts about other subjects for which the new target is true.
        generation_prompts: beginnings of texts about the subject.
        neighborhood_targets: the answer to each neighbourhood prompt, as in zsRE. Empty for CounterFact, where
            neighbourhood prompts are judged by the request's two targets.
    """

    case_id: int
    request: EditRequest
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()
    attribute_prompts: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    neighborhood_targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KnownFact:
    """A fact that the model should know, for causal tracing (docs/method.md §1.3).

    Attributes:
        known_id: number of the fact.
        subject: the subject, which occurs in the prompt.
        attribute: the correct completion of the prompt.
        prompt: complete text that ends before the attribute.
        template: the prompt, or its beginning, with `{}` for the subject; empty if unknown.
        prediction: the data set's prediction for the prompt; empty if unknown.
        relation_id: identifies the relation; empty if unknown.
    """

    known_id: int
    subject: str
    attribute: str
    prompt: str
    template: str = ""
    prediction: str = ""
    relation_id: str = ""


def check_cases(items: Sequence[object], *, name: str, path: str, task: str) -> None:
    """Make sure that what was loaded is cases, at least one.

    Args:
        name: of the data set.
        path: of its file.
        task: the task that needs them.

    Raises:
        DataError: there is none.
        ConfigError: the data set holds records of another kind.
    """
    if not items:
        raise DataError(f"{path}: it holds no case")
    if not isinstance(items[0], Case):
        kind = type(items[0]).__name__
        raise ConfigError(f"dataset: task={task} needs cases to edit, {name} holds {kind} records")


def fill(template: str, subject: str) -> str:
    """Replace the first `{}` of the template by `subject`. Other braces do not change."""
    return template.replace("{}", subject, 1)


def answer_text(answer: str) -> str:
    """An answer as it is tokenized: without white space around it (docs/method.md §1.5)."""
    return answer.strip()


def with_answer(prompt: str, answer: str) -> str:
    """A prompt followed by its answer: one space between them, no white space after (docs/method.md §1.5).

    Every editor and every metric reads this text, so that what is edited is what is measured.
    """
    return f"{prompt} {answer_text(answer)}"
