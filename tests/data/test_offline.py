"""Without a network each download ends at once in one line, which names the setting that gives the file otherwise."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from file_server import serve

from romexp.data.counterfact import CounterFact
from romexp.data.download import Fetcher, RemoteFile, fetch
from romexp.data.known import KnownFacts
from romexp.data.snippets import Snippets
from romexp.data.tfidf import TfIdf
from romexp.data.zsre import ZsRE
from romexp.editors.learned.published import PublishedNetworks
from romexp.errors import DataError
from romexp.stats.readers import Published

ADDRESS = "http://me:geheim@127.0.0.1:9/a.json?token=geheim"
REMOTE = RemoteFile(url=ADDRESS)

DOWNLOADS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "CounterFact": (lambda cache: CounterFact(cache_dir=cache, remote=REMOTE).load(), ["set dataset.path"]),
    "zsRE": (lambda cache: ZsRE(cache_dir=cache, remote=REMOTE).load(), ["set dataset.path"]),
    "known facts": (lambda cache: KnownFacts(cache_dir=cache, remote=REMOTE).load(), ["set dataset.path"]),
    "snippets": (
        lambda cache: Snippets(cache_dir=cache, remote=REMOTE).load(),
        ["set references.snippets.path", "references=none"],
    ),
    "TF-IDF": (
        lambda cache: TfIdf(cache_dir=cache, idf_remote=REMOTE).load(),
        ["references.tfidf.idf_path", "references.tfidf.vocabulary_path", "references.tfidf.fit=true"],
    ),
    "second moments": (
        lambda cache: Published(model="x", fetch=Fetcher(cache_dir=cache), root_url="http://127.0.0.1:9").locate("m"),
        ["covariance.path", "covariance=text", "covariance=sampled"],
    ),
    "networks": (
        lambda cache: PublishedNetworks(fetch=Fetcher(cache_dir=cache), root_url="http://127.0.0.1:9").locate("m.pt"),
        ["editor.checkpoint"],
    ),
}


@pytest.mark.parametrize("proxy", ["", "http://me:geheim@127.0.0.1:9"])
@pytest.mark.parametrize("what", DOWNLOADS)
def test_one_line_with_the_setting(
    what: str, proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    load, settings = DOWNLOADS[what]
    start = time.perf_counter()
    with pytest.raises(DataError) as caught, caplog.at_level("INFO"):
        load(tmp_path)
    assert time.perf_counter() - start < 2
    message = str(caught.value)
    assert f"no connection{' to the proxy' if proxy else ''}: [Errno 111] Connection refused" in message
    assert all(setting in message for setting in settings), message
    assert "\n" not in message
    assert "geheim" not in message
    assert not caplog.records  # no second line


def test_no_such_host(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no connection") as caught:
        fetch(RemoteFile(url="http://nowhere.invalid/a"), tmp_path)
    assert "HTTPConnection" not in str(caught.value)


def test_a_file_that_comes_compressed_is_refused(tmp_path: Path) -> None:
    """Its size is not known before it is unpacked."""
    with serve(gzip.compress(b"x" * 1000)) as server:
        server.encoding = "gzip"
        with pytest.raises(DataError, match="compressed, which was not asked for"):
            fetch(RemoteFile(url=server.url), tmp_path)
        server.encoding = ""
        assert fetch(RemoteFile(url=server.url), tmp_path).is_file()  # the control


def test_a_download_is_announced_without_its_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(b"x" * 1000) as server, caplog.at_level("INFO", "romexp"):
        fetch(RemoteFile(url=server.url.replace("://", "://me:geheim@")), tmp_path)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"downloading {server.url} to {tmp_path}")
    assert line.endswith("file.json")


def test_a_cache_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with serve(b"x") as server, pytest.raises(DataError, match="cache_dir or ROMEXP_CACHE"):
        fetch(RemoteFile(url=server.url), tmp_path / "file")
