"""Who may look: anybody on this machine, or whoever shows the token. No state.

Without a token only requests are answered that come straight from this machine: from a loopback address, to a loopback
name (or any page that a browser on this machine has open could read ours by pointing its own name here), and through no
proxy that says so. With a token, everybody needs it.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    Scope: TypeAlias = MutableMapping[str, Any]

_PROXIED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")

WHY_NOT = """\
This dashboard answers only requests from its own machine, as it was given no token.
Give it one, Dashboard(director, token=...), and open it once with ?token=... at the end of the address;
or make it local: ssh -L 8265:localhost:8265 MACHINE, and there `director top --web`.
"""
SHOW_IT = """\
This dashboard wants its token: open it once with ?token=... at the end of the address,
or send the header `Authorization: Bearer ...`.
"""


class Door:
    """Lets requests in or not.

    Args:
        token: What everybody has to show; `None` lets in who is on this machine.

    Raises:
        ValueError: The token is empty.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and not token.strip():
            raise ValueError("an empty token would let everybody in; None lets in who is on this machine")
        self._token = token

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason for which a request isn't let in; `None` if it is."""
        if self._token is None:
            return None if _is_local(scope) else (403, WHY_NOT)
        return None if _is_shown(scope, self._token) else (401, SHOW_IT)

    def cookie(self, scope: Scope) -> str | None:
        """The `Set-Cookie` for who has shown the token in the address, where it should not stay; else `None`."""
        if self._token is None or not _same(_in_query(scope), self._token):
            return None
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        path = scope.get("root_path") or "/"
        return f"{cookie_name(self._token)}={_sealed(self._token)}; Path={path}; HttpOnly; SameSite=Strict{secure}"


def _is_shown(scope: Scope, token: str) -> bool:
    kind, _, bearer = _header(scope, b"authorization").partition(" ")
    if kind.lower() == "bearer" and _same(bearer.strip(), token):
        return True
    return _same(_in_query(scope), token) or _same(_in_cookie(scope, cookie_name(token)), _sealed(token))


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is not None and not _is_loopback(client[0]):  # None: a Unix socket, or a server that does not say
        return False
    if any(name.lower() in _PROXIED for name, _ in scope.get("headers", ())):
        return False
    try:
        host = urlsplit(f"//{_header(scope, b'host')}").hostname or "localhost"
    except ValueError:  # it makes no sense
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _header(scope: Scope, name: bytes) -> str:
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _in_query(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _in_cookie(scope: Scope, name: str) -> str:
    try:
        found = SimpleCookie(_header(scope, b"cookie"))
    except CookieError:
        return ""
    return found[name].value if name in found else ""


def cookie_name(token: str) -> str:
    """One for each token: browsers send cookies to all ports of a machine, and each may have a dashboard."""
    return f"director-dashboard-{_sealed(token)[-8:]}"


def _sealed(token: str) -> str:
    """What the cookie holds: who reads it can look too, and still does not know the token."""
    return hashlib.sha256(b"director.dashboard:" + token.encode()).hexdigest()


def _same(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode(), wanted.encode())
