"""Who hears of a training run: a bar, curves on disk, the tracker, and the file of the best network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from romexp.cli.progress import Report
from romexp.editors.learned import checkpoint
from romexp.editors.learned.base import EditNetwork
from romexp.results.rows import Curves
from romexp.tracking import TrackedRun


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """Where the best network lies, and what is said about it there."""

    path: Path
    dtype: torch.dtype
    facts: Mapping[str, Any]

    def write(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        kept = copy.deepcopy(network)
        for parameter in kept.parameters():  # not the statistics, whose sums half precision cannot hold
            parameter.data = parameter.data.to(self.dtype)
        checkpoint.save(kept, self.path, metadata=dict(self.facts) | {"validation": dict(values)})


@dataclass(frozen=True, kw_only=True)
class TrainingReports:
    """Bar, curves on disk, tracker, and the file of the best network."""

    report: Report
    curves: Curves
    tracked: TrackedRun
    file: NetworkFile

    def progress(self, step: int, steps: int) -> None:
        self.report(step, steps)

    def values(self, values: Mapping[str, float]) -> None:
        self.curves.append(values)
        self.tracked.log(values)

    def best(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        self.file.write(network, values)
