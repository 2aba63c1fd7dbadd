"""The printed values of AlphaEdit's table of sequences of edits (docs/method.md §13.5)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

DATA = Path(__file__).with_name("published_lifelong.yaml")


@lru_cache
def published_sequences(*, model: str, dataset: str, edits: int, step: int) -> Mapping[str, Mapping[str, float]]:
    """The values by editor and metric, in %; the unedited model is the editor `none`. Empty unless model, data, number
    of edits and step are those of the table.

    Args:
        model: option name of the model.
        dataset: option name of the data set.
    """
    table: Any = OmegaConf.to_container(OmegaConf.load(DATA))
    part = table.get(dataset)
    if (edits, step) != (table["edits"], table["step"]) or not isinstance(part, dict):
        return {}
    found = {}
    for line in part["models"].get(model, "").splitlines():
        editor, _, values = line.partition("|")
        name = "none" if editor.strip() == "-" else editor.strip()
        found[name] = dict(zip(part["columns"], map(float, values.split()), strict=True))
    return found
