"""`director run MODULE:FUNCTION INPUT...`: a function over files, lines, JSONL records or stdin, on all devices."""

from __future__ import annotations

import argparse

from director._untrusted.numbers import MOST_SECONDS, MOST_SLOTS, number_in
from director.cli._run.flow import parse_halt
from director.cli._status import number_of, whole_number

_DESCRIPTION = """\
Call a blocking function for every input, each on a free device, and write one line of JSON per item:

  {"index": 0, "input": "a.png", "result": {"label": "cat"}, "device": "cuda:1", "seconds": 0.0213}
  {"index": 1, "input": "b.png", "error": {"type": "OSError", "message": "..."}, "device": "cuda:0", "seconds": 0.0021}

The function is called as FUNCTION(device, item), or with --model as FUNCTION(replica, item)."""

_EPILOG = """\
examples:
  director run detect.py:detect 'photos/**/*.jpg' --model detect.py:model --output boxes.jsonl
  director run app.embed:embed texts.txt --lines --slots 2 --ordered > vectors.jsonl
  director run embed.py:embed texts.txt --lines --ray head:6379
  tail -f events.jsonl | director run score.py:score - --jsonl --devices cpu:4

Ctrl-C ends the run when the running items have finished, a second Ctrl-C ends it at once.
exit status: 0 done, 1 some items failed, 2 usage, 3 halted by --halt, 130 interrupted"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the commands."""
    parser = subparsers.add_parser(
        "run",
        help="call a function for every file, line or record of the input, on all devices",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="a dotted module or the path of a .py file")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="files or quoted glob patterns; - is stdin")
    _add_input_options(parser)
    _add_device_options(parser)
    _add_run_options(parser)
    _add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    from director.cli._run.session import run_all

    return run_all(options)


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input", "One item is a file's path (for -: each line of stdin is one), or:")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--lines", dest="kind", action="store_const", const="lines", help="each line of the INPUTs")
    kind.add_argument("--jsonl", dest="kind", action="store_const", const="jsonl", help="the JSON value of each line")
    group.add_argument("-0", "--null", action="store_true", help="lines end in a zero byte, as from find -print0")
    parser.set_defaults(kind="files")


def _add_device_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("devices")
    group.add_argument("--model", metavar="MODULE:NAME", help="a Model, or a loader function of a device")
    group.add_argument(
        "--devices", type=parse_devices, help="gpu, cpu, cpu:4, simulated:4, or GPU indices or UUIDs: 0,2 (all GPUs)"
    )
    group.add_argument("--ray", metavar="ADDRESS", help="the devices of a Ray cluster: auto, or its head's host:6379")
    group.add_argument(
        "--slots", metavar="N", type=parse_slots, default=1, help="items at once per device: 2, or 0=2,1=4 (1)"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=number_of("number of seconds", 1e-9, MOST_SECONDS),
        help="an item that runs longer fails",
    )
    group.add_argument(
        "--halt",
        metavar="WHEN",
        type=parse_halt,
        default="never",
        help="never; soon or now: at the first failure start no more, or also drop what runs; soon,fail=N; N (never)",
    )
    group.add_argument(
        "--window", metavar="N", type=whole_number(1), help="most items in memory (8 per slot, at least 64)"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="FILE", help="write the results there, not to stdout")
    group.add_argument("--report", metavar="FILE", help="a page.html about the run, or a trace.json for Perfetto")
    group.add_argument("--ordered", action="store_true", help="in the order of the input, not of completion")
    group.add_argument("--traceback", action="store_true", help="put tracebacks into error records")
    output = group.add_mutually_exclusive_group()
    output.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    output.add_argument("--json", action="store_true", help="no progress; the summary as one JSON object on stderr")


def parse_devices(text: str) -> str | list[str | int]:
    """``"cpu:2"`` unchanged; ``"0,2"`` as indices, other words of a list as UUIDs."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty place")
    if len(words) == 1 and not words[0].isdecimal():
        return words[0]
    return [number_in(word) if word.isdecimal() else word for word in words]


def parse_slots(text: str) -> int | dict[str | int, int]:
    """``2`` for all, or ``0=2,1=4`` for each."""
    whole = whole_number(1, MOST_SLOTS)
    if "=" not in text:
        return whole(text)
    pairs = (pair.partition("=") for pair in text.split(","))
    return {number_in(device) if device.isdecimal() else device: whole(number) for device, _, number in pairs}
