"""Files that are either given by path or published on the web."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from romexp.data.download import RemoteFile, cache_folder, fetch
from romexp.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """One input file.

    Attributes:
        path: a local file; None takes `remote`.
        cache_dir: where downloads are kept; None is `$ROMEXP_CACHE`, else ~/.cache/romexp.
        remote: the published file.
    """

    path: str | os.PathLike[str] | None = None
    cache_dir: str | os.PathLike[str] | None = None
    remote: RemoteFile | None = None

    def locate(self) -> Path:
        """The file on this machine, downloaded if need be.

        Raises:
            DataError: `path` is not a file, or the download fails.
            ConfigError: neither `path` nor `remote` is set.
        """
        return locate(self.path, self.remote, self.cache_dir)


def locate(
    path: str | os.PathLike[str] | None, remote: RemoteFile | None, cache_dir: str | os.PathLike[str] | None
) -> Path:
    """See `FileSource.locate`."""
    if path is not None:
        local = Path(path).expanduser()
        if not local.is_file():
            raise DataError(f"{local}: no such file")
        return local
    if remote is None:
        raise ConfigError("path: this data set has no published file; set it to a local one")
    return fetch(remote, cache_folder(cache_dir))
