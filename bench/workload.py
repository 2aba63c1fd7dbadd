"""What every variant of the benchmark is given, and what it has to give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from timing import Stopwatch

from romexp.editors.base import Resources
from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler
from romexp.lm.weight_delta import WeightDelta
from romexp.stats.second_moment import SecondMoment

SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Edit each case by itself and measure the edited model.

    Attributes:
        cases: what is edited and measured.
        editor: the method; its layer and context templates are set, so that all variants do the same.
        templates: the editor's context templates, the identity first.
        moment: C of the edited layer; None does without it.
        sampler: how texts are drawn.
    """

    lm: LanguageModel
    cases: tuple[Case, ...]
    editor: Rome | FineTune
    templates: tuple[str, ...]
    moment: SecondMoment | None
    sampler: Sampler

    @property
    def layer(self) -> int:
        assert self.editor.layer is not None
        return self.editor.layer

    @property
    def resources(self) -> Resources:
        return Resources(second_moment=self._second_moment, seed=SEED)

    def _second_moment(self, layer: int) -> SecondMoment:
        assert self.moment is not None
        return self.moment

    def first(self, n: int) -> Workload:
        """The same with the first n cases."""
        return replace(self, cases=self.cases[:n])


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """Results of editing and measuring.

    Attributes:
        deltas: one a case.
        nlls: by case, NLL of target_new and target_true after each prompt: rewrite, paraphrases, neighbours,
            attributes.
    """

    deltas: list[WeightDelta]
    nlls: list[list[float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One way to do the work. Both functions time themselves with the stopwatch they are given.

    Attributes:
        edit: edits and measures; phases `edit` and `metrics`.
        generate: texts of each case, through its delta; phase `generate`. None where a variant has no way of its own.
        comparable: its texts must equal those of our batched code, since they come from the same random numbers.
        ours: its edits must equal those of our batched code.
    """

    name: str
    edit: Callable[[Workload, Stopwatch], Edited]
    generate: Callable[[Workload, list[WeightDelta], Stopwatch], list[list[str]]] | None
    ours: bool = True


def prompts_of(case: Case) -> list[str]:
    """All prompts that are scored, in the order of `Edited.nlls`."""
    return [case.request.text, *case.paraphrase_prompts, *case.neighborhood_prompts, *case.attribute_prompts]
