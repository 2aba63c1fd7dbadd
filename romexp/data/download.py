"""Downloads files into a local cache.

A download that was interrupted is resumed. A file is verified before it gets its final name, so other processes never
see a part of it. Only one process at a time downloads a file.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import requests
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from romexp.data.hub_records import fetch_records, is_hub_address
from romexp.errors import ConfigError, DataError
from romexp.files import cache_folder, file_sha256
from romexp.redact import without_secrets

log = logging.getLogger(__name__)

_BLOCK = 1 << 16
_TIMEOUT = (10, 60)  # seconds to connect, seconds without data


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        url: its address.
        size: its size in bytes, if known. A file of another size is refused.
        sha256: its digest in hexadecimal, if known. A file with another digest is refused.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


def cached_path(url: str, folder: Path) -> Path:
    """Where the file of `url` is kept. Host and path become folders, so that files of different sources stay apart.

    >>> cached_path("https://example.org/a/b.json", Path("cache")).as_posix()
    'cache/example.org/a/b.json'
    """
    parts = urlsplit(url)
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".", "..")]
    return folder.joinpath(parts.netloc.rpartition("@")[2].replace(":", "_"), *names)


def fetch(remote: RemoteFile, folder: Path, *, instead: str = "set `path` to a copy of the file") -> Path:
    """The file in the cache `folder`. It is downloaded first if it is not there.

    An interrupted download leaves `<file>.part`, which the next call continues. `<file>` is made only after size and
    digest were verified, so a file that is already there is not verified again.

    Args:
        instead: what to do where the file cannot be downloaded, for the error message; may be empty.

    Raises:
        DataError: there is no network, the server refuses the request, the content is not as expected, or the disk
            cannot be written.
    """
    target = cached_path(remote.url, folder)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that downloads %s", target)
            lock.acquire()
        try:
            if not target.is_file():
                _download(remote, target)
        finally:
            lock.release()
    except requests.RequestException as error:
        raise DataError(_offline_message(remote.url, target, error, instead)) from error
    except OSError as error:
        reason = without_secrets(f"cannot download {remote.url} to {target}: {error.strerror or error}")
        raise DataError(f"{reason}; cache_dir or ROMEXP_CACHE names another folder for downloads") from error
    return target


def _download(remote: RemoteFile, target: Path) -> None:
    """Transfer the file, verify it, and give it its final name.

    After an interruption it tries again, as long as the last try added some bytes.
    """
    part = target.with_name(target.name + ".part")
    while True:
        before = _size(part)
        try:
            _transfer(remote, part)
            break
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout):
            if _size(part) <= before:
                raise
            log.info("%s: interrupted at %d bytes, resuming", without_secrets(remote.url), _size(part))
    _verify(remote, part)
    os.replace(part, target)
    _validator_file(part).unlink(missing_ok=True)


def _transfer(remote: RemoteFile, part: Path) -> None:
    """Send one request: for the bytes that `part` lacks, or for the whole file if resuming is not safe."""
    shown = without_secrets(remote.url)
    have, headers = _resume_point(remote, part)
    if have and have == remote.size:
        return
    with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == 416:  # No bytes follow: `part` is complete, or the file on the server has changed.
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            return _transfer(remote, part)
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DataError(f"{shown}: a web page came instead of the file (a login page of the network?)")
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise requests.ConnectionError("the server answered with another range than the requested one")
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if remote.size is not None and total not in (None, remote.size):
            part.unlink(missing_ok=True)
            raise DataError(f"{shown}: the server's file has {total} bytes, expected {remote.size}")
        if not resumed:
            _validator_file(part).write_text(_validator(response))
        if response.headers.get("Content-Encoding", "identity") != "identity":
            # It was not asked for, hides how much will come, and has no ranges to resume from.
            raise DataError(f"{shown}: the server sends the file compressed, which was not asked for")
        log.info("downloading %s to %s", shown, part.with_suffix(""))
        _write(response, part, start=start, total=total)
    if total is not None and _size(part) < total:
        raise requests.ConnectionError("the connection was closed early")


def _resume_point(remote: RemoteFile, part: Path) -> tuple[int, dict[str, str]]:
    """How many bytes of `part` to keep, and the headers of the request.

    A part is resumed only if a change of the file on the server would be noticed, by `If-Range` or by the digest.
    """
    headers = {"Accept-Encoding": "identity"}
    have = _size(part)
    validator = _validator_file(part).read_text() if _validator_file(part).is_file() else ""
    if not have or not (validator or remote.sha256) or (remote.size is not None and have > remote.size):
        return 0, headers
    headers["Range"] = f"bytes={have}-"
    if validator:
        headers["If-Range"] = validator
    return have, headers


def _write(response: requests.Response, part: Path, *, start: int, total: int | None) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)
    with part.open("ab" if start else "wb") as file, bar:
        task = bar.add_task(part.name.removesuffix(".part"), total=total, completed=start)
        for block in response.iter_content(_BLOCK):
            file.write(block)
            bar.update(task, advance=len(block))


def _verify(remote: RemoteFile, part: Path) -> None:
    """Check the size and digest of `part`.

    Raises:
        DataError: it is not the expected file. It was deleted then.
    """
    problem, size = "", _size(part)
    if remote.size is not None and size != remote.size:
        problem = f"{size} bytes came, expected {remote.size}"
    elif remote.sha256 is not None and (digest := file_sha256(part)) != remote.sha256.lower():
        problem = f"sha256 {digest}, expected {remote.sha256}"
    if problem:
        part.unlink()
        _validator_file(part).unlink(missing_ok=True)
        raise DataError(f"{without_secrets(remote.url)}: {problem}; the download was removed")


def _validator(response: requests.Response) -> str:
    """The value for `If-Range`, by which a server tells whether a file has changed: a strong ETag, or its date."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _offline_message(url: str, target: Path, error: requests.RequestException, instead: str) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        why = f"the server answered {error.response.status_code} {error.response.reason}"
    elif isinstance(error, requests.Timeout):
        why = "the server does not answer"
    else:
        inner = getattr(error.args[0], "reason", error) if error.args else error
        said = (str(inner).splitlines() or [type(error).__name__])[0]
        # The libraries name several of their objects before the reason.
        system = re.search(r"\[Errno -?\d+\] [^'\")]+", said)
        proxy = " to the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
        why = f"no connection{proxy}: {system[0] if system else said}"
    kept = _size(target.with_name(target.name + ".part"))
    again = f"run again to go on after the {kept} bytes that are here, " if kept else ""
    ways = " or ".join(way for way in (f"{instead}," if instead else "", f"put the file at {target}") if way)
    return f"cannot download {without_secrets(f'{url} ({why})')}; {again}{ways}"


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """One input file.

    Attributes:
        instead: what to do where the published file cannot be downloaded, for the error message.
        path: a local file, or a data set of the hub (`romexp.data.hub_records`); None takes `remote`.
        cache_dir: where downloads are kept; None takes `$ROMEXP_CACHE`, or else ~/.cache/romexp.
        remote: the published file; None if there is none.
    """

    instead: ClassVar[str] = "set dataset.path to a copy of the file"
    path: str | os.PathLike[str] | None = None
    cache_dir: str | os.PathLike[str] | None = None
    remote: RemoteFile | None = None

    def locate(self) -> Path:
        """The file on this machine. It is downloaded if necessary.

        Raises:
            DataError: `path` is not a file, or the download fails.
            ConfigError: neither `path` nor `remote` is set.
        """
        return locate(self.path, self.remote, self.cache_dir, instead=self.instead)


def locate(
    path: str | os.PathLike[str] | None,
    remote: RemoteFile | None,
    cache_dir: str | os.PathLike[str] | None,
    *,
    instead: str,
) -> Path:
    """See `FileSource.locate`."""
    if path is not None and is_hub_address(path):
        return fetch_records(str(path), cache_folder(cache_dir))
    if path is not None:
        local = Path(path).expanduser()
        if not local.is_file():
            raise DataError(f"{local}: no such file")
        return local
    if remote is None:
        raise ConfigError("path: this data set has no published file; set path to a local one")
    return fetch(remote, cache_folder(cache_dir), instead=instead)


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Turns a URL into a local file, which is downloaded only once.

    Attributes:
        cache_dir: where downloads are kept; None takes `$ROMEXP_CACHE`, or else ~/.cache/romexp.
    """

    cache_dir: str | os.PathLike[str] | None = None

    def __call__(self, url: str) -> Path:
        """The file of `url`, from the cache if it is there.

        Raises:
            DataError: the download failed. The message says where to put the file by hand.
        """
        return fetch(RemoteFile(url=url), cache_folder(self.cache_dir), instead="")
