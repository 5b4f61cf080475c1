"""The counts in shared memory: each row has one writer, and equal tenants are one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from director._ipc.server.queue_counts import APPLICATIONS, QueueCounts, tenant_number

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def counts() -> Iterator[tuple[QueueCounts, QueueCounts]]:
    """The same memory, mapped twice."""
    one, descriptor = QueueCounts.create()
    yield one, QueueCounts(descriptor)
    os.close(descriptor)


def test_rows_are_added_up_and_a_row_that_is_cleared_counts_no_more(counts: tuple[QueueCounts, QueueCounts]) -> None:
    one, two = counts
    tenant = tenant_number("a")
    for row in (1, 2, APPLICATIONS):
        one.open(row)
        one.note(row, row, 1)
        two.note_tenant(row, tenant, 5)

    assert two.totals() == (1 + 2 + APPLICATIONS, 3)
    assert two.of_tenant(tenant) == 15
    one.clear(2)
    assert (one.totals(), one.of_tenant(tenant)) == ((1 + APPLICATIONS, 2), 10)


def test_refusals_are_added_up_and_stay_when_a_row_is_cleared(counts: tuple[QueueCounts, QueueCounts]) -> None:
    one, two = counts
    for row in (1, APPLICATIONS):
        one.open(row)
        two.note_refused(row, row)
        two.note_tenant(row, 7, 9)
    assert one.refused() == 1 + APPLICATIONS

    one.clear(APPLICATIONS)
    one.open(APPLICATIONS)
    two.note_refused(APPLICATIONS, 1)
    assert two.refused() == 2 + APPLICATIONS


def test_each_of_many_tenants_has_its_own_count(counts: tuple[QueueCounts, QueueCounts]) -> None:
    one, two = counts
    one.open(1)
    one.note(1, 1000, 0)
    tenants = [tenant_number(f"tenant {number}") for number in range(1000)]

    for number, tenant in enumerate(tenants):
        one.note_tenant(1, tenant, number + 1)
    assert [two.of_tenant(tenant) for tenant in tenants] == [*range(1, 1001)]

    for tenant in tenants[::2]:
        one.note_tenant(1, tenant, 0)
    assert [two.of_tenant(tenant) for tenant in tenants[:4]] == [0, 2, 0, 4]


def test_a_tenant_without_a_free_word_in_its_set_is_not_counted(counts: tuple[QueueCounts, QueueCounts]) -> None:
    one, _ = counts
    one.open(1)
    one.note(1, 17, 0)
    crowd = [number * 256 for number in range(1, 18)]  # all in one set

    for tenant in crowd:
        one.note_tenant(1, tenant, 1)
    assert [one.of_tenant(tenant) for tenant in crowd] == [1] * 16 + [0]

    one.note_tenant(1, crowd[0], 0)
    one.note_tenant(1, crowd[16], 2)
    assert [one.of_tenant(tenant) for tenant in crowd] == [0] + [1] * 15 + [2]


@pytest.mark.parametrize(
    ("left", "right", "are_equal"),
    [
        ("a", "a", True),
        (1, 1.0, True),
        (1, True, True),
        (("a", 1), ("a", 1.0), True),
        ("1", 1, False),
        ("a", b"a", False),
        (-1, -2, False),
        ((1, 2), (12,), False),
        ("\ud800", "\ud801", False),
    ],
)
def test_equal_tenants_have_equal_numbers(left: object, right: object, are_equal: bool) -> None:
    assert (tenant_number(left) == tenant_number(right)) is are_equal
