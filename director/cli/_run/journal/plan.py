"""What becomes of the results of an earlier run: they are refused, gone on with, or replaced."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from director import _format
from director.cli._status import Refusal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from director.cli._run.journal.history import History
    from director.cli._run.journal.journalled import JournalledOutput

Resume: TypeAlias = Literal["no", "yes", "force"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for.

    Args:
        resume: Go on with an earlier run; ``"force"``: though its configuration is another one.
        retry_failed: Try its failures again.
        fresh: Replace its results.
    """

    resume: Resume = "no"
    retry_failed: bool = False
    fresh: bool = False


def earlier_run(output: JournalledOutput, named: str, wish: Wish, config: Mapping[str, Any]) -> History | None:
    """What an earlier run has done that this one goes on with; `None` to start over.

    Raises:
        Refusal: There are results, and the user says neither to go on nor to replace them; or it is not possible to go
            on.
    """
    if wish.fresh:
        return None
    goes_on = wish.resume != "no" or wish.retry_failed
    if not output.has_journal:
        if output.size():
            raise Refusal(f"{named} exists and has no journal, so what is in it is not known: {_OTHERWISE}")
        if not goes_on or wish.resume != "no":
            return None
        raise Refusal(f"there is no earlier run of {named} whose failures could be tried again")
    if not goes_on:
        raise Refusal(f"{named} holds an earlier run: --resume goes on with it, --fresh starts over")
    history = output.history()
    if output.is_missing and history.lost:
        raise Refusal(
            f"{named} is gone, and its journal lists {_format.counted(history.lost, 'result')}: put it back, or "
            "--fresh starts over"
        )
    if wish.resume != "force":
        _check_config(named, history.config, config)
    return history


_OTHERWISE = "name another --output, or --fresh replaces it"


def _check_config(named: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [part for part in {**before, **now} if before.get(part) != now.get(part)]
    if differing:
        parts = "; ".join(f"{part} was {before.get(part)!r} and is {now.get(part)!r}" for part in differing)
        raise Refusal(
            f"the run of {named} had another configuration: {parts}. --resume=force goes on all the same, --fresh "
            "starts over"
        )


def config_of(options: argparse.Namespace, functions: Mapping[str, Callable[..., Any] | None]) -> dict[str, Any]:
    """What results depend on: the functions by name, the kind of the items, and how they are identified and saved.

    Args:
        options: Of the command line.
        functions: By their option, those that were found; their code counts with ``--fingerprint code``.
    """
    config: dict[str, Any] = {
        "function": _name_of(options.function),
        "model": _name_of(options.model),
        "decode": _name_of(options.decode),
        "input": options.kind,
        "id_field": options.id_field,
        "out_dir": options.out_dir,
        "template": options.template,
        "shard": None if options.shard is None else "{}/{}".format(*options.shard),
        "code": _code_of(functions) if options.fingerprint == "code" else None,
    }
    return {part: value for part, value in config.items() if value is not None}


def _name_of(spec: str | None) -> str | None:
    """``detect:boxes`` of ``./models/detect.py:boxes``: the same from whatever folder it is run."""
    if spec is None:
        return None
    module, _, name = spec.rpartition(":")
    return f"{Path(module).stem if module.endswith('.py') or '/' in module else module}:{name}"


def _code_of(functions: Mapping[str, Callable[..., Any] | None]) -> str:
    """A digest of the source files that the functions are in."""
    digest = hashlib.sha256()
    for name in sorted(functions):
        function = functions[name]
        if function is None:
            continue
        try:
            path = inspect.getsourcefile(inspect.unwrap(function))
            digest.update(Path(path).read_bytes() if path else b"")
        except (OSError, TypeError):  # built in, or an instance
            digest.update(repr(function).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
