"""CounterFact's measurements: NLLs of the two targets after every prompt, generated texts (SPEC §5.2, §5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from romexp.errors import ConfigError
from romexp.evaluation.base import EvaluationRow, finite, on_off, split_deltas
from romexp.evaluation.generation import References, essence_scores, generate_texts, score_texts
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler
from romexp.lm.scoring import Query, score
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class CounterFactEvaluator:
    """The paper's CounterFact protocol (config group `evaluator`).

    Each row has `rewrite_prompts`, `paraphrase_prompts`, `neighborhood_prompts` and `attribute_prompts`: per prompt
    [nll of target_new, nll of target_true], means over the target's tokens in nats. With generation also `text`,
    `ngram_entropy` (bits), `reference_score` (cosine) and `essence_score` (perplexity). What cannot be taken is null:
    an NLL that is not finite, RS without snippets for the relation and target, essence without a snippet about the
    subject. The first two leave a line in `notes`, a list that is only there when something is to be said; the third
    is the usual case and leaves none.

    Attributes:
        generation: `on` or `off` (or true, false): draw and score texts. It takes most of the time.
        sampler: how texts are drawn.
        essence: also take the essence score of cases that have an essence text; needs generation.
        attributes: also score the attribute prompts. They are stored, but no metric of the paper uses them, and they
            are ten of some 23 prompts.
        max_batch_tokens: size of a scoring batch, padding included; None takes what suits the device.
    """

    generation: str | bool = "on"
    sampler: Sampler = field(default_factory=Sampler)
    essence: bool = True
    attributes: bool = True
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        # `evaluator.generation` means the same whichever way it was spelt, also in hashes of the config.
        generates = on_off(self.generation, field="evaluator.generation")
        object.__setattr__(self, "generation", "on" if generates else "off")

    @property
    def generates(self) -> bool:
        """Whether texts are drawn."""
        return self.generation == "on"

    @property
    def needs_references(self) -> bool:
        """Snippets are only compared with generated texts."""
        return self.generates

    def __call__(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        *,
        deltas: Sequence[WeightDelta | None],
        seed: int,
        references: References | None = None,
    ) -> list[EvaluationRow]:
        """See `romexp.evaluation.base.Evaluator`."""
        present, edits = split_deltas(deltas, len(cases))
        rows = self._probabilities(lm, cases, present, edits)
        if self.generates:
            self._add_generations(rows, lm, cases, present, edits, seed=seed, references=references)
        return [{key: value for key, value in row.items() if key != "notes" or value} for row in rows]

    def _prompts(self, case: Case) -> dict[str, tuple[str, ...]]:
        if case.neighborhood_targets:
            raise ConfigError(
                f"case {case.case_id} has answers of its own for its neighborhood prompts (zsRE's kind of record), "
                "but the CounterFact evaluator judges all prompts by the edit's two targets: choose evaluator=zsre"
            )
        return {
            "rewrite_prompts": (case.request.text,),
            "paraphrase_prompts": case.paraphrase_prompts,
            "neighborhood_prompts": case.neighborhood_prompts,
            "attribute_prompts": case.attribute_prompts if self.attributes else (),
        }

    def _probabilities(
        self, lm: LanguageModel, cases: Sequence[Case], deltas: Sequence[WeightDelta], edits: Sequence[int]
    ) -> list[EvaluationRow]:
        prompts = [self._prompts(case) for case in cases]
        queries = [
            Query(
                prompt=prompt,
                targets=(case.request.target_new, case.request.target_true),
                edit=edit,
                case_id=case.case_id,
            )
            for case, kinds, edit in zip(cases, prompts, edits, strict=True)
            for group in kinds.values()
            for prompt in group
        ]
        scores = iter(score(lm, queries, deltas=deltas, max_batch_tokens=self.max_batch_tokens) if queries else [])
        rows: list[EvaluationRow] = []
        for kinds in prompts:
            row: EvaluationRow = {"notes": []}
            for kind, group in kinds.items():
                row[kind] = [[finite(target.nll) for target in next(scores)] for _ in group]
                if any(nll is None for pair in row[kind] for nll in pair):
                    row["notes"].append(f"{kind}: NLLs that are not finite are null")
            rows.append(row)
        return rows

    def _add_generations(
        self,
        rows: Sequence[EvaluationRow],
        lm: LanguageModel,
        cases: Sequence[Case],
        deltas: Sequence[WeightDelta],
        edits: Sequence[int],
        *,
        seed: int,
        references: References | None,
    ) -> None:
        texts = generate_texts(lm, cases, sampler=self.sampler, seed=seed, deltas=deltas, edits=edits)
        essences: Sequence[float | None] = [None] * len(cases)
        if self.essence and references is not None:
            essences = essence_scores(lm, cases, references=references, deltas=deltas, edits=edits)
        for row, case, mine, essence in zip(rows, cases, texts, essences, strict=True):
            scores = score_texts(mine, case.request, references)
            row["text"] = mine
            row["ngram_entropy"] = scores.ngram_entropy
            row["reference_score"] = scores.reference_score
            row["essence_score"] = None if essence is None else finite(essence)
            row["notes"] += scores.notes
