"""The models of the overview, each with records to edit and facts to trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from transformers import GPT2Config, GPT2LMHeadModel

import romexp
from romexp.api.models import LoadedModel
from romexp.compose import compose_config
from romexp.facts import Case, KnownFact

SMALL = "gpt2-small-shape"


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchModel:
    """A model and its data.

    Attributes:
        lm: the model.
        path: a folder that transformers alone can load it from.
        data: the options of the config group `dataset` for editing, for zsRE and for tracing.
    """

    lm: LoadedModel
    path: str
    data: tuple[str, str, str]

    def cases(self, count: int, *, zsre: bool = False) -> tuple[Case, ...]:
        """The first records."""
        return tuple(romexp.dataset(self.data[1 if zsre else 0], limit=count))

    def facts(self) -> Sequence[KnownFact]:
        """All facts that the model may be traced on."""
        source: Any = instantiate(compose_config(["task=trace", f"dataset={self.data[2]}"]).dataset)
        found: Sequence[KnownFact] = source.load().items
        return found


MINIFACT = ("minifact", "minifact_zsre", "minifact_known")
WORLD = ("world", "world_zsre", "world_known")


def _minifact(device: str, folder: Path) -> BenchModel:
    lm = romexp.load("minifact", device=device)
    return BenchModel(lm=lm, path=lm.model.name_or_path, data=MINIFACT)


def _gpt2_small(device: str, folder: Path) -> BenchModel:
    """12 layers of 768, with random weights and minifact's tokenizer: what passes cost does not depend on weights."""
    lm = romexp.load("minifact", device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config())
    path = folder / SMALL
    model.save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    loaded = romexp.load(path, device=device, name=SMALL)
    return BenchModel(lm=loaded, path=str(path), data=MINIFACT)


def _smollm2(device: str, folder: Path) -> BenchModel:
    lm = romexp.load("smollm2", device=device)
    return BenchModel(lm=lm, path=lm.model.name_or_path, data=WORLD)


MODELS: dict[str, Callable[[str, Path], BenchModel]] = {
    "minifact": _minifact,
    SMALL: _gpt2_small,
    "smollm2": _smollm2,
}
"""By name, what loads a model onto a device; the folder is for weights that are made here."""
