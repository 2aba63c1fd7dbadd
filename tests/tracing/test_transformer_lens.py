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
    begin, end = prompt.subject_range
    noise = Gaussian(scale=0.1).draw(np.random.RandomState(1), (SAMPLES, end - begin, lm.hidden_size))
    change = corrupt([prompt], [noise], samples=SAMPLES, extra_token=0, replace=False)
    clean = clean_run(lm, [prompt], KINDS)
    metric = make_metric(lm, "probability", [prompt], clean.last)
    copies = corrupted_run(lm, [prompt], change, metric=metric, samples=SAMPLES, kinds=KINDS)
    recorder = _Recorder(metric)
    resume = Resumption(
        lm=lm,
        prompts=[prompt],
        base=copies,
        metric=recorder,
        max_batch_tokens=4096,  # type: ignore[arg-type]
    )
    last = len(prompt.ids) - 1
    cells = [
        (kind, token, layer)
        for kind in KINDS
        for token in (end - 1, last)
        for layer in range(lm.n_layers)
        if token == last or layer < lm.n_layers - 1
    ]
    for kind, token, layer in cells:
        resume([replacement(resume, clean, [Cell(prompt=0, token=token)], kind, (layer,))])
    found = slopes(lm, [prompt], change, metric=metric, samples=SAMPLES, kinds=KINDS)
    asked = {
        "folder": str(folder),
        "ids": list(prompt.ids),
        "subject": [begin, end],
        "noise": noise.tolist(),
        "cells": cells,
        "answer": prompt.answer,
        "n_layers": lm.n_layers,
    }
    program = Path(__file__).with_name("transformer_lens_runs.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(PYTHON), str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(recorder.seen) == len(cells)
    for ours, other in zip(recorder.seen, theirs["logits"], strict=True):
        assert torch.allclose(ours, torch.tensor(other), atol=1e-4, rtol=1e-5)
    assert (recorder.seen[0] - recorder.seen[-1]).abs().max() > 1e-2  # control: cells differ
    for kind in KINDS:
        estimates = torch.tensor(theirs["estimates"][kind]).T
        effects = estimated_effects(found, copies, clean, kind)[0]
        assert torch.allclose(effects, estimates, atol=1e-5, rtol=1e-3)
        assert effects.abs().max() > 1e-4  # control
