"""What a user says about the cluster, as its parts use it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Terms:
    """Of all actors of a fleet.

    Args:
        patience: Seconds in which an actor starts.
        grace: Seconds between asking a call to end and ending its actor.
        actor_env: The runtime environment of each actor; `None` if the job's own says it.
    """

    patience: float
    grace: float
    actor_env: Mapping[str, Any] | None
