"""Tracing one prompt: where in the model its answer is recalled."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from matplotlib.figure import Figure

from romexp.analysis.trace_settings import base_name, metric_title, sign, total_effect
from romexp.analysis.traces import KINDS
from romexp.api import checks
from romexp.api.methods import model_override
from romexp.compose import compose_config
from romexp.errors import ConfigError, raise_first_error
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.lm.precision import in_own_precision
from romexp.reporting.figures.traces import prompt_heatmap
from romexp.tracing.noise import Noise, make_noise
from romexp.tracing.partners import sentence_partner
from romexp.tracing.prompt import prepare_prompts
from romexp.tracing.rows import to_row
from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PromptTrace:
    """A causal trace of one prompt (paper §2; docs/method.md §2).

    Attributes:
        row: what a run of `task=trace` would store: tokens, the subject's range, the answer, grids (tokens × layers).
        model: the model's name.
        window: layers restored together for MLPs and attention.
        noise: what the subject's embeddings were corrupted by; empty if another subject took its place.
    """

    row: Mapping[str, Any]
    model: str
    window: int
    noise: str

    @property
    def answer(self) -> str:
        """The model's most likely next token."""
        return str(self.row["answer"])

    @property
    def total_effect(self) -> float:
        """P(answer), or another metric, with the subject intact minus with it corrupted; for a divergence reversed."""
        return total_effect(self.row)

    def to_frame(self) -> pd.DataFrame:
        """One line for each restored state.

        Columns: `kind`, `layer`, `position`, `token`, `subject` (whether the token is one of the subject's),
        `probability` of the answer, and `effect`, that probability minus the one with nothing restored. In another
        setting than the paper's, `score` stands in the place of `probability`, and an effect is positive where a
        restored state takes the metric towards the clean run, or a corrupted one away from it.
        """
        begin, end = self.row["subject_range"]
        setting = self.row.get("setting") or {}
        base, score_name = self.row[base_name(setting)], "score" if setting else "probability"
        lines = [
            {
                "kind": kind,
                "layer": layer,
                "position": position,
                "token": self.row["tokens"][position],
                "subject": begin <= position < end,
                score_name: score,
                "effect": None if score is None else sign(setting) * (score - base),
            }
            for kind in KINDS
            for position, scores in enumerate(self.row.get(kind) or [])
            for layer, score in enumerate(scores)
        ]
        return pd.DataFrame(lines)

    def plot(self) -> Figure:
        """The heat maps: token by layer, a panel a kind, the subject's tokens starred.

        Raises:
            ConfigError: the tracer restored nothing.
        """
        figure = prompt_heatmap(self.row, window=self.window, model=self.model)
        if figure is None:
            raise ConfigError("tracer.kinds: nothing was restored, so there is nothing to plot")
        return figure

    def __repr__(self) -> str:
        high, low, setting = self.row["high_score"], self.row["low_score"], self.row.get("setting") or {}
        measure = metric_title(setting) if setting else "P"
        return (
            f"<trace of {self.row['prompt']!r} in {self.model}: {self.answer.strip()!r} with {measure} {high:.3f}, "
            f"{low:.3f} where {self.row['subject']!r} is corrupted>"
        )

    def _repr_html_(self) -> str:
        picture = BytesIO()
        self.plot().savefig(picture, format="png", dpi=110)
        data = base64.b64encode(picture.getvalue()).decode("ascii")
        said = html.escape(repr(self)[1:-1])
        return f'<p>{said}</p><img alt="{said}" style="max-width: 100%" src="data:image/png;base64,{data}">'


@in_own_precision
def trace(
    lm: LanguageModel,
    prompt: str,
    *,
    subject: str,
    partner: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PromptTrace:
    """Corrupt the subject, restore one state at a time, and see where that brings the answer back.

    Args:
        lm: a model of `romexp.load`.
        prompt: a text that ends before its answer, as `Selus Dunwood plays the`.
        subject: a part of it.
        partner: for `settings={"corruption": "str"}`, another subject of as many tokens, which takes its place.
        settings: fields of the tracer to change (config group `tracer`), as `{"window": 5, "samples": 20}`. The noise
            `s3` is three times the deviation of the embeddings of the shipped data set's subjects, as for
            `romexp task=trace prompt=… subject=…`; a number is a fixed deviation.

    Raises:
        ConfigError: an argument is not what was expected.
        DataError: the partner cannot take the subject's place.
        RecordError: the subject is not in the prompt, or the prompt is too long for the model.
    """
    checks.model(lm)
    fact = KnownFact(
        known_id=0, subject=checks.text(subject, "subject"), attribute="", prompt=checks.text(prompt, "prompt")
    )
    config = compose_config(["task=trace", *model_override(lm)])
    tracer: Tracer = checks.with_settings(instantiate(config.tracer), settings or {}, "tracer")
    (prepared,) = raise_first_error(prepare_prompts(lm, [fact.prompt], [fact.subject]))
    noise: Noise | None = None
    if tracer.corruption == "str":
        if partner is None:
            raise ConfigError("partner: corruption=str needs another subject that takes the place of the subject")
        prepared = sentence_partner(lm, prepared, checks.text(partner, "partner"))
    elif partner is not None:
        raise ConfigError('partner goes with settings={"corruption": "str"}')
    else:
        facts, corpus = instantiate(config.dataset), instantiate(config.task.corpus)
        noise = make_noise(lm, tracer.noise, subjects=facts.subjects(), corpus=corpus.texts())
    (found,) = tracer(lm, [prepared], noise=noise, seeds=[1])
    row = to_row(lm, fact, prepared, found, None, setting=tracer.setting)
    return PromptTrace(row=row, model=lm.name, window=tracer.width, noise=noise.describe() if noise else "")
