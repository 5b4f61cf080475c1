"""Outcomes to lines of JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.cli._run.output import records
from director.cli._run.output.records import type_name
from director.cli._run.strict_json import NotJSON, result_to_json, to_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.text(), st.integers(0), st.none() | st.floats(0, 1e6))
def test_a_record_is_one_line_that_says_everything(result: Any, text: str, index: int, seconds: float | None) -> None:
    line = records.success(index, to_json(text), result_to_json(result), "cuda:0", seconds)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "index": index,
        "input": text,
        "result": result,
        "device": "cuda:0",
        "seconds": None if seconds is None else round(seconds, 6),
    }


@given(st.text(st.characters(categories=["Cs", "L"])))
def test_lone_surrogates_come_back_unharmed(text: str) -> None:
    assert json.loads(to_json(text)) == json.loads(json.dumps(text))


def test_text_is_readable() -> None:
    assert to_json("größe, 大") == '"größe, 大"'.encode()


def test_an_error_stands_beside_the_results() -> None:
    line = records.failure(7, b'"x"', ValueError("bad\nworse"), "cpu:0", 0.25)
    assert json.loads(line) == {
        "index": 7,
        "input": "x",
        "error": {"type": "ValueError", "message": "bad\nworse"},
        "device": "cpu:0",
        "seconds": 0.25,
    }


def test_an_error_with_its_traceback() -> None:
    try:
        math.sqrt(-1)
    except ValueError as caught:
        line = records.failure(0, b"1", caught, None, None, trace=True)
    assert "in test_an_error_with_its_traceback" in json.loads(line)["error"]["traceback"]


def test_the_type_of_an_error() -> None:
    assert type_name(ValueError()) == "ValueError"
    assert type_name(json.JSONDecodeError("", "", 0)) == "json.decoder.JSONDecodeError"


@dataclasses.dataclass
class Box:
    left: int


class Odd:
    pass


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (np.float32(1), "result is a numpy.float32, which JSON can't hold: return x.item()"),
        (np.array(1.0), "result is a numpy.ndarray, which JSON can't hold: return x.item()"),
        (
            {"boxes": [1, np.zeros(2)]},
            "result['boxes'][1] is a numpy.ndarray, which JSON can't hold: return x.tolist()",
        ),
        ([Box(1)], "result[0] is a test_records.Box, which JSON can't hold: return dataclasses.asdict(x)"),
        (b"raw", "result is a bytes, which JSON can't hold: return base64.b64encode(x).decode()"),
        ({1, 2}, "result is a set, which JSON can't hold: return sorted(x) or list(x)"),
        (pathlib.PosixPath("a"), "result is a pathlib.PosixPath, which JSON can't hold: return str(x)"),
        (datetime.date(2024, 1, 1), "result is a datetime.date, which JSON can't hold: return x.isoformat()"),
        (1j, "result is a complex, which JSON can't hold: return [x.real, x.imag]"),
        ({(1, 2): 3}, "the key (1, 2) of result is a tuple, which JSON can't hold: return numbers, strings"),
        ([1.0, float("nan")], "result[1] is nan, which JSON has no word for: return None or a string in its place"),
        (float("-inf"), "result is -inf, which JSON has no word for"),
        ({"x": Odd()}, "result['x'] is a test_records.Odd, which JSON can't hold: return numbers, strings, lists"),
    ],
)
def test_what_json_cannot_hold_is_named_with_a_remedy(result: object, complaint: str) -> None:
    with pytest.raises(NotJSON) as caught:
        result_to_json(result)
    said = str(caught.value).replace("cli.test_records", "test_records").replace("pathlib._local", "pathlib")  # 3.13
    assert said.startswith(complaint)


def test_a_result_that_holds_itself() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(NotJSON, match="Circular reference"):
        result_to_json(circle)


def test_numpy_numbers_that_are_python_numbers_pass() -> None:
    assert result_to_json(np.float64(0.5)) == b"0.5"
