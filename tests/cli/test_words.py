"""Numbers as people read them, tables, and options that name devices."""

from __future__ import annotations

import argparse

import pytest

from director import _format
from director.cli._console import table
from director.cli.run import parse_devices, parse_slots


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 µs"),
        (0.00085, "850 µs"),
        (0.00342, "3.42 ms"),
        (0.0342, "34.2 ms"),
        (0.342, "342 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.2, "1.20 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert _format.duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0 s"), (4.4, "4 s"), (59.4, "59 s"), (59.5, "1 min 00 s")])
def test_about(seconds: float, shown: str) -> None:
    assert _format.about(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(12345.6, "12,346/s"), (560, "560/s"), (33.41, "33.4/s"), (0.0214, "0.0214/s"), (0, "0/s")]
)
def test_rate(number: float, shown: str) -> None:
    assert _format.rate(number) == shown


def test_counted() -> None:
    assert _format.counted(1, "item") == "1 item"
    assert _format.counted(1797, "item") == "1,797 items"
    assert _format.percent(0.9744) == "97.4 %"


def test_a_table_is_aligned() -> None:
    assert table(("device", "items"), [("cuda:0", "7"), ("cuda:10", "1,797")]) == [
        "device   items",
        "cuda:0       7",
        "cuda:10  1,797",
    ]


@pytest.mark.parametrize(
    ("text", "devices"),
    [("cpu:2", "cpu:2"), ("gpu", "gpu"), ("0", [0]), ("0,2", [0, 2]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])],
)
def test_devices(text: str, devices: object) -> None:
    assert parse_devices(text) == devices


@pytest.mark.parametrize(("text", "slots"), [("2", 2), ("0=2,1=4", {0: 2, 1: 4}), ("cpu:0=3", {"cpu:0": 3})])
def test_slots(text: str, slots: object) -> None:
    assert parse_slots(text) == slots


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "0=", "0=none"])
def test_not_slots(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from 1 to 10000"):
        parse_slots(text)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("detect", "detect"),
        ("größe 检测 🙂", "größe 检测 🙂"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("two\nlines\t\x7f", "two\\nlines\\t\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("no UTF-8: \udcff", "no UTF-8: \\udcff"),
    ],
)
def test_what_terminals_would_obey_is_shown(written: str, shown: str) -> None:
    assert _format.plain(written) == shown
    assert table(("a", "b"), [(written, "1")])[1] == f"{shown}  1"
    shown.encode()


def test_tables_count_columns_not_characters() -> None:
    assert table(("name", "n"), [("检测", "1"), ("e\u0301te", "22")]) == ["name   n", "检测   1", "e\u0301te   22"]
