"""The printed values of the paper: Tables 1, 4, 5 and 6, and the causal effects of GPT-2 XL (docs/method.md §8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf

from romexp.analysis.metrics import Kind, columns_of
from romexp.analysis.summary import harmonic_mean

DATA = Path(__file__).with_name("published_tables.yaml")
TABLES = (1, 4, 5, 6)

MODEL_NAMES: Mapping[str, str] = {
    "gpt2-medium": "GPT-2 M", "gpt2-large": "GPT-2 L", "gpt2-xl": "GPT-2 XL", "gpt-j-6b": "GPT-J",
}  # fmt: skip
"""The names of the models in the paper, by option name."""


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """A printed mean and its 95 % half-width, with one decimal. S has no half-width in the paper, so it is None."""

    mean: float
    half_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a table.

    Attributes:
        editor: option name of the editor; empty for the unedited model.
        label: the printed label.
        values: the values by metric. Tables 1 and 6 do not print S, so it is computed from the three printed means.
    """

    editor: str
    label: str
    values: Mapping[str, PublishedValue]


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model's part of a table.

    Attributes:
        model: option name of the model.
        records: the number of records. They are the first ones of the data set.
        rows: the rows in the paper's order. The unedited model is the first.
    """

    model: str
    records: int
    rows: tuple[PublishedRow, ...]

    def row(self, editor: str) -> PublishedRow | None:
        """The editor's row; None if the table has none."""
        return next((row for row in self.rows if row.editor == editor), None)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of the paper; `kind` is also the data set's option name."""

    number: int
    title: str
    kind: Kind
    models: tuple[PublishedModel, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Metrics in the paper's order."""
        return columns_of(self.kind)

    def model(self, name: str) -> PublishedModel | None:
        """A model's part; None if the table has none."""
        return next((model for model in self.models if model.model == name), None)


@lru_cache
def published_table(number: int) -> PublishedTable:
    """The table with this number, which is one of `TABLES`."""
    table: Any = OmegaConf.to_container(OmegaConf.load(DATA))[number]  # type: ignore[index, call-overload]
    kind: Kind = table["dataset"]
    return PublishedTable(
        number=number,
        title=table["title"],
        kind=kind,
        models=tuple(
            PublishedModel(
                model=name,
                records=model["records"],
                rows=tuple(_row(line, kind) for line in model["rows"].splitlines()),
            )
            for name, model in table["models"].items()
        ),
    )


def _row(line: str, kind: Kind) -> PublishedRow:
    editor, label, printed = (part.strip() for part in line.split("|"))
    values = [
        PublishedValue(mean=float(mean), half_width=float(half) if half else None)
        for mean, half in re.findall(r"(-?\d+\.\d)(?: \((\d+\.\d)\))?", printed)
    ]
    if kind == "zsre":
        values.insert(0, PublishedValue(mean=harmonic_mean(value.mean for value in values)))
    names = columns_of(kind)
    return PublishedRow(
        editor="" if editor == "-" else editor,
        label=label,
        values=MappingProxyType(dict(zip(names, values, strict=True))),
    )


@dataclass(frozen=True, kw_only=True)
class PublishedTrace:
    """Average effects of causal tracing, in %. Layers count from 0.

    Attributes:
        facts: the number of traced facts.
        high: probability of the answer in the clean run.
        low: probability of the answer in the corrupted run.
        ate: average total effect.
        hidden: highest average indirect effect of a hidden state at the last subject token, and its layer.
        mlp: highest average indirect effect of a window of MLPs there, and the layer at the window's centre.
        attn: highest average indirect effect of a window of attention there. The paper does not give its layer.
        tracer: the settings that a trace must have to be compared with these values.
    """

    facts: int
    high: float
    low: float
    ate: float
    hidden: tuple[float, int]
    mlp: tuple[float, int]
    attn: tuple[float, None]
    tracer: Mapping[str, Any]


PUBLISHED_TRACES: Mapping[str, PublishedTrace] = {
    "gpt2-xl": PublishedTrace(
        facts=1000,
        high=27.0,
        low=8.47,
        ate=18.6,
        hidden=(8.7, 15),
        mlp=(6.6, 17),
        attn=(1.6, None),
        tracer=MappingProxyType({"noise": "s3", "samples": 10, "window": 10, "replace": False, "extra_token": 0}),
    )
}
