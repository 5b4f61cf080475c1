"""Access control: requests from this machine, or requests with the token. No state.

Without a token only requests are answered that come directly from this machine: from a loopback address, in HTTP/1.1 or
later (proxies speak 1.0 by default), without any header that a proxy adds, to a loopback name (else any page open
in a browser on this machine could read the dashboard by resolving its own name to this address), and from no page of
another origin. With a token, every request needs it.
"""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Scope: TypeAlias = MutableMapping[str, Any]

# Names of headers that proxies add, or prefixes of such names.
_PROXIED = (
    *(b"forwarded", b"x-forwarded", b"via", b"x-real-ip", b"x-client-ip", b"client-ip", b"x-original-", b"x-proxy"),
    *(b"proxy-", b"x-cluster-client-ip", b"true-client-ip", b"cf-", b"fastly-", b"x-envoy-", b"x-amz", b"x-azure-"),
    *(b"x-appengine-", b"x-arr-", b"x-scheme", b"x-varnish", b"x-cache", b"cdn-loop", b"wl-proxy-"),
)
_MOST_FIELDS = 20  # of a query
_LONGEST = 16_384  # bytes of a query or of cookies that are looked through

WHY_NOT = """\
This dashboard answers only requests that come straight from its own machine, as it was given no token.
Give it one, Dashboard(director, token=...), and open it once with #token=... at the end of the address;
or make it local: ssh -L 8265:localhost:8265 MACHINE, and there `director top --web`.
"""
SHOW_IT = """\
This dashboard needs its token: open it once with #token=... at the end of the address,
or send the header `Authorization: Bearer ...`.
"""


class AccessCheck:
    """Decides which requests are answered.

    Args:
        token: What every request has to send; `None` admits only requests from this machine.

    Raises:
        ValueError: The token is empty.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and not token.strip():
            raise ValueError("an empty token would admit all requests; None admits only requests from this machine")
        self._token = token

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused; `None` if it is admitted."""
        if self._token is None:
            return None if _is_local(scope) else (403, WHY_NOT)
        return None if _is_shown(scope, self._token) else (401, SHOW_IT)

    def is_in_address(self, scope: Scope) -> bool:
        """Whether the token is in the address, from which it should be removed."""
        return self._token is not None and _in_query(scope, self._token)

    def cookie(self, scope: Scope) -> str | None:
        """The `Set-Cookie` that admits later requests of this browser; `None` without a token."""
        if self._token is None:
            return None
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        path = quote(scope.get("root_path") or "/")
        return (
            f"{cookie_name(self._token)}={_cookie_value(self._token)}; Path={path}; HttpOnly; SameSite=Strict{secure}"
        )


def hide_token(scope: Scope) -> Scope:
    """A copy of the scope; a token in the address is removed from the original, which servers write to their logs."""
    query: bytes = scope.get("query_string", b"")
    if b"token" in query or b"%" in query:
        kept = [(name, value) for name, value in _fields(query) if name != "token"]
        own = {**scope}
        scope["query_string"] = urlencode(kept, encoding="latin-1", errors="replace").encode()
        return own
    return scope


def _is_shown(scope: Scope, token: str) -> bool:
    named, sealed = cookie_name(token), _cookie_value(token)
    shown = [_are_equal(value, sealed) for name, value in _cookies(scope) if name == named]
    return _in_header(scope, token) or _in_query(scope, token) or any(shown)


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None or not _is_loopback(client[0]):  # a Unix socket has no address, and is used by proxies
        return False
    if scope.get("http_version", "1.1") in ("0.9", "1.0"):
        return False
    if any(name.lower().startswith(_PROXIED) for name, _ in scope.get("headers", ())):
        return False
    hosts = _headers(scope, b"host")
    if len(hosts) > 1 or not all(_is_loopback_name(host) for host in hosts):
        return False
    return all(origin.partition("://")[2] in hosts for origin in _headers(scope, b"origin"))


def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or "localhost"
    except ValueError:
        # The name is not a valid host.
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == name]


def _in_header(scope: Scope, token: str) -> bool:
    parts = [header.partition(" ") for header in _headers(scope, b"authorization")]
    wanted = token.encode()
    shown = [value.strip().encode("latin-1") for kind, _, value in parts if kind.lower() == "bearer"]
    return any(hmac.compare_digest(each, wanted) for each in shown)


def _in_query(scope: Scope, token: str) -> bool:
    shown = [value for name, value in _fields(scope.get("query_string", b"")) if name == "token"]
    return any(_are_equal(value, token) for value in shown)


def _fields(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query[:_LONGEST].decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return []


def _cookies(scope: Scope) -> list[tuple[str, str]]:
    parts = [part.partition("=") for header in _headers(scope, b"cookie") for part in header[:_LONGEST].split(";")]
    return [(name.strip(), value.strip()) for name, _, value in parts]


def cookie_name(token: str) -> str:
    """The name of the cookie, one per token.

    Browsers send cookies to all ports of a machine, and each may have a dashboard.
    """
    return f"director-dashboard-{_cookie_value(token)[-8:]}"


def _cookie_value(token: str) -> str:
    """The value of the cookie, a hash: it admits requests too, and does not reveal the token."""
    return hashlib.sha256(b"director.dashboard:" + token.encode()).hexdigest()


def _are_equal(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode(), wanted.encode())
