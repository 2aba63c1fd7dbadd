"""The input and the results of every variant of the benchmark."""

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
        lm: the model.
        cases: the cases that are edited and measured.
        editor: the method; its layer and context templates are set, so that all variants use the same ones.
        templates: the editor's context templates, the first of which is `{}`.
        moment: C of the edited layer; None if the editor needs none.
        sampler: how texts are sampled.
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
        """The same workload with only the first n cases."""
        return replace(self, cases=self.cases[:n])


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """Results of editing and measuring.

    Attributes:
        deltas: one delta for each case.
        nlls: for each case, after each of its prompts (see `prompts_of`), the NLL of target_new and of target_true.
    """

    deltas: list[WeightDelta]
    nlls: list[list[float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One way to do the work. Both functions measure their time with the stopwatch that they get.

    Attributes:
        edit: edits and measures each case, in the phases `edit` and `metrics`.
        generate: generates texts of each case with its delta, in the phase `generate`; None if the variant has no
            such code.
        ours: whether it is written here. Then its edits must equal those of `batched`, and the share of equal texts is
            shown, since they come from the same random numbers.
    """

    name: str
    edit: Callable[[Workload, Stopwatch], Edited]
    generate: Callable[[Workload, list[WeightDelta], Stopwatch], list[list[str]]] | None
    ours: bool = True


def prompts_of(case: Case) -> list[str]:
    """All prompts that are scored, in the order of `Edited.nlls`."""
    return [case.request.text, *case.paraphrase_prompts, *case.neighborhood_prompts, *case.attribute_prompts]
