"""A file server that can break: what the tests of downloads talk to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it serves and what it has seen.

    Args:
        url: its address, without a slash at the end.
        files: contents by path.
        etags: by path, for those that are not the SHA-256.
        cuts: by path, how many bytes the next answer sends before it breaks off.
        stalls: by path, the same, but then it says nothing more.
        pauses: by path, seconds before each answer's content.
        requests: (method, path, the header Range) in order.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each GET."""
        return [ranged for method, _, ranged in self.requests if method == "GET"]


@contextmanager
def serving() -> Iterator[Server]:
    """Serve on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            ranged = self.headers["Range"]
            server.requests.append((self.command, self.path, ranged))
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged else 0
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            etag = server.etags.get(self.path, hashlib.sha256(content).hexdigest())
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if send_body:
                self._send(content[start:])

        def _send(self, content: bytes) -> None:
            server.closing.wait(server.pauses.get(self.path, 0))
            if self.path in server.cuts:
                self.wfile.write(content[: server.cuts.pop(self.path)])
            elif self.path in server.stalls:
                self.wfile.write(content[: server.stalls.pop(self.path)])
                self.wfile.flush()
                server.stalled.set()
                server.closing.wait()
            else:
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server = Server(f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            listener.shutdown()
            thread.join()
