"""The networks that the ROME authors publish, as a config object that fetches them (docs/method.md §4.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT_URL = "https://rome.baulab.info/data/weights"


@dataclass(frozen=True, kw_only=True)
class PublishedNetworks:
    """Files on the authors' server: `mend-10tok-gpt2-xl.pt`, `efk-1tok-gpt2-xl.pt` and others.

    Attributes:
        fetch: given a URL, the file on this machine, downloaded if need be (`romexp.data.download.Fetcher`).
        root_url: where the files are; a mirror serves as well.
    """

    fetch: Callable[[str], Path]
    root_url: str = ROOT_URL

    def locate(self, name: str) -> Path:
        """The file of this name on this machine.

        Raises:
            DataError: whatever `fetch` says of a failed download.
        """
        return self.fetch(f"{self.root_url.rstrip('/')}/{name}")
