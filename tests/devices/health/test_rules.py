"""`HealthRules`, and the sets of XIDs that it begins with."""

from __future__ import annotations

from typing import Any

import pytest

from director import HealthRules
from director._devices.health.rules import FATAL_XIDS, HARMLESS_XIDS, describe_xid


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"interval": -1}, "interval must be positive seconds"),
        ({"interval": float("inf")}, "interval must .* at most"),
        ({"probe_timeout": 0}, "probe_timeout must be positive seconds"),
        ({"probe_timeout": float("inf")}, "probe_timeout must .* at most"),
        ({"probe_timeout": "60"}, "as a number"),
        ({"probation": float("nan")}, "positive seconds"),
        ({"fatal_xids": "79"}, "a set of XIDs"),
        ({"fatal_xids": [79]}, "a set of XIDs"),
        ({"harmless_xids": {"79"}}, "an XID in harmless_xids must be an int"),
        ({"fatal_xids": {13, 79}}, r"in both fatal_xids and harmless_xids: \[13\]"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        HealthRules(**wrong)


def test_the_sets_are_the_rules_own() -> None:
    mine = {79}
    rules = HealthRules(fatal_xids=mine, interval=None)
    mine.add(80)
    assert rules.fatal_xids == {79}
    assert hash(rules) == hash(HealthRules(fatal_xids=frozenset({79}), interval=None))


def test_nvidias_sets() -> None:
    assert not FATAL_XIDS & HARMLESS_XIDS
    assert {46, 48, 62, 64, 74, 79, 95, 109, 119, 120, 140} <= FATAL_XIDS
    assert {13, 31, 43, 45, 63, 68, 94, 105, 126, 135} <= HARMLESS_XIDS
    assert not {54, 61, 144, 151} & (FATAL_XIDS | HARMLESS_XIDS)


def test_every_fatal_xid_has_words() -> None:
    assert [xid for xid in FATAL_XIDS if "catalog" in describe_xid(xid)] == []
