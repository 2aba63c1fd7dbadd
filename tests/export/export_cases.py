"""Tiny models on disk, and edits of them, for exports."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import make_tiny

from romexp.export.gather import FoundEdit
from romexp.facts import EditRequest
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.saved_edit import ModelOrigin, SavedEdit
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta

REQUESTS = (
    EditRequest(subject="Anna", prompt="{} plays the", target_new="violin", target_true="piano"),
    EditRequest(subject="Steve Jobs", prompt="{} was the founder of", target_new="Paris"),
    EditRequest(subject="The Eiffel Tower", prompt="{} is located in", target_new="Zürich"),
)
RANKS = (1, 3, 1)
SCALE = 0.15


def on_disk(folder: Path, family: str, *, dtype: str = "float32", bos: bool = False) -> LanguageModel:
    """A tiny random model, loaded from a folder of its own."""
    lm = make_tiny(family, bos=bos)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return PretrainedModel(path=folder, device="cpu", dtype=dtype).load()


def found(lm: LanguageModel, i: int, terms: dict[str, Term]) -> FoundEdit:
    origin = ModelOrigin.of(lm, source=str(lm.model.config.name_or_path))
    saved = SavedEdit(delta=WeightDelta(terms=terms), request=REQUESTS[i], method="ROME", model=origin)
    return FoundEdit(saved=saved)


def low_rank_edits(lm: LanguageModel) -> list[FoundEdit]:
    """Three edits: two of one weight, of different ranks, and one of a weight in another layer; all visible in NLLs."""
    edits = []
    for i, (layer, rank) in enumerate(zip((1, 1, 2), RANKS, strict=True)):
        name = f"{lm.architecture.mlp_out_name(layer)}.weight"
        n_in, n_out = weight_in_out(lm, name).shape
        term = LowRank(left=torch.randn(n_in, rank) * SCALE, right=torch.randn(n_out, rank) * SCALE)
        edits.append(found(lm, i, {name: term}))
    return edits


def dense_edit(lm: LanguageModel, *, i: int = 0) -> FoundEdit:
    """What fine-tuning gives: a whole weight, and its bias if there is one."""
    module = lm.architecture.mlp_out_name(1)
    names = [name for name, _ in lm.module(module).named_parameters()]
    shapes = {f"{module}.{name}": weight_in_out(lm, f"{module}.{name}").shape for name in names}
    return found(lm, i, {name: Dense(value=torch.randn(shape) * SCALE) for name, shape in shapes.items()})


@torch.no_grad()
def logits_of(model: object, lm: LanguageModel) -> torch.Tensor:
    """Logits of the edited prompts, one below the other, by plain transformers."""
    texts = [lm.tokenizer(request.text)["input_ids"] for request in REQUESTS]
    return torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in texts])  # type: ignore[operator]
