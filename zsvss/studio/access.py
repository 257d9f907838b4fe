"""Who may talk to the studio: this machine's own browser, with the token, from the studio's own page.

Another site that a browser has open can send requests to this machine, and a name that it owns can point here; so the
Host, the Origin and the token are checked before anything else, and a body is bounded.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 1 << 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_LONGEST_PATH = 200
_PLAIN_PATH = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-._/")


class BodyTooLargeError(Exception):
    """A request whose body is larger than any that the page sends; raised where it is read."""

    def __init__(self) -> None:
        super().__init__(f"the request is larger than {LARGEST_BODY} bytes")


class Guard:
    """Lets through what comes from the studio's own page, and nothing else.

    Args:
        app: what is guarded.
        token: that the page must bring, in its address once, then in a cookie; other programs as
            ``Authorization: token TOKEN``.
        port: of the server.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"zsvss-studio-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self.app(scope, _bounded(receive), send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return PlainTextResponse("this address is not the studio's", 421)
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if len(raw) > _LONGEST_PATH or not _PLAIN_PATH.issuperset(raw) or b".." in raw or b"//" in raw:
            return PlainTextResponse("there is no such page", 404)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if (origin is not None and origin != f"http://{hosts[0]}") or site in ("cross-site", "same-site"):
            # A link to the studio from elsewhere may be followed; it brings no cookie, but perhaps the token.
            is_link = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
            if not is_link:
                return PlainTextResponse("another site may not talk to the studio", 403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return PlainTextResponse(str(BodyTooLargeError()), 413)
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(query.get("token", [""])[0]):
            response = RedirectResponse("/", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return response
        if not self._knows(headers):
            return PlainTextResponse(
                "The studio needs its token: open the address that it has printed in the terminal.", 403
            )
        return None

    def _knows(self, headers: Headers) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "token" and self._is_token(value):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(errors="replace"), self._token.encode())


def _bounded(receive: Receive) -> Receive:
    """The same, which raises when more has come than any request has."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message: dict[str, Any] = dict(await receive())
        received += len(message.get("body", b""))
        if received > LARGEST_BODY:
            raise BodyTooLargeError
        return message

    return bounded
