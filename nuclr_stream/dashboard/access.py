"""Who may see the page: the token beyond this machine, Host and Origin of every request, and what a page may load."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, and no script or style inside of a document."""
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Access:
    """Lets a request through to `app` when it comes from a page of ours and, where there is a token, knows it.

    A request to a loopback server must name a loopback host, or a page elsewhere could reach it under a name of its own
    (DNS rebinding). A websocket must come from the origin that it goes to. The token comes once as `?token=` and stays
    in a cookie.
    """

    def __init__(self, app: ASGIApp, *, token: str = "", loopback: bool = True) -> None:
        self._app, self._token, self._loopback = app, token, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        refusal = self._refusal(scope["type"], headers, given, _cookie_name(scope))
        if refusal:
            await _refuse(scope, receive, send, refusal)
        elif self._token and given and scope["type"] == "http":
            # the token leaves the address bar, where it would end in histories and screenshots
            response = RedirectResponse("./", status_code=303, headers=HEADERS)
            response.set_cookie(_cookie_name(scope), self._token, httponly=True, samesite="strict")
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, kind: str, headers: Headers, given: str, cookie_name: str) -> str:
        """Return why a request is refused, or an empty string."""
        host = headers.get("host", "")
        if self._loopback and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return f"host {host!r} is not this machine; open the page as http://127.0.0.1"
        if kind == "websocket" and urlsplit(headers.get("origin", "")).netloc != host:
            return "a websocket must be opened by the page of the same origin"
        known = _cookie(headers.get("cookie", ""), cookie_name)
        token = self._token.encode()
        if token and not any(secrets.compare_digest(one.encode(), token) for one in (given, known)):
            return "open the page once with ?token=, as nuclr-stream dashboard has printed it"
        return ""


def _cookie_name(scope: Scope) -> str:
    """Return a name of its own for every port: cookies do not know ports, and two pages may run on a machine."""
    return f"nuclr_{(scope.get('server') or ('', 0))[1]}"


def _cookie(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": why})
        return
    await PlainTextResponse(f"Refused: {why}.\n", status_code=403, headers=HEADERS)(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
