"""Target values of many requests: optimized batch by batch, and kept on disk (docs/method.md §12.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from romexp.editors.values.bucket import Place, at_lookups, make_buckets
from romexp.editors.values.optimize import Trajectory, ValueSettings, optimize_values
from romexp.editors.values.texts import EditText
from romexp.files import code_digest
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors

CODE = ("lm", "editors/values", "editors/targets.py")
"""Parts of the package whose code decides a target value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetValues:
    """Target values of some requests.

    Attributes:
        initial: v_0 (requests × parts × d), float32.
        delta: δ (requests × parts × d), float32.
        trajectories: the losses of each request.
    """

    initial: torch.Tensor
    delta: torch.Tensor
    trajectories: tuple[Trajectory, ...]

    @property
    def values(self) -> torch.Tensor:
        """v_0 + δ (requests × parts × d)."""
        return self.initial + self.delta


@dataclass(frozen=True, kw_only=True)
class ValueFinder:
    """Finds target values.

    Attributes:
        layer: the layer in which δ is added.
        place: the states to which δ is added.
        settings: of the optimization.
        batch_size: number of requests that are optimized together. It affects results only by rounding.
        cache_dir: where found values are kept; None keeps none. A file holds the values of one batch, under a key made
            of everything that affects them. So a run that was killed finds the batches that it had finished, and runs
            that differ only in how they write the values share them.
        edited_by: digest of the edit that the model's weights hold; empty for the model as it was loaded.
    """

    layer: int
    place: Place
    settings: ValueSettings
    batch_size: int
    cache_dir: Path | None
    edited_by: str = ""

    def __call__(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]]) -> TargetValues:
        """The target values of some requests, at least one.

        Args:
            texts: of each request the rewriting texts, one per template, and the KL text (`edit_texts`).
        """
        size = self.batch_size
        batches = [self._kept(lm, texts[start : start + size]) for start in range(0, len(texts), size)]
        return TargetValues(
            initial=torch.cat([batch.initial for batch in batches]),
            delta=torch.cat([batch.delta for batch in batches]),
            trajectories=tuple(trajectory for batch in batches for trajectory in batch.trajectories),
        )

    def _kept(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]]) -> TargetValues:
        """The values of one batch, from the cache if they are there."""
        numbered = [[replace(text, request=i) for text in row] for i, row in enumerate(texts)]
        if self.cache_dir is None:
            return self._found(lm, numbered)
        path = self.cache_dir / "target_values" / f"{self._key(lm, numbered)}.safetensors"
        if (known := _read(path)) is not None:
            return TargetValues(
                initial=known.initial.to(lm.device), delta=known.delta.to(lm.device), trajectories=known.trajectories
            )
        found = self._found(lm, numbered)
        trajectories = json.dumps([asdict(trajectory) for trajectory in found.trajectories])
        tensors = {"initial": found.initial, "delta": found.delta}
        write_tensors(path, tensors, {"trajectories": trajectories})
        return found

    def _found(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]]) -> TargetValues:
        flat = [text for row in texts for text in row]
        buckets = make_buckets(lm, flat, layer=self.layer, place=self.place)
        initial = at_lookups(buckets, n_requests=len(texts), n_templates=len(texts[0]) - 1).initial
        delta, trajectories = optimize_values(lm, buckets, initial, settings=self.settings)
        return TargetValues(initial=initial, delta=delta, trajectories=tuple(trajectories))

    def _key(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]]) -> str:
        depends_on: Mapping[str, Any] = {
            "model": lm.cache_key,
            "edited_by": self.edited_by,
            "layer": self.layer,
            "place": self.place,
            "settings": asdict(self.settings),
            "texts": [asdict(text) for row in texts for text in row],
            "code": code_digest(CODE),
        }
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:24]


def _read(path: Path) -> TargetValues | None:
    """The values in a file; None if there is no such file, or it is damaged and must be written again."""
    if not path.is_file():
        return None
    try:
        metadata, tensors = read_tensors(path)
        trajectories = tuple(Trajectory(**losses) for losses in json.loads(metadata["trajectories"]))
        return TargetValues(initial=tensors["initial"], delta=tensors["delta"], trajectories=trajectories)
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None
