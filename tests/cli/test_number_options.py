"""Numbers on the command line: what is no number, or out of range, is a usage error that says the limits."""

from __future__ import annotations

import pytest

from director.cli import main

DIGITS = "9" * 5000
COMMANDS = {
    "--slots": ["run", "x:y", "a"],
    "--timeout": ["run", "x:y", "a"],
    "--window": ["run", "x:y", "a"],
    "--halt": ["run", "x:y", "a"],
    "--port": ["top"],
    "--every": ["top"],
    "--simulated": ["demo"],
    "--jobs": ["demo"],
    "--load": ["demo"],
}
WRONG = ["nan", "1e400", "-inf", "-1", "1.5.5", "\u0663", "\xb2", "", "one"]


@pytest.mark.parametrize("said", WRONG, ids=ascii)
@pytest.mark.parametrize("option", COMMANDS)
def test_what_is_no_number(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS[option], f"{option}={said}"]) == 2
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.parametrize("option", [option for option in COMMANDS if option != "--halt"])
def test_more_digits_than_any_limit(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS[option], f"{option}={DIGITS}"]) == 2
    said = capsys.readouterr().err
    assert f"argument {option}: '999" in said
    assert len(said) < 2000
