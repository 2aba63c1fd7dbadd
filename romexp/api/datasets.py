"""Data sets of cases to edit, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from pydantic import ValidationError

from romexp.api import checks
from romexp.compose import check_option, compose_config
from romexp.data.counterfact import CounterFact
from romexp.data.dataset import Loaded
from romexp.data.facts_file import FactsFile
from romexp.data.hub_records import is_hub_address
from romexp.data.record_stream import stream_records
from romexp.errors import ConfigError, DataError, RecordError
from romexp.evaluation.base import Evaluator
from romexp.facts import Case
from romexp.references import ReferenceSource


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CaseSet:
    """Cases of one data set, with the way they are measured.

    Attributes:
        loaded: the cases, and the records that were set aside, with the reason.
        evaluator: what measures them.
        references: texts that generations are compared with.
    """

    loaded: Loaded[Case]
    evaluator: Evaluator
    references: ReferenceSource

    def __len__(self) -> int:
        return len(self.loaded.items)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.loaded.items)

    def __getitem__(self, index: int) -> Case:
        return self.loaded.items[index]

    def to_frame(self) -> pd.DataFrame:
        """One line for each case: subject, prompt, both targets, and how many prompts of each kind judge it."""
        return pd.DataFrame(
            {
                "case_id": case.case_id,
                "subject": case.request.subject,
                "prompt": case.request.prompt,
                "target_true": case.request.target_true,
                "target_new": case.request.target_new,
                "paraphrases": len(case.paraphrase_prompts),
                "neighbours": len(case.neighborhood_prompts),
            }
            for case in self
        )

    def __repr__(self) -> str:
        aside = f", {len(self.loaded.rejected)} records set aside" if self.loaded.rejected else ""
        return f"<{self.loaded.name}: {len(self)} cases{aside}>"

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()  # type: ignore[operator, no-any-return]


def dataset(name: str | Path, *, limit: int | None = None, offset: int = 0, format: str | None = None) -> CaseSet:
    """Cases to edit.

    Args:
        name: an option of the config group `dataset` (`minifact`, `counterfact`, `zsre`, …); or a file of records, or
            a data set of the Hugging Face hub as `hf://owner/name[/configuration][:split]`.
        limit: the largest number of records; None takes all.
        offset: records left out at the start.
        format: of a file: the option whose schema its records have. None takes `counterfact` if the first record has
            that schema, else `facts`, which knows the usual ones.

    Raises:
        ConfigError: there is no such data set, or it holds facts for tracing instead of cases.
        DataError: the file is missing, cannot be downloaded, or holds no case.
    """
    chosen = checks.text(str(name), "dataset")
    overrides = [f"dataset.limit={'null' if limit is None else checks.at_least(limit, 1, 'limit')}"]
    if offset:
        overrides.append(f"dataset.offset={checks.at_least(offset, 0, 'offset')}")
    path = chosen if is_hub_address(chosen) else str(Path(chosen).expanduser())
    is_file = is_hub_address(path) or Path(path).is_file()
    option = check_option(
        "dataset", (format or _format(path)) if is_file else chosen, called="dataset (no such file, and)"
    )
    config = compose_config([f"dataset={option}", *overrides])
    source: Any = instantiate(config.dataset, path=path) if is_file else instantiate(config.dataset)
    loaded = source.load()
    if not loaded.items:
        raise DataError(f"{loaded.path}: no case to edit")
    if not isinstance(loaded.items[0], Case):
        raise ConfigError(f"dataset {chosen}: holds facts for tracing, not cases to edit")
    return CaseSet(loaded=loaded, evaluator=instantiate(config.evaluator), references=instantiate(config.references))


def _format(path: str) -> str:
    """The option that reads a file of cases, by its first record."""
    first = next(iter(stream_records(FactsFile(path=path).locate())), None)
    try:
        CounterFact().parse(0, first)
    except (RecordError, ValidationError):
        return "facts"
    return "counterfact"
