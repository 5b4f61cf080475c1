"""`--report`: a page or a trace of the run."""

from __future__ import annotations

import os
from pathlib import Path

from director.cli._console import print_error
from director.cli._run.output.whole_file import WholeFile, is_special
from director.cli._status import UsageError
from director.timeline import Timeline


class Report:
    """Records a run and writes a report, which is there whole or not at all.

    Args:
        path: A page if it ends in ``.html``, a trace for Perfetto if in ``.json``.
        name: The title.

    Raises:
        UsageError: The path has another ending, or can't be written.
    """

    def __init__(self, path: str, name: str) -> None:
        timeline = self.timeline = Timeline(name=name)
        kinds = {".html": timeline.report, ".json": timeline.save}
        self._path = path
        try:
            self._save = kinds[Path(path).suffix.lower()]
        except KeyError:
            raise UsageError(f"--report takes a page.html or a trace.json, not {path}") from None
        check_writable(path)

    def write(self) -> bool:
        """Write it; prints an error and returns False if that fails."""
        try:
            if is_special(self._path):
                self._save(self._path)
            else:
                with WholeFile(os.path.realpath(self._path)) as file:
                    self._save(file.temporary_path)
                    file.replace()
        except OSError as error:
            print_error(f"director run: {self._path} can't be written: {error.strerror}")
            return False
        return True


def check_writable(path: str) -> None:
    """Check, before the run, that a file can be written after it; what is there keeps its contents.

    Raises:
        UsageError: It can't.
    """
    try:
        if is_special(path) or os.path.lexists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        else:
            with WholeFile(path):
                pass
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from None
