"""`director top`: shows the Director of a running app on a terminal, as JSON, or as a web page."""

from __future__ import annotations

import argparse

from director.cli._status import parse_seconds, whole_number

_DESCRIPTION = """\
Show what the Director of a running app does: devices, queue, waits, failures, jobs. The app opens a socket for that:

  from director.dashboard import Dashboard

  director = Director()
  dashboard = Dashboard(director)
  async with dashboard.serve(), director:
      ...

Keys: tab another list, up and down choose, enter open, space pause, q quit."""

_EPILOG = """\
examples:
  director top                       the only app there is, or a list of them
  director top vision                the app whose Director has the name vision, or the server process vision
  director top 4711 --once --json    process 4711 once, as JSON
  director top --web                 a page on http://localhost:8265/
  ssh -t gpu-box director top

Except on loopback addresses, --web needs a token: that of the variable DIRECTOR_TOKEN, or a new one."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `top` to the commands."""
    parser = subparsers.add_parser(
        "top",
        help="watch the Director of a running app, here or as a web page",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "app", nargs="?", metavar="APP", help="the name of a Director, a process number, or the path of a socket"
    )
    parser.add_argument("--every", metavar="SECONDS", type=parse_seconds, default=0.5, help="between two updates (0.5)")
    parser.add_argument("--once", action="store_true", help="look once")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="a line of JSON for each update")
    output.add_argument("--web", action="store_true", help="serve the page instead")
    web = parser.add_argument_group("web")
    web.add_argument("--host", default="localhost", help="address to serve on (localhost)")
    web.add_argument("--port", type=whole_number(0, 65535), default=8265, help="port to serve on, 0 for any (8265)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit status.

    Raises:
        UsageError: There is no app or more than one, or a package is missing.
    """
    from director.cli._top.session import watch

    return watch(options)
