"""`director run MODULE:FUNCTION INPUT...`: a function over files, lines, records or rows, on all devices."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from director._untrusted.numbers import MOST_SECONDS, MOST_SLOTS, number_in
from director.cli._run.calls.rules import (
    DEFAULT,
    KINDS,
    Halt,
    TimeLimit,
    parse_batch_size,
    parse_halt,
    parse_kinds,
    parse_limit,
)
from director.cli._status import number_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = """\
Call a blocking function for every input, each on a free device, and write one line of JSON per item:

  {"index": 0, "input": "a.png", "result": {"label": "cat"}, "device": "cuda:1", "seconds": 0.0213}
  {"index": 1, "input": "b.png", "error": {"type": "OSError", "message": "..."}, "device": "cuda:0", "seconds": 0.0021}

The function is called as FUNCTION(device, item), or with --model as FUNCTION(replica, item)."""

_EPILOG = """\
examples:
  director run detect.py:detect 'photos/**/*.jpg' --model detect.py:model --output boxes.jsonl
  director run detect.py:detect 'photos/**/*.jpg' --model detect.py:model --output boxes.jsonl --resume
  director run app.embed:embed texts.txt --lines --slots 2 --ordered > vectors.jsonl
  director run embed.py:embed texts.txt --lines --ray head:6379
  tail -f events.jsonl | director run score.py:score - --jsonl --devices cpu:4

