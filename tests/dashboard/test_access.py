"""Who may look."""

from __future__ import annotations

import time
from typing import Any

import pytest

from director import Director
from director.dashboard import Dashboard
from director.dashboard._access import AccessCheck, _cookie_value, cookie_name, hide_token

TOKEN = "s3cret"


def scope(
    client: str | None = "127.0.0.1", host: str = "localhost:8000", query: str = "", **headers: str
) -> dict[str, Any]:
    named = {"host": host} | {key.replace("_", "-"): value for key, value in headers.items()}
    return {
        "client": None if client is None else (client, 5000),
        "query_string": query.encode(),
        "headers": [(key.encode(), value.encode()) for key, value in named.items()],
    }


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_token(client: str) -> None:
    assert AccessCheck(None).refusal(scope(client)) is None


@pytest.mark.parametrize("client", ["10.0.0.7", "192.168.1.2", "::ffff:10.0.0.7", "2001:db8::1", "testclient", ""])
def test_elsewhere_without_a_token_nobody_is_let_in(client: str) -> None:
    refusal = AccessCheck(None).refusal(scope(client))
    assert refusal is not None
    assert refusal[0] == 403
    assert "Dashboard(director, token=...)" in refusal[1]


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "x-forwarded-host",
        "x-forwarded-whatever",
        "x-real-ip",
        "via",
        "x-client-ip",
        "cf-ray",
        "true-client-ip",
        "x-envoy-external-address",
        "x-amzn-trace-id",
        "proxy-connection",
    ],
)
def test_a_proxy_on_this_machine_brings_strangers(header: str) -> None:
    assert AccessCheck(None).refusal(scope(**{header: "127.0.0.1"})) is not None
    assert AccessCheck(TOKEN).refusal(scope(authorization=f"Bearer {TOKEN}", **{header: "127.0.0.1"})) is None


@pytest.mark.parametrize("version", ["0.9", "1.0"])
def test_proxies_that_hide_themselves_speak_an_old_version(version: str) -> None:
    assert AccessCheck(None).refusal(scope() | {"http_version": version}) is not None
    assert AccessCheck(None).refusal(scope() | {"http_version": "1.1"}) is None
    assert AccessCheck(None).refusal(scope() | {"http_version": "2"}) is None


def test_behind_a_unix_socket_is_a_proxy() -> None:
    assert AccessCheck(None).refusal(scope(None)) is not None


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:99", "http://localhost", "", "x"])
def test_a_page_of_another_origin_reads_nothing(origin: str) -> None:
    assert AccessCheck(None).refusal(scope(origin=origin)) is not None
    assert AccessCheck(None).refusal(scope(origin="http://localhost:8000")) is None


def test_two_hosts_are_none() -> None:
    asked = scope()
    asked["headers"] = [*asked["headers"], (b"Host", b"localhost:8000")]
    assert AccessCheck(None).refusal(asked) is not None


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (f"token={TOKEN}", ""),
        (f"a=1&token={TOKEN}&every=2", "a=1&every=2"),
        (f"%74oken={TOKEN}&token=other", ""),
        (f"token={TOKEN}&" + "x=1&" * 100, ""),
        ("every=2&after=%37", "every=2&after=7"),
        ("every=2", "every=2"),
    ],
)
def test_the_token_leaves_what_servers_log(query: str, kept: str) -> None:
    logged = scope(query=query)
    own = hide_token(logged)
    assert logged["query_string"].decode() == kept
    assert own["query_string"].decode() == query


@pytest.mark.serial
def test_long_queries_and_cookies_cost_little() -> None:
    """A request that isn't let in must not hold up the event loop."""
    began = time.process_time()
    for shown in ({"query": "a&" * 100_000}, {"cookie": 'a="\\' * 50_000}, {"cookie": ";" * 200_000}):
        assert AccessCheck(TOKEN).refusal(hide_token(scope(**shown))) is not None
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "gpu.localhost", ""])
def test_names_of_this_machine(host: str) -> None:
    assert AccessCheck(None).refusal(scope(host=host)) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.7"])
def test_a_page_elsewhere_that_points_its_name_here_reads_nothing(host: str) -> None:
    assert AccessCheck(None).refusal(scope(host=host)) is not None


@pytest.mark.parametrize("host", ["[", "[::1", "[localhost]", "lo\xffcal"])
def test_a_host_that_makes_no_sense_is_refused(host: str) -> None:
    refusal = AccessCheck(None).refusal(scope(host=host))
    assert refusal is not None
    assert refusal[0] == 403


@pytest.mark.parametrize(
    "shown",
    [
        {"query": f"token={TOKEN}"},
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer   {TOKEN}"},
        {"cookie": f"other=1; {cookie_name(TOKEN)}={_cookie_value(TOKEN)}"},
    ],
)
@pytest.mark.parametrize("client", ["10.0.0.7", "127.0.0.1"])
def test_the_token_lets_in(shown: dict[str, str], client: str) -> None:
    assert AccessCheck(TOKEN).refusal(scope(client, "gpu.example", **shown)) is None


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"query": "token="},
        {"query": "token=S3cret"},
        {"query": "token=\xff%ff"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"cookie": f"{cookie_name(TOKEN)}={TOKEN}"},
        {"cookie": "\x00=;;"},
    ],
)
@pytest.mark.parametrize("client", ["10.0.0.7", "127.0.0.1"])
def test_without_the_token_nobody_is_let_in(shown: dict[str, str], client: str) -> None:
    refusal = AccessCheck(TOKEN).refusal(scope(client, **shown))
    assert refusal is not None
    assert refusal[0] == 401


def test_the_cookie_is_for_this_place_alone() -> None:
    door = AccessCheck(TOKEN)
    shown = scope(query=f"token={TOKEN}") | {"root_path": "/gpu", "scheme": "https"}
    assert (
        door.cookie(shown)
        == f"{cookie_name(TOKEN)}={_cookie_value(TOKEN)}; Path=/gpu; HttpOnly; SameSite=Strict; Secure"
    )
    assert door.is_in_address(shown)
    assert not door.is_in_address(scope(authorization=f"Bearer {TOKEN}"))
    assert AccessCheck(None).cookie(shown) is None


def test_dashboards_on_other_ports_keep_their_cookies() -> None:
    """Browsers send cookies to all ports of a machine: one name for all would close one page by opening the other."""
    assert cookie_name(TOKEN) != cookie_name("another")


def test_the_cookie_does_not_tell_the_token() -> None:
    assert TOKEN not in _cookie_value(TOKEN)


@pytest.mark.parametrize("token", ["", "  "])
def test_an_empty_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="an empty token would admit all requests"):
        Dashboard(Director("simulated:1"), token=token)
