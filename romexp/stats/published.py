"""The statistics that the ROME authors publish: their names, and a config object that fetches them (SPEC §3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT_URL = "https://rome.baulab.info/data/stats"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Second moments that the authors measured, one `.npz` a layer (164 MB for GPT-2 XL, 1.1 GB for GPT-J).

    They know only these two models, on 100,000 articles of the English Wikipedia of May 2020, summed in float32.

    Attributes:
        model: the model's folder on their server, `gpt2-xl` or `EleutherAI_gpt-j-6B` (`/` of a hub id becomes `_`).
        fetch: given a URL, the file on this machine, downloaded if need be (`romexp.data.fetcher.Fetcher`).
        corpus: `wikipedia`, or `wikitext`, for which nothing is known to be published.
        dtype: type of the sums, part of the name.
        sample_size: articles, part of the name.
        root_url: where the folders are; a mirror of them serves as well.
    """

    model: str
    fetch: Callable[[str], Path]
    corpus: str = "wikipedia"
    dtype: str = "float32"
    sample_size: int = 100_000
    root_url: str = ROOT_URL

    def file_name(self, module: str) -> str:
        """Path below `root_url`; `module` is the layer's second MLP matrix, `transformer.h.17.mlp.c_proj`."""
        return published_name(
            model=self.model, module=module, corpus=self.corpus, dtype=self.dtype, sample_size=self.sample_size
        )

    def locate(self, module: str) -> Path:
        """The module's file on this machine.

        Raises:
            DataError: whatever `fetch` says of a failed download.
        """
        return self.fetch(f"{self.root_url.rstrip('/')}/{self.file_name(module)}")


def published_name(
    *, model: str, module: str, corpus: str = "wikipedia", dtype: str = "float32", sample_size: int = 100_000
) -> str:
    """The authors' file name.

    >>> published_name(model="gpt2-xl", module="transformer.h.17.mlp.c_proj")
    'gpt2-xl/wikipedia_stats/transformer.h.17.mlp.c_proj_float32_mom2_100000.npz'
    """
    return f"{model.replace('/', '_')}/{corpus}_stats/{module}_{dtype}_mom2_{sample_size}.npz"
