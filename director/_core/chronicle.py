"""Events on their way to the hooks. Made only where there are hooks: everything else asks `listening` first."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.events import Event, Hook

logger = logging.getLogger("director")


class Chronicle:
    """Hands events to hooks, on the event loop and in order.

    Args:
        hooks: Callables of one event.
        time: The Director's clock.
        call: Has the loop call a function; from any thread.
    """

    def __init__(
        self,
        hooks: tuple[Hook, ...],
        time: Callable[[], float],
        call: Callable[[Callable[[Event], None], Event], object],
    ) -> None:
        self.listening = bool(hooks)
        self.time = time
        self._hooks = hooks
        self._call = call

    def post(self, event: Event) -> None:
        """From any thread: tell the hooks soon, on the loop."""
        if self.listening:
            self._call(self.tell, event)

    def tell(self, event: Event) -> None:
        """On the loop: tell the hooks now."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.exception("the hook %r raised at %r", hook, event)
