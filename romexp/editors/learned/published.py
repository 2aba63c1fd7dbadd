"""Downloads the trained networks that the ROME authors publish (docs/method.md §4.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from romexp.errors import DataError

ROOT_URL = "https://rome.baulab.info/data/weights"


@dataclass(frozen=True, kw_only=True)
class PublishedNetworks:
    """The files on the authors' server: `mend-10tok-gpt2-xl.pt`, `efk-1tok-gpt2-xl.pt` and others.

    Attributes:
        fetch: downloads the file of a URL, unless it is already on this machine, and returns its path
            (`romexp.data.download.Fetcher`).
        root_url: address of the folder with the files, on the authors' server or on a mirror.
    """

    fetch: Callable[[str], Path]
    root_url: str = ROOT_URL

    def locate(self, name: str) -> Path:
        """The path of the file of this name on this machine, downloaded if necessary.

        Raises:
            DataError: the download failed.
        """
        try:
            return self.fetch(f"{self.root_url.rstrip('/')}/{name}")
        except DataError as error:
            raise DataError(f"{error}; or set editor.checkpoint to a network that task=train has trained") from error
