"""The identity of items."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.cli._run.input.items import Item, Keys, KeyTable, shard_of, short


def keys_of(names: list[str]) -> list[str]:
    keys = Keys()
    return [keys.name(Item(number, None, b"", name)) for number, name in enumerate(names)]


@given(st.lists(st.text(st.characters(), max_size=60) | st.sampled_from(["a", "a#2", "~", "#", "\udcff"])))
def test_each_item_has_a_key_of_its_own(names: list[str]) -> None:
    keys = keys_of(names)
    assert len(set(keys)) == len(names)
    assert all(len(key.encode().partition(b"#")[0]) <= 40 and key.isprintable() for key in keys)


def test_the_second_of_a_name_has_its_number() -> None:
    assert keys_of(["a", "b", "a", "a", "b"]) == ["a", "b", "a#2", "a#3", "b#2"]


@given(st.lists(st.text(max_size=5)), st.randoms())
def test_the_order_of_different_items_changes_no_key(names: list[str], chosen: object) -> None:
    other = sorted(names)
    assert Counter(keys_of(names)) == Counter(keys_of(other))


@pytest.mark.parametrize("name", ["x" * 41, "a#2", "~abc", "new\nline", "\x1b[2J", "\udcff", "ü" * 21])
def test_a_name_that_would_not_do_is_replaced_by_its_digest(name: str) -> None:
    assert short(name).startswith("~")
    assert len(short(name)) == 33
    assert short(name) != short(name + " ")


@pytest.mark.parametrize("name", ["", "a b.jpg", "x" * 40, '"quoted"', "größe/检测.png", "\\"])
def test_other_names_are_keys(name: str) -> None:
    assert short(name) == name


def test_the_shard_of_a_key_is_the_same_everywhere() -> None:
    assert [shard_of(key, 4) for key in ("a", "b", "photos/1.jpg", "größe", "a#2")] == [4, 2, 1, 2, 4]
    assert Counter(shard_of(str(number), 3) for number in range(3000)).keys() == {1, 2, 3}


def test_a_table_is_a_dict() -> None:
    table, expected = KeyTable(), dict[str, int]()
    for number in range(9000):
        key, value = f"{number * 7919 % 6007}", number + 1
        assert table.put(key, value) == expected.get(key, 0)
        expected[key] = value
    assert len(table) == len(expected) == 6007
    assert all(table.get(key) == value for key, value in expected.items())
    assert table.get("missing") == 0


def test_a_set_knows_what_was_put() -> None:
    table = KeyTable(is_set=True)
    assert [table.put(f"{number % 4000}", 1) for number in range(8000)] == [0] * 4000 + [1] * 4000
    assert (len(table), table.get("0"), table.get("4000")) == (4000, 1, 0)


@pytest.mark.parametrize(("is_set", "most"), [(True, 18), (False, 36)])
def test_a_key_takes_few_bytes_at_the_peak_too(is_set: bool, most: int) -> None:
    keys = [str(number) for number in range(100_000)]
    tracemalloc.start()
    try:
        table = KeyTable(is_set=is_set)
        for key in keys:
            table.put(key, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / len(keys) < most
