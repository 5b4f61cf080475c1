"""Which devices of a cluster are claimed, and which of them are there. For one thread at a time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeAlias

from director._executors._ray.claim import Claim
from director._executors._ray.groups import Groups
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from director._executors._ray.executor import RayExecutor
    from director._executors._ray.nodes import Node

logger = logging.getLogger("director")
Key: TypeAlias = tuple[str, int]  # the id of a node, and which of its devices
_AGAIN = 15.0  # seconds after which a device that was in use elsewhere is asked for again


class Muster:
    """Claims what the nodes have, again and again.

    Args:
        amounts: What each device holds.
        most: Devices on one node.
        terms: Of all actors.
    """

    def __init__(self, amounts: Mapping[str, float], most: int, terms: RayExecutor) -> None:
        self.there: dict[Key, Claim] = {}
        self.refusal: DiscoveryError | None = None  # why the last one that could not be used could not
        self._amounts = dict(amounts)
        self._most = most
        self._terms = terms
        self._groups = Groups()
        self._asked: dict[Key, tuple[Claim, float]] = {}  # and until when
        self._later: dict[Key, float] = {}  # in vain, and when to ask again

    def look(self, nodes: Iterable[Node], patience: float) -> tuple[list[Claim], list[Claim]]:
        """Ask for what is missing.

        Args:
            nodes: Those that are alive.
            patience: Seconds to wait for what is asked for.

        Returns:
            The claims whose devices have come, and those whose nodes have left.
        """
        alive = {node.id: node for node in nodes}
        gone = [self.there.pop(key) for key in list(self.there) if key[0] not in alive]
        for key in [key for key in self._asked if key[0] not in alive]:
            self._asked.pop(key)[0].release()
        self._later = {key: moment for key, moment in self._later.items() if key[0] in alive}
        for node in alive.values():
            for ordinal in range(min(node.holds(self._amounts), self._most)):
                self._ask(node, ordinal)
        return self._arrived(patience), gone

    def release(self) -> None:
        """Let go of all that is held, there or not."""
        for claim in [*self.there.values(), *(claim for claim, _ in self._asked.values())]:
            claim.release()
        self._groups.close()

    @property
    def missing(self) -> int:
        """Devices that the nodes have, and that are not there."""
        return len(self._asked) + len(self._later)

    def _ask(self, node: Node, ordinal: int) -> None:
        key, now = (node.id, ordinal), time.monotonic()
        if key in self.there or key in self._asked or self._later.get(key, now) > now:
            return
        self._later.pop(key, None)
        self._asked[key] = Claim(node, ordinal, self._amounts, self._terms, self._groups), now + self._terms.patience

    def _arrived(self, patience: float) -> list[Claim]:
        import ray

        if not self._asked:
            return []
        answers = {claim.hardware: key for key, (claim, _) in self._asked.items()}
        ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=patience)
        arrived = []
        for key in [answers[answer] for answer in ready]:
            claim, _ = self._asked.pop(key)
            if self._recognise(claim):
                self.there[key] = claim
                arrived.append(claim)
            else:
                self._give_up(key, claim)
        for key, (claim, until) in list(self._asked.items()):
            if time.monotonic() >= until:
                del self._asked[key]
                self._give_up(key, claim)
        return arrived

    def _give_up(self, key: Key, claim: Claim) -> None:
        claim.release()
        self._later[key] = time.monotonic() + _AGAIN

    def _recognise(self, claim: Claim) -> bool:
        """Whether the first actor says what it is."""
        import ray
        from ray.exceptions import RayError

        taken = {other.device.uuid for other in self.there.values() if other.device is not None}
        try:
            claim.recognise(ray.get(claim.hardware), taken)
        except DiscoveryError as error:
            self.refusal = error
            logger.warning("%s", error)
            return False
        except (RayError, ImportError) as error:
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            self.refusal = DiscoveryError(
                f"no actor can be started on the node {claim.node.name}: {first}. Each node needs gpu-director, of the "
                "version that the driver has, or a runtime_env that brings it"
            )
            logger.warning("%s", self.refusal)
            return False
        return True
