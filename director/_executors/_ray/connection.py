"""This process's connection to a cluster. Owner of the count of Directors that use one which was made here."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from director._executors._ray.nodes import Names
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from director._executors._ray.nodes import Node

logger = logging.getLogger("director")
_ANSWERING = 5.0  # seconds in which a head that is there is reached
_connecting = threading.Lock()  # guards _users, and lets one connect at a time
_users = 0  # of a connection that was made here; 0 if there is none, or if somebody else has made it


def connect(address: str, runtime_env: Mapping[str, Any] | None) -> bool:
    """Connect to the cluster, unless this process is connected already: as a driver, or as a worker of Ray's.

    Returns:
        Whether the connection is ours, to be given up by `disconnect`.

    Raises:
        DiscoveryError: Ray is not installed, or no cluster answers.
    """
    global _users
    ray = _import_ray()
    with _connecting:
        if _users:
            _users += 1
            return True
        if ray.is_initialized():
            return False
        try:
            _knock(address)
            with _no_word_of_signals():
                ray.init(
                    address=None if address == "local" else address,
                    runtime_env=None if runtime_env is None else dict(runtime_env),
                    logging_level=logging.WARNING,
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise DiscoveryError(_why(address, error)) from error
        _users = 1
        return True


def cluster_nodes(address: str = "auto") -> list[Node]:
    """The nodes of a cluster that are alive. Blocks; nothing is claimed.

    Args:
        address: As of `RayExecutor`.

    Raises:
        DiscoveryError: Ray is not installed, or no cluster answers.
    """
    is_ours = connect(address, None)
    try:
        return Names().alive(_import_ray().nodes())
    finally:
        if is_ours:
            disconnect()


def disconnect() -> None:
    """The last of those who use our connection closes it."""
    global _users
    ray = _import_ray()
    with _connecting:
        _users -= 1
        if not _users:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise DiscoveryError("Ray is not installed: pip install 'gpu-director[ray]'") from None
    return ray


@contextmanager
def _no_word_of_signals() -> Iterator[None]:
    """Ray warns that it handles SIGTERM on the main thread only; who handles it here is the application's business."""

    def is_other(record: logging.LogRecord) -> bool:
        return "SIGTERM handler is not set" not in record.getMessage()

    speaker = logging.getLogger("ray._private.worker")
    speaker.addFilter(is_other)
    try:
        yield
    finally:
        speaker.removeFilter(is_other)


def _knock(address: str) -> None:
    """See whether anybody listens there: Ray itself would try for a minute.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERING).close()


def _why(address: str, error: Exception) -> str:
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"no Ray cluster answers at {address!r} ({first}). Start one with `ray start --head`, name the address of its "
        "head, as host:6379, or let this program start one on its own machine: address='local'"
    )
