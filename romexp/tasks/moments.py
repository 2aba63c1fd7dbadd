"""Second moments for the editors of a run, which its manifest names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from romexp.cli.progress import Report
from romexp.cli.sweep_layers import layers_of_sweep
from romexp.lm.model import LanguageModel
from romexp.stats.covariance import Covariance
from romexp.stats.moment_source import MomentSource
from romexp.stats.second_moment import SecondMoment
from romexp.stats.token_counts import measured_on
from romexp.tasks.run import Run


def second_moments(run: Run, covariance: Covariance, lm: LanguageModel, *, report: Report) -> MomentSource:
    """The second moments of `covariance`. The manifest notes of each that is used what it was measured on.

    A pass over the texts also measures the layers that later jobs of the same sweep need.

    Args:
        report: is called with the numbers of texts done and in all while moments are measured.
    """
    used: dict[str, Any] = {}

    def load(layers: Sequence[int]) -> dict[int, SecondMoment]:
        sweep = run.job.sweep
        to_come = layers_of_sweep(sweep.folder if sweep else None, run.job.overrides, n_layers=lm.n_layers)
        found = covariance.moments(lm, layers, also=to_come, progress=report)
        used.update({str(layer): measured_on(moment) for layer, moment in found.items()})
        run.manifest["second_moments"] = used
        run.folder.write("manifest", run.manifest)  # written at once, so that it is there if the run is killed
        return found

    return MomentSource(load=load)
