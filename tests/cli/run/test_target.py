"""MODULE:FUNCTION to the function, or to an error that names cause and remedy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from director.cli._run.target import find, find_function
from director.cli._status import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def complaint(spec: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        find_function(spec, resource="device")
    return caught.value


def test_a_file(work: Path) -> None:
    assert find_function("work.py:echo", resource="device")(None, 3) == 3
    assert find_function(f"{work}:echo", resource="device")(None, 3) == 3


def test_a_dotted_module_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "part.py").write_text("def double(device, item): return 2 * item")
    assert find_function("package.part:double", resource="device")(None, 3) == 6


def test_a_dotted_name(work: Path) -> None:
    assert find_function("work.py:counter.add", resource="device")(None, 3) == 3


def test_the_same_file_is_one_module(work: Path) -> None:
    assert find("work.py:model") is find(f"{work}:model")


def test_a_file_named_like_a_module_that_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def echo(device, item): return item")
    assert find_function("./json.py:echo", resource="device")(None, 3) == 3
    assert sys.modules["json"].__name__ == "json"
    assert hasattr(sys.modules["json"], "dumps")


def test_neighbours_of_a_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "neighbour.py").write_text("factor = 7")
    (tmp_path / "folder" / "main.py").write_text("from neighbour import factor\ndef f(d, x): return factor")
    assert find_function("folder/main.py:f", resource="device")(None, 1) == 7


def test_a_built_in_function_whose_signature_nobody_knows() -> None:
    assert find_function("builtins:max", resource="device") is max


@pytest.mark.parametrize("spec", ["work.py", ":echo", "work.py:", "", ":"])
def test_not_a_pair(spec: str) -> None:
    assert "is not MODULE:NAME, such as" in str(complaint(spec))


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("nowhere.py:f", "no such file: "),
        ("nowhere:f", "no module named 'nowhere' here or among the installed packages"),
        ("nowhere.inside:f", "no module named 'nowhere' (of nowhere.inside)"),
        ("work.py:ecco", "work.py has no 'ecco'; did you mean echo?"),
        ("work.py:Counter.sub", "Counter has no 'sub'"),
        ("work.py:number", "work.py:number is an int, which can't be called; name a function"),
        ("work.py:coroutine", "is async; jobs run on threads of their own, so name a plain blocking function"),
        ("work.py:generator", "is a generator; one item has one result here, so return a list"),
        ("work.py:only_item", "can't be called as only_item(device, item): too many positional arguments"),
    ],
)
def test_names_cause_and_remedy(spec: str, cause: str, work: Path) -> None:
    assert cause in str(complaint(spec))
    assert complaint(spec).detail == ""


def test_a_file_without_its_ending(work: Path) -> None:
    assert str(complaint("./work:echo")) == f"no such file: {work.with_suffix('')}; did you mean {work}?"


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "script.sh").touch()
    assert "script.sh is not Python source: its name must end in .py" in str(complaint("./script.sh:f"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError: "),
    ],
)
@pytest.mark.parametrize("spec", ["broken.py:f", "broken:f"])
def test_a_failed_import_shows_the_users_part_of_the_traceback(
    source: str, told: str, spec: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(source)
    error = complaint(spec)
    assert str(error) == f"importing {spec.partition(':')[0]} failed with the error above"
    assert told in error.detail
    assert "broken.py" in error.detail
    assert "importlib" not in error.detail
    assert "broken" not in sys.modules
