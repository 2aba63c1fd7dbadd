"""A download cache as a config object, for parts that know a file's URL but not where downloads are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from romexp.data.download import RemoteFile, cache_folder, fetch


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """URL → local file, downloaded once.

    Attributes:
        cache_dir: where downloads are kept; None is `$ROMEXP_CACHE`, else ~/.cache/romexp.
    """

    cache_dir: str | os.PathLike[str] | None = None

    def __call__(self, url: str) -> Path:
        """The file, from the cache if it is there.

        Raises:
            DataError: the download failed; the message says where to put the file by hand.
        """
        return fetch(RemoteFile(url=url), cache_folder(self.cache_dir))