With --output the run can be gone on with after a kill: FILE.journal lists what is done.
Ctrl-C ends the run when the running items have finished, a second Ctrl-C ends it at once.
exit status: 0 done, 1 some items failed, 2 usage, 3 halted by --halt, 4 refused to go on with or to write over
results, 130 and 143 interrupted, 141 the reader of the results has gone"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the commands."""
    parser = subparsers.add_parser(
        "run",
        help="call a function for every file, line or record of the input, on all devices",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    function = parser.add_argument(
        "function", metavar="MODULE:FUNCTION", help="a dotted module or the path of a .py file"
    )
    inputs = parser.add_argument("inputs", metavar="INPUT", nargs="+", help="files or quoted glob patterns; - is stdin")
    _add_input_options(parser, inputs)
    _add_device_options(parser)
    _add_run_options(parser)
    _add_resume_options(parser, function, inputs)
    _add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    from director.cli._run.command import run_all

    return run_all(options)


class _InPlaceOf(argparse.Action):
    """An option with which some positional arguments may be left out."""

    def __init__(self, *, instead: Sequence[argparse.Action], **settings: Any) -> None:
        super().__init__(**settings)
        self._instead = instead

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for action in self._instead:
            action.required = False
        setattr(namespace, self.dest, True if self.nargs == 0 else [*getattr(namespace, self.dest), values])


def _add_input_options(parser: argparse.ArgumentParser, inputs: argparse.Action) -> None:
    group = parser.add_argument_group("input", "One item is a file's path (for -: each line of stdin is one), or:")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--lines", dest="kind", action="store_const", const="lines", help="each line of the INPUTs")
    kind.add_argument("--jsonl", dest="kind", action="store_const", const="jsonl", help="the JSON value of each line")
    kind.add_argument("--csv", dest="kind", action="store_const", const="csv", help="each row, as a dict")
    group.add_argument(
        "--files-from", metavar="FILE", action=_InPlaceOf, instead=[inputs], default=[],
        help="a file that lists the paths of items, one a line",
    )  # fmt: skip
    group.add_argument("-0", "--null", action="store_true", help="lines end in a zero byte, as from find -print0")
    group.add_argument("--id-field", metavar="NAME", help="the field that identifies a record or row (its whole text)")
    group.add_argument("--in-place", action="store_true", help="the function changes its input files itself")
    group.add_argument("--shard", metavar="I/N", type=parse_shard, help="only part I of N, by what items are")
    group.add_argument(
        "--decode", metavar="MODULE:FUNCTION", help="make an item's value by FUNCTION(item), off the device's thread"
    )
    group.add_argument(
        "--decode-threads", metavar="N", type=whole_number(1, 1024), help="threads that do so (one for each core)"
    )
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
    group.add_argument(
        "--executor",
        choices=("thread", "process"),
        help="where calls run: a process for each slot can be ended (process with --timeout, else thread)",
    )
    group.add_argument(
        "--batch-size",
        metavar="N",
        type=parse_batch_size,
        help="call the function with a list of up to N items; auto: as many as the memory allows",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_limit,
        default=TimeLimit(),
        help="an item that runs longer fails, and its process is ended; 300%%: three times the median; "
        "300%%,60: the shorter of both",
    )
    group.add_argument("--retries", metavar="N", type=whole_number(0, 1000), default=0, help="further attempts (0)")
    group.add_argument(
        "--retry-on",
        metavar="KINDS",
        type=parse_kinds,
        default=DEFAULT,
        help=f"after which failures, of {', '.join(KINDS)} (died,oom,timeout)",
    )
    group.add_argument(
        "--backoff",
        metavar="SECONDS",
        type=number_of("number of seconds", 0.0, 300.0),
        default=0.0,
        help="before the second attempt; doubled for each further one (0)",
    )
    group.add_argument(
        "--halt",
        metavar="WHEN",
        type=parse_halt,
        default=Halt(),
        help="never; soon or now: at the first failure start no more, or also drop what runs; soon,fail=N, "
        "now,fail=N%%, also success= and done=; N (never)",
    )
    group.add_argument(
        "--grace",
        metavar="SECONDS",
        type=number_of("number of seconds", 0.0, MOST_SECONDS),
        default=4.0,
        help="after SIGTERM, how long running items may take (4)",
    )
    group.add_argument(
        "--window", metavar="N", type=whole_number(1), help="most items in memory (8 per slot, at least 64)"
    )
    group.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")


def _add_resume_options(parser: argparse.ArgumentParser, function: argparse.Action, inputs: argparse.Action) -> None:
    group = parser.add_argument_group("an earlier run", "whose results are in --output, or none yet:")
    again = group.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", dest="resume", action="store_const", const="yes", help="go on: run what it has not ended"
    )
    again.add_argument(
        "--resume=force", dest="resume", action="store_const", const="force", help="though its configuration differs"
    )
    again.add_argument("--fresh", action="store_true", help="replace its results")
    group.add_argument(
        "--retry-failed", action="store_true", help="run what has failed; with --resume, also what it has not ended"
    )
    group.add_argument(
        "--fingerprint", choices=("name", "code"), default="name", help="what of the function must be the same (name)"
    )
    group.add_argument(
        "--merge",
        action=_InPlaceOf,
        nargs=0,
        default=False,
        instead=[function, inputs],
        help="join the finished shards of --output into it",
    )
    parser.set_defaults(resume="no")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="FILE", help="write the results there, not to stdout")
    group.add_argument("--out-dir", metavar="DIR", help="save each result to a file of its own there")
    group.add_argument(
        "--template", metavar="NAME", help="its name, of {relpath}, {stem}, {name}, {parent}, {key}, {index}"
    )
    group.add_argument(
        "--skip-existing", action="store_true", help="leave out items whose file is there, though no run lists them"
    )
    group.add_argument("--failures", metavar="FILE", help="write the records of failed items there too, at the end")
    group.add_argument("--report", metavar="FILE", help="a page.html about the run, or a trace.json for Perfetto")
    group.add_argument("--ordered", action="store_true", help="in the order of the input, not of completion")
    group.add_argument("--traceback", action="store_true", help="put tracebacks into error records")
    group.add_argument(
        "--progress", choices=("auto", "lines", "json", "none"), default="auto", help="on stderr: bars or lines (auto)"
    )
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


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8``: the second of eight."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no shard such as 1/8, the first of eight")
    return int(match[1]), int(match[2])
