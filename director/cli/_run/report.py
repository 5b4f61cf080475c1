"""`--report FILE`: a page about the run, or a trace of it."""

from __future__ import annotations

import os
from pathlib import Path

from director.cli._status import UsageError
from director.cli._terminal import complain
from director.timeline import Timeline


class Report:
    """Watches a run and writes what it saw.

    Args:
        path: A page if it ends in ``.html``, a trace for Perfetto if in ``.json``.
        name: What ran.

    Raises:
        UsageError: It ends in something else, or can't be written.
    """

    def __init__(self, path: str, name: str) -> None:
        timeline = self.timeline = Timeline(name=name)
        kinds = {".html": timeline.report, ".json": timeline.save}
        self._path = path
        try:
            self._save = kinds[Path(path).suffix.lower()]
        except KeyError:
            raise UsageError(f"--report takes a page.html or a trace.json, not {path}") from None
        try:  # before the run, which may take hours; what the file holds stays until there is something better
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from None

    def write(self) -> bool:
        """Write it; False, with a word on the standard error, if that can't be done any more."""
        try:
            self._save(self._path)
        except OSError as error:
            complain(f"director run: {self._path} can't be written: {error.strerror}")
            return False
        return True
