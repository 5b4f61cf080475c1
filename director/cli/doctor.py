"""`director doctor`: checks this machine and this environment, and prints problems and remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director import _format
from director.cli._console import print_json, print_text
from director.cli._status import DONE, FAILED

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Iterator, Sequence

    from director.cli._doctor.checks import Finding

_DESCRIPTION = """\
Examine this machine and this environment: the GPUs by NVML, CUDA and a Director, the mask, versions, limits of
threads, processes, files and memory, and running apps. Prints problems and remedies. Nothing is changed, and no GPU
is used by this process. Exit status: 0 no problem, 1 a problem was found."""


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add `doctor` to the commands."""
    parser = subparsers.add_parser("doctor", help="find problems of this machine's set-up", description=_DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="findings and facts, as one JSON document")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Examine the machine, and print the findings.

    Returns:
        0 if nothing is wrong, else 1.
    """
    from director.cli._doctor.checkup import examine

    found = examine()
    if options.json:
        print_json(found.document(), indent=2)
    else:
        print_text(_lines(found.findings))
    return FAILED if any(each.level == "wrong" for each in found.findings) else DONE


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    part = ""
    for each in findings:
        if each.part != part:
            part = each.part
            yield part
        first, *rest = each.text.splitlines()
        yield f"  {each.level:5}  {first}"
        yield from (f"         {line}" for line in rest)
        if each.remedy:
            yield f"         → {each.remedy}"
    wrong, notes = (sum(each.level == level for each in findings) for level in ("wrong", "note"))
    said = "nothing looks wrong" if not wrong else f"{_format.counted(wrong, 'thing')} wrong"
    yield f"{said}, {_format.counted(notes, 'note')}"
