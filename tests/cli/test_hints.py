"""What the command line says of a word that it does not know, and of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from director._devices.option import on_command_line, written
from director.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("benhc",),
            "invalid choice: 'benhc' (choose from devices, demo, run, bench, top, doctor), did you mean bench?",
        ),
        (("device",), "did you mean devices?"),
        (("devices", "--jsno"), "unrecognized arguments: --jsno, did you mean --json?"),
        (("devices", "--evry=3"), "unrecognized arguments: --evry=3, did you mean --every?"),
        (("bench", "--only", "brust"), "did you mean burst?"),
        (("--versoin", "devices"), "did you mean --version?"),
    ],
)
def test_a_word_that_is_like_a_known_one(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("xyzzy",), ("devices", "--xyzzy"), ("devices", "xyzzy")])
def test_a_word_that_is_like_none(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "xyzzy" in told
    assert "did you mean" not in told


def test_remedies_name_the_option_of_the_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "work.py").write_text("def length(device, line): return len(line)\n")
    (tmp_path / "lines.txt").write_text("four\n")
    assert main(["run", f"{tmp_path}/work.py:length", str(tmp_path / "lines.txt"), "--lines"]) == 0
    told = caplog.text
    assert "Say --devices cpu if that is what you want, or --devices gpu to have an error" in told
    assert "devices=" not in told


def test_messages_are_for_python_outside_of_a_command() -> None:
    assert written("cpu") == "devices='cpu'"
    with on_command_line():
        assert written("cpu") == "--devices cpu"
    assert written("cpu") == "devices='cpu'"
