"""A web server in a thread that serves one file, with ranges, and can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, how, and what was asked.

    Attributes:
        cuts: bytes after which the connection is dropped, one a request; afterwards requests are served whole.
        etag: the content's version; empty sends none.
        ranges: whether `Range` is honoured.
        gate: if set, answers wait for it.
    """

    content: bytes
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    etag: str = '"one"'
    ranges: bool = True
    status: int = 200
    content_type: str = "application/json"
    encoding: str = ""
    gate: threading.Event | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0


@contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    """Serve `content` at `FileServer.url` until the block ends."""
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, state)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/data/file.json"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _answer(handler: BaseHTTPRequestHandler, state: FileServer) -> None:
    state.asked.append(dict(handler.headers))
    if state.gate is not None:
        assert state.gate.wait(10)
    if state.status != 200:
        handler.send_error(state.status)
        return
    wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    start = 0
    if wanted and state.ranges and condition in (None, state.etag):
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(state.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(state.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
    else:
        handler.send_response(200)
    body = state.content[start:]
    if state.etag:
        handler.send_header("ETag", state.etag)
    handler.send_header("Content-Type", state.content_type)
    handler.send_header("Content-Length", str(len(body)))
    if state.encoding:
        handler.send_header("Content-Encoding", state.encoding)
    handler.end_headers()
    if state.cuts:
        body = body[: state.cuts.pop(0)]
    state.sent += len(body)
    handler.wfile.write(body)
