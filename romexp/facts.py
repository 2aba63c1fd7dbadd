"""The vocabulary of the project: facts, edit requests and evaluation cases. No torch here.

Every data set is read into these types and every editor and evaluator works on them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Measurements = dict[str, Any]
"""What an evaluator measured for one case on one model, raw and JSON-ready; `romexp.analysis` makes metrics of it."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """Make the model say `target_new` after `prompt` about `subject` (docs/method.md §1.1: `requested_rewrite`).

    Targets carry no leading space; whoever tokenizes them adds it (docs/method.md §1.5). An edit alone needs no
    `target_true`; what compares the two answers does.
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
    """One record of an evaluation data set: the edit and the prompts that judge it.

    All prompts are complete strings without a trailing space. `neighborhood_targets` is empty for
    CounterFact, where every neighbour is judged against the request's two targets; for zsRE it holds
    the answer to each neighbourhood prompt.
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
    """A fact the model is expected to know, for causal tracing (docs/method.md §1.3)."""

    known_id: int
    subject: str
    attribute: str
    prompt: str
    template: str = ""
    prediction: str = ""
    relation_id: str = ""


def fill(template: str, subject: str) -> str:
    """Put `subject` at the template's `{}`; other braces in the text stay as they are."""
    return template.replace("{}", subject, 1)
