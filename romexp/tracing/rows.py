"""Turns a trace into a row of `cases.jsonl`, from which averages and figures are made (docs/method.md §11.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.tracer import Trace


def to_row(
    lm: LanguageModel,
    fact: KnownFact,
    prompt: TracedPrompt,
    trace: Trace | None,
    gradients: list[float] | None,
    *,
    completion: Sequence[int] = (),
    setting: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON-ready row of one fact (docs/method.md §11.2).

    Grids are [tokens][layers] by kind, severed curves are [layers]. Each score is the metric, averaged over samples; as
    in the paper that is p(answer), if there is no `setting` that says otherwise.

    Args:
        trace: None for a fact that the model does not complete correctly; its row has no grids.
        gradients: one attribution per token; None leaves them out.
        completion: the tokens with which the model completes the fact with its attribute. The scores are those of the
            first one, which is the answer.
        setting: in what the trace differs from the paper's (`Tracer.setting`).
    """
    row: dict[str, Any] = {
        "case_id": fact.known_id,
        "prompt": fact.prompt,
        "subject": fact.subject,
        "attribute": fact.attribute,
        "tokens": prompt.tokens(lm),
        "subject_range": list(prompt.subject_range),
        "answer": prompt.answer_text(lm),
        "high_score": prompt.high_score,
        "correct_prediction": trace is not None,
    }
    if completion:
        row |= {"completion": str(lm.tokenizer.decode(list(completion))), "completion_tokens": len(completion)}
    if setting:
        row |= {"setting": dict(setting), "probability": prompt.high_score}
    if prompt.partner is not None:
        row |= {"partner": prompt.partner.subject, "foil": str(lm.tokenizer.decode([prompt.partner.foil]))}
    if trace is not None:
        row |= {"high_score": trace.high_score, "low_score": trace.low_score, **trace.grids}
        row |= {f"exact_{kind}": [list(cell) for cell in cells] for kind, cells in trace.exact_cells.items()}
        row |= {f"severed_{kind}": curve for kind, curve in trace.severed.items()}
    if gradients is not None:
        row["integrated_gradients"] = gradients
    return row
