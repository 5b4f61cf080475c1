"""`director demo`: classifies real input, then schedules the same stream of jobs in three ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._status import number_of, whole_number

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the commands."""
    parser = subparsers.add_parser(
        "demo",
        help="classify real digits on this machine's devices, then compare three ways to schedule jobs",
        description="Classify scikit-learn's 1,797 scanned digits on this machine's GPUs, or its cores where there is "
        "none; then run the same stream of jobs on simulated devices in three ways, with an idle and a busy event "
        "loop. Everything is measured now, in about 15 seconds.",
    )
    parser.add_argument("--devices", help="for the digits: gpu, cpu:4 (the GPUs if torch can use them, else the cores)")
    parser.add_argument("--simulated", metavar="N", type=whole_number(1, 1000), default=4, help="simulated devices (4)")
    parser.add_argument(
        "--jobs", metavar="N", type=whole_number(10, 1_000_000), default=450, help="jobs of the stream (450)"
    )
    parser.add_argument(
        "--load", metavar="SHARE", type=number_of("share", 0.001, 2), default=0.85, help="of the devices' time (0.85)"
    )
    parser.add_argument("--seed", metavar="N", type=whole_number(0), default=1, help="another stream of jobs (1)")
    parser.add_argument("--only", choices=("digits", "lanes"), help="only one of the two parts")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show the parts that were asked for.

    Returns:
        The exit status.
    """
    from director.cli._demo.show import show

    return show(options)
