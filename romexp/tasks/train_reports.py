"""Where a training run reports to: a progress bar, curves on disk, the tracker, and the file of the best network."""

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
    """The file of the best network.

    Attributes:
        path: the file.
        dtype: type in which the weights are stored.
        facts: entries of the file's metadata.
    """

    path: Path
    dtype: torch.dtype
    facts: Mapping[str, Any]

    def write(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        """Write the network, with its validation values in the metadata."""
        kept = copy.deepcopy(network)
        for parameter in kept.parameters():  # statistics are no parameters: float16 cannot hold their sums
            parameter.data = parameter.data.to(self.dtype)
        checkpoint.save(kept, self.path, metadata=dict(self.facts) | {"validation": dict(values)})


@dataclass(frozen=True, kw_only=True)
class TrainingReports:
    """Passes progress to a bar, values to the curves and the tracker, and the best network to its file."""

    report: Report
    curves: Curves
    tracked: TrackedRun
    file: NetworkFile

    def progress(self, step: int, steps: int) -> None:
        self.report(step, steps)

    def values(self, values: Mapping[str, float]) -> None:
        self.curves.append(values)
        curves = {name: value for name, value in values.items() if name != "step"}
        self.tracked.log(curves, step=int(values["step"]))

    def best(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        self.file.write(network, values)
