"""The models of the overview, each with records to edit and facts to trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from transformers import AutoModelForCausalLM, GPT2Config, GPTJConfig, PretrainedConfig

import romexp
from romexp.api.models import LoadedModel
from romexp.compose import compose_config
from romexp.facts import Case, KnownFact

PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "highest": {},
    "high": {"matmul_precision": "high"},
    "medium": {"matmul_precision": "medium"},
    "bfloat16": {"dtype": "bfloat16"},
}
"""What `romexp.load` is told for each."""
MINIFACT = ("minifact", "minifact_zsre", "minifact_known")
WORLD = ("world", "world_zsre", "world_known")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchModel:
    """A model and its data.

    Attributes:
        lm: the model.
        data: the options of the config group `dataset` for editing, for zsRE and for tracing.
        folder: where weights are written that have no folder of their own.
    """

    lm: LoadedModel
    data: tuple[str, str, str]
    folder: Path

    @cached_property
    def path(self) -> str:
        """A folder from which transformers alone can load the model."""
        if self.lm.source:
            return str(self.lm.model.name_or_path)
        path = self.folder / self.lm.name
        self.lm.model.save_pretrained(path)
        self.lm.tokenizer.save_pretrained(path)
        return str(path)

    def cases(self, count: int, *, zsre: bool = False) -> tuple[Case, ...]:
        """The first records."""
        return tuple(romexp.dataset(self.data[1 if zsre else 0], limit=count))

    def facts(self) -> Sequence[KnownFact]:
        """All facts that the model may be traced on."""
        source: Any = instantiate(compose_config(["task=trace", f"dataset={self.data[2]}"]).dataset)
        found: Sequence[KnownFact] = source.load().items
        return found


def _known(name: str, data: tuple[str, str, str], device: str, folder: Path, settings: Mapping[str, Any]) -> BenchModel:
    """A model that the program knows."""
    return BenchModel(lm=romexp.load(name, device=device, **settings), data=data, folder=folder)


def _shaped(name: str, config: PretrainedConfig, device: str, folder: Path, settings: Mapping[str, Any]) -> BenchModel:
    """Random weights and minifact's tokenizer: what passes cost does not depend on weights."""
    tokenizer = romexp.load("minifact", device="cpu").tokenizer
    dtype = getattr(torch, settings.get("dtype", "float32"))
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    precision = settings.get("matmul_precision", "highest")
    lm = romexp.load(model, tokenizer, name=name, matmul_precision=precision)
    # The digest would be that of gigabytes of random numbers.
    return BenchModel(lm=replace(lm, known_digest=name), data=MINIFACT, folder=folder)


SHAPES = {
    "gpt2-small-shape": GPT2Config(),
    "gpt2-xl-shape": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "gpt-j-shape": GPTJConfig(),
}
Loader = Callable[[str, Path, Mapping[str, Any]], BenchModel]
MODELS: dict[str, Loader] = {
    "minifact": partial(_known, "minifact", MINIFACT),
    "smollm2": partial(_known, "smollm2", WORLD),
    **{name: partial(_shaped, name, config) for name, config in SHAPES.items()},
}
"""By name, what loads a model: it gets the device, a folder for weights, and an entry of `PRECISIONS`."""
USUAL = ("minifact", "gpt2-small-shape", "smollm2")
"""The models of `make bench`. The others are for GPUs."""
