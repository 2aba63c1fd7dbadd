"""Downloads: resumed, verified, moved into place at once, made once."""

from __future__ import annotations

import hashlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from file_server import FileServer, serve

from romexp.data.download import RemoteFile, cached_path, fetch
from romexp.errors import DataError

CONTENT = bytes(range(256)) * 2048  # half a MiB, several blocks of the reader
CUT = 300_000


@pytest.fixture
def server():
    with serve(CONTENT) as state:
        yield state


def remote(server: FileServer, **known: object) -> RemoteFile:
    known.setdefault("size", len(CONTENT))
    known.setdefault("sha256", hashlib.sha256(CONTENT).hexdigest())
    return RemoteFile(url=server.url, **known)  # type: ignore[arg-type]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_a_download_lands_whole_and_is_not_repeated(server, tmp_path):
    first = fetch(remote(server), tmp_path)
    assert first.read_bytes() == CONTENT
    assert fetch(remote(server), tmp_path) == first
    assert len(server.asked) == 1
    assert leftovers(tmp_path) == ["file.json"]


def test_an_interruption_is_resumed_within_one_call(server, tmp_path):
    server.cuts = [CUT, 100_000]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert "Range" not in server.asked[0]
    assert all(int(request["Range"][len("bytes=") : -1]) > 0 for request in server.asked[1:])
    assert server.sent < 1.5 * len(CONTENT)  # a restart from nothing each time would be more


def test_an_interrupted_call_is_resumed_by_the_next(server, tmp_path):
    server.cuts = [CUT, 0]  # the second try brings nothing, so the call gives up
    with pytest.raises(DataError, match="run again to go on after the") as caught:
        fetch(remote(server), tmp_path)
    assert "\n" not in str(caught.value)
    part = next(tmp_path.rglob("*.part"))
    kept = part.stat().st_size
    assert 0 < kept <= CUT
    assert not cached_path(server.url, tmp_path).exists()

    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == f"bytes={kept}-"
    assert leftovers(tmp_path) == ["file.json"]


@pytest.mark.parametrize("known", [{}, {"size": None, "sha256": None}])
def test_a_file_that_changed_on_the_server_is_not_mixed_with_its_old_part(server, tmp_path, known):
    target = cached_path(server.url, tmp_path)
    target.parent.mkdir(parents=True)
    target.with_name("file.json.part").write_bytes(b"x" * 1000)
    target.with_name("file.json.part.validator").write_text('"an older version"')
    assert fetch(remote(server, **known), tmp_path).read_bytes() == CONTENT
    assert server.asked[0]["If-Range"] == '"an older version"'


def test_a_part_of_unknown_origin_is_not_continued_without_a_digest(server, tmp_path):
    server.etag = ""
    target = cached_path(server.url, tmp_path)
    target.parent.mkdir(parents=True)
    target.with_name("file.json.part").write_bytes(b"x" * 1000)
    assert fetch(remote(server, sha256=None), tmp_path).read_bytes() == CONTENT
    assert "Range" not in server.asked[0]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.cuts, server.ranges = [CUT], False
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.sent > len(CONTENT)


def test_a_complete_part_needs_no_transfer(server, tmp_path):
    target = cached_path(server.url, tmp_path)
    target.parent.mkdir(parents=True)
    target.with_name("file.json.part").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("extra", [b"", b"more than the server has"])
def test_a_part_as_long_as_the_file_or_longer_of_unknown_size(server, tmp_path, extra):
    target = cached_path(server.url, tmp_path)
    target.parent.mkdir(parents=True)
    target.with_name("file.json.part").write_bytes(CONTENT + extra)
    assert fetch(remote(server, size=None), tmp_path).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DataError, match=r"sha256 .*, expected 0000"):
        fetch(remote(server, sha256="0" * 64), tmp_path)
    assert leftovers(tmp_path) == []
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT  # the control: the right digest passes


def test_a_wrong_size_is_refused_before_the_transfer(server, tmp_path):
    with pytest.raises(DataError, match=f"has {len(CONTENT)} bytes, expected 5"):
        fetch(remote(server, size=5), tmp_path)
    assert leftovers(tmp_path) == []


def test_a_login_page_is_refused(server, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page came instead"):
        fetch(remote(server, size=None, sha256=None), tmp_path)
    assert leftovers(tmp_path) == []


def test_two_at_once_download_once(server, tmp_path):
    server.gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fetch, remote(server), tmp_path) for _ in range(2)]
        threading.Timer(0.2, server.gate.set).start()  # both have asked for the lock by then
        paths = {job.result(timeout=20) for job in jobs}
    assert len(server.asked) == 1
    assert [path.read_bytes() for path in paths] == [CONTENT]


def test_a_missing_file_says_url_place_and_way_out(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError) as caught:
        fetch(remote(server), tmp_path)
    message = str(caught.value)
    assert server.url in message
    assert "404" in message
    assert str(cached_path(server.url, tmp_path)) in message
    assert "`path`" in message


def test_offline_is_one_line(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.json"
    with pytest.raises(DataError, match="no connection") as caught:
        fetch(RemoteFile(url=url), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    assert str(cached_path(url, tmp_path)) in message


def test_an_unwritable_cache_is_a_data_error(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot download .* to "):
        fetch(remote(server), tmp_path / "file")


def test_no_url_leads_out_of_the_cache(tmp_path):
    path = cached_path("https://user:secret@example.org:80/../..//%2e%2e/etc/a.json", tmp_path)
    assert path == tmp_path / "example.org_80" / "etc" / "a.json"
