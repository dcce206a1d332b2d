"""Where HTTP requests come in: what is too long, too much or compressed goes no further."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Edge:
    """ASGI middleware that refuses requests before they take memory.

    Args:
        app: what answers the rest.
        most_bytes: of a body; a longer one is answered with 413.
        most: requests with a body at once; more are answered with 429.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, most: int) -> None:
        self._app, self._most_bytes, self._most = app, most_bytes, most
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if refusal := self._refusal(dict(scope["headers"])):
            await self._discard(receive)
            await refusal(scope, receive, send)
            return
        self._active += 1
        try:
            await self._app(scope, self._counted(receive), send)
        finally:
            self._active -= 1

    def _refusal(self, headers: dict[bytes, bytes]) -> JSONResponse | None:
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding != "identity":  # a small body may unpack to any size
            return _refuse(415, f"Content-Encoding: found {encoding:.40}, expected none")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._most_bytes:
            return _refuse(413, self._too_long(f"{int(length[:20]):,}"))
        if self._active >= self._most:
            return _refuse(429, f"requests: found {self._active} under way, expected fewer")
        return None

    def _counted(self, receive: Receive) -> Receive:
        """For bodies that come in chunks and do not tell their length."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                if message.get("more_body"):
                    await self._discard(receive)
                raise HTTPException(413, self._too_long("more"))
            return message

        return counted

    async def _discard(self, receive: Receive) -> None:
        """Take as much again as a body may have, and forget it.

        A client that is still sending when the connection ends sees that, and not the answer.
        """
        seen = 0
        while seen <= self._most_bytes:
            message = await receive()
            seen += len(message.get("body", b""))
            if not message.get("more_body"):
                return

    def _too_long(self, found: str) -> str:
        return f"body: found {found} bytes, expected at most {self._most_bytes:,}"


def _refuse(status: int, reason: str) -> JSONResponse:
    """The body may not have been read to its end, so the connection ends with the answer."""
    return JSONResponse({"error": reason}, status, headers={"connection": "close"})
