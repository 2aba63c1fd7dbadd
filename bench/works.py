"""The works of the overview: what is run, what one unit of it is, and the authors' code for the same where it is known.

Everything is run by the other modules of this folder, and so as they do.
"""

from __future__ import annotations

import trace as traces
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import kn
import ours
import torch
from models import BenchModel
from reference import authors
from reference_trace import authors_tracer
from timing import Stopwatch
from workload import SEED, Variant, Workload

from romexp.api.methods import editor_for
from romexp.editors.contexts import context_templates
from romexp.editors.finetune import FineTune
from romexp.editors.kn.texts import attributed_texts, fact_texts
from romexp.editors.learned.factors import edit_factors
from romexp.editors.learned.network_editor import NetworkEditor
from romexp.editors.rome.editor import Rome
from romexp.editors.targets import edit_text
from romexp.errors import raise_first_error
from romexp.evaluation.zsre import ZsreEvaluator
from romexp.lm.sampling import Sampler
from romexp.minifact import assets
from romexp.stats.fit import fit
from romexp.stats.memory import largest_key_width
from romexp.tracing.noise import embedding_std
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.tracer import Tracer

NOT_TIMED = "the authors' code is not timed for this work"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of each work is run.

    Attributes:
        records: records that are edited, together and one batch.
        facts: facts that are traced.
        samples: noise samples of a trace.
        text_tokens: tokens of a generated text, the prompt included.
        moment_tokens: tokens that a second moment is measured on.
    """

    records: int = 4
    facts: int = 1
    samples: int = 10
    text_tokens: int = 50
    moment_tokens: int = 4096


@dataclass(frozen=True, kw_only=True)
class Work:
    """One work on one model, ready to run.

    Attributes:
        unit: what a row's seconds are for.
        count: number of units in one run.
        run: does it once.
        authors: does the same once by the authors' code; None if that cannot be had.
        note: why it cannot.
    """

    unit: str
    count: int
    run: Callable[[], object]
    authors: Callable[[], object] | None = None
    note: str = ""


Maker = Callable[[BenchModel, Sizes, Path | None], Work]


def edits(model: BenchModel, sizes: Sizes, reference: Path | None, *, editor: str) -> Work:
    """Edits of records, and the NLLs of both targets after all their prompts on the edited model."""
    work = _workload(model, sizes, editor)
    own, other = ours.batched(sizes.records), _authors(model, work, reference)
    return Work(
        unit="record",
        count=len(work.cases),
        run=lambda: own.edit(work, _watch(model)),
        authors=None if other is None else lambda: other.edit(work, _watch(model)),
    )


def texts(model: BenchModel, sizes: Sizes, reference: Path | None) -> Work:
    """Texts of the generation prompts of edited records."""
    work = _workload(model, sizes, "ft")
    own, other = ours.batched(sizes.records), _authors(model, work, reference)
    deltas = own.edit(work, _watch(model)).deltas

    def generate(variant: Variant) -> object:
        assert variant.generate is not None
        return variant.generate(work, deltas, _watch(model))

    return Work(
        unit="text",
        count=sum(len(case.generation_prompts) for case in work.cases),
        run=partial(generate, own),
        authors=None if other is None else partial(generate, other),
    )


def trace(model: BenchModel, sizes: Sizes, reference: Path | None) -> Work:
    """Causal traces of the three kinds of state, without severed curves."""
    lm, facts = model.lm, model.facts()
    scale = 3 * embedding_std(lm, [fact.subject for fact in facts])
    chosen = facts[: sizes.facts]
    prepared = prepare_prompts(lm, [f.prompt for f in chosen], [f.subject for f in chosen])
    prompts = [prompt for prompt in prepared if isinstance(prompt, TracedPrompt)]
    tracer, theirs = Tracer(window=min(10, lm.n_layers), samples=sizes.samples, severed=False), None
    if reference is not None:
        window = min(10, lm.n_layers)
        grids = authors_tracer(reference, lm, path=model.path, window=window, samples=sizes.samples, scale=scale)
        theirs = partial(grids, prompts)
    run = partial(traces.ours, lm, prompts, tracer, scale)
    return Work(unit="fact", count=len(prompts), run=run, authors=theirs)


def moments(model: BenchModel, sizes: Sizes, reference: Path | None) -> Work:
    """The second moments of all layers in one pass."""
    texts = assets.corpus_path().read_text(encoding="utf-8").splitlines()
    layers = range(model.lm.n_layers) if largest_key_width(model.lm) < 4096 else [0]

    def run() -> object:
        return fit(
            model.lm,
            iter(texts),
            layers,
            max_tokens=64,
            batch_tokens=1024,
            total_tokens=sizes.moment_tokens,
        )

    return Work(unit="1,000 tokens", count=sizes.moment_tokens // 1000, run=run, note=_not_timed(reference))


def neurons(model: BenchModel, sizes: Sizes, reference: Path | None) -> Work:
    """Knowledge Neurons' attribution scores of all neurons."""
    requests = [case.request for case in model.cases(max(1, sizes.records // 2))]
    facts = fact_texts(model.lm, requests, ["{}"], leading_space=True, extend_prompt=False)
    found = [text for ((text,),) in attributed_texts(model.lm, raise_first_error(facts), extend_prompt=False)]
    return Work(
        unit="record",
        count=len(found),
        run=lambda: kn.ours(model.lm, found, 20, _watch(model)),
        note=_not_timed(reference),
    )


def network(model: BenchModel, sizes: Sizes, reference: Path | None, *, editor: str) -> Work:
    """Edits by MEND or KE. A network without training costs what a trained one does."""
    chosen: Any = editor_for(model.lm, editor)
    assert isinstance(chosen, NetworkEditor)
    net = chosen.new_network(model.lm, seed=0)
    requests = [case.request for case in model.cases(sizes.records)]
    found = [edit_text(model.lm, request.text, request.target_new) for request in requests]

    def run() -> object:
        with torch.no_grad():
            return net(edit_factors(model.lm, found, net.edited))

    run()  # in training mode, from which MEND has the means by which it normalizes
    net.eval()
    return Work(unit="record", count=len(found), run=run, note=_not_timed(reference))


def zsre(model: BenchModel, sizes: Sizes, reference: Path | None) -> Work:
    """zsRE's measurements of the unedited model."""
    cases = model.cases(4 * sizes.records, zsre=True)
    run = partial(ZsreEvaluator(), model.lm, cases, deltas=[None] * len(cases), seed=SEED)
    return Work(unit="record", count=len(cases), run=run, note=_not_timed(reference))


WORKS: Mapping[str, Maker] = {
    "edit": partial(edits, editor="rome"),
    "ft": partial(edits, editor="ft"),
    "trace": trace,
    "generation": texts,
    "moments": moments,
    "kn": neurons,
    "mend": partial(network, editor="mend"),
    "ke": partial(network, editor="ke"),
    "zsre": zsre,
}
"""By name, what prepares a work on a model. It raises an error where the work cannot be done with it."""


def _workload(model: BenchModel, sizes: Sizes, name: str) -> Workload:
    """As `bench/edit.py` makes it, with the settings for this model. ROME edits without C, which takes no time."""
    editor: Any = editor_for(model.lm, name)
    layer = min(editor.layer if isinstance(editor.layer, int) else model.lm.n_layers // 2, model.lm.n_layers - 1)
    templates: tuple[str, ...] = ("{}",)
    if isinstance(editor, Rome):
        lengths = editor.context_template_length_params
        templates = context_templates(model.lm, given=None, length_counts=lengths, seed=SEED, cache_dir=None)
        editor = replace(editor, layer=layer, context_templates=templates, mom2_adjustment=False)
    else:
        assert isinstance(editor, FineTune)
        editor = replace(editor, layer=layer)
    return Workload(
        lm=model.lm,
        cases=model.cases(sizes.records),
        editor=editor,
        templates=templates,
        moment=None,
        sampler=Sampler(max_length=sizes.text_tokens),
    )


def _not_timed(reference: Path | None) -> str:
    return "" if reference is None else NOT_TIMED


def _authors(model: BenchModel, work: Workload, reference: Path | None) -> Variant | None:
    return None if reference is None else authors(reference, work, path=model.path)


def _watch(model: BenchModel) -> Stopwatch:
    """The variants want one; the overview has its own."""
    return Stopwatch(model.lm.device)
