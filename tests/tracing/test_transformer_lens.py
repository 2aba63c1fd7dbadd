"""Our patched logits and our attribution patching against those of TransformerLens, a tool that no one here wrote.

TransformerLens is no part of the development set-up. The test runs where `ROMEXP_TRANSFORMER_LENS` names a Python that
has it: python -m venv lens; lens/bin/pip install transformer-lens; ROMEXP_TRANSFORMER_LENS=lens/bin/python.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from romexp.lm.forward import logits
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets
from romexp.tracing.attribution import estimated_effects, slopes
from romexp.tracing.base_runs import clean_run, corrupted_run
from romexp.tracing.cells import Cell, Resumption
from romexp.tracing.corruption import corrupt
from romexp.tracing.grids import replacement
from romexp.tracing.metrics import Metric, make_metric
from romexp.tracing.noise import Gaussian
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.tracer import KINDS

PYTHON = os.environ.get("ROMEXP_TRANSFORMER_LENS")
SAMPLES = 3


@dataclass
class _Recorder:
    """Stands for a metric, and keeps the logits from which it would be read."""

    metric: Metric
    seen: list[torch.Tensor] = field(default_factory=list)

    def mean(self, lm: LanguageModel, states: torch.Tensor, prompts: Any, *, samples: int) -> torch.Tensor:
        self.seen.append(logits(lm, states))
        return self.metric.mean(lm, states, prompts, samples=samples)


def folder_of(name: str, tmp_path: Path, factory: Callable[..., LanguageModel]) -> Path:
    if name == "minifact":
        return Path(assets.model_dir())
    lm = factory(name)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What this program makes of one prompt: the logits of each cell, and the estimates of each kind."""

    prompt: TracedPrompt
    noise: torch.Tensor
    cells: list[tuple[str, int, int]]
    logits: list[torch.Tensor]
    estimates: dict[str, torch.Tensor]


def ours(lm: LanguageModel, prompt: TracedPrompt) -> Ours:
    begin, end = prompt.subject_range
    noise = Gaussian(scale=0.1).draw(np.random.RandomState(1), (SAMPLES, end - begin, lm.hidden_size))
    change = corrupt([prompt], [noise], samples=SAMPLES, extra_token=0, replace=False)
    clean = clean_run(lm, [prompt], KINDS)
    metric = make_metric(lm, "probability", [prompt], clean.last)
    copies = corrupted_run(lm, [prompt], change, metric=metric, samples=SAMPLES, kinds=KINDS)
    recorder: Any = _Recorder(metric)
    resume = Resumption(lm=lm, prompts=[prompt], base=copies, metric=recorder, max_batch_tokens=4096)
    last = len(prompt.ids) - 1
    cells: list[tuple[str, int, int]] = [
        (kind, token, layer)
        for kind in KINDS
        for token in (end - 1, last)
        for layer in range(lm.n_layers)
        if token == last or layer < lm.n_layers - 1
    ]
    for kind, token, layer in cells:
        resume([replacement(resume, clean, [Cell(prompt=0, token=token)], kind, (layer,))])  # type: ignore[arg-type]
    found = slopes(lm, [prompt], change, metric=metric, samples=SAMPLES, kinds=KINDS)
    estimates = {kind: estimated_effects(found, copies, clean, kind)[0] for kind in KINDS}
    return Ours(prompt=prompt, noise=noise, cells=cells, logits=recorder.seen, estimates=estimates)


def theirs(folder: Path, asked: Ours, *, n_layers: int) -> dict[str, Any]:
    """The same by TransformerLens, in a process of its own."""
    given = {
        "folder": str(folder),
        "ids": list(asked.prompt.ids),
        "subject": list(asked.prompt.subject_range),
        "noise": asked.noise.tolist(),
        "cells": asked.cells,
        "answer": asked.prompt.answer,
        "n_layers": n_layers,
    }
    done = subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("transformer_lens_runs.py"))],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="ROMEXP_TRANSFORMER_LENS names no Python with TransformerLens")
@pytest.mark.parametrize("name", ["minifact", "gpt2", "llama", "gpt_neox"])
def test_patched_logits_and_estimates_agree(
    name: str, tmp_path: Path, tiny_factory: Callable[..., LanguageModel]
) -> None:
    folder = folder_of(name, tmp_path, tiny_factory)
    lm = PretrainedModel(path=str(folder), device="cpu").load()
    sentence = ("Torus Hartwell has a contract with", "Torus Hartwell")
    if name != "minifact":
        sentence = ("The Space Needle is located in", "Space Needle")
    (prompt,) = prepare_prompts(lm, [sentence[0]], [sentence[1]])
    assert isinstance(prompt, TracedPrompt)
    found = ours(lm, prompt)
    other = theirs(folder, found, n_layers=lm.n_layers)
    assert len(found.logits) == len(found.cells)
    for mine, their in zip(found.logits, other["logits"], strict=True):
        assert torch.allclose(mine, torch.tensor(their), atol=1e-4, rtol=1e-5)
    assert (found.logits[0] - found.logits[-1]).abs().max() > 1e-2  # control: cells differ
    for kind, effects in found.estimates.items():
        assert torch.allclose(effects, torch.tensor(other["estimates"][kind]).T, atol=1e-5, rtol=1e-3)
        assert effects.abs().max() > 1e-4  # control
