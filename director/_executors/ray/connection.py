"""This process's connection to a cluster. Owner of the count of Directors that use one which was made here."""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from director._executors.ray.nodes import Names
from director._untrusted.numbers import number_in
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from director._executors.ray.nodes import Node

logger = logging.getLogger("director")
_LAST_PORT = 65_535
_ANSWERING = 5.0  # seconds in which a head that is there is reached
_connecting = threading.RLock()  # guards _users, and lets one connect at a time; a handler of what Ray logs may ask
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
        is_there = False
        try:
            is_there = _knock(address)
            with _no_word_of_signals():
                ray.init(
                    address=None if address == "local" else address,
                    runtime_env=None if runtime_env is None else dict(runtime_env),
                    logging_level=logging.WARNING,
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise DiscoveryError(_why(address, error, is_there)) from error
        _users = 1
        return True


def cluster_nodes(address: str = "auto") -> list[Node]:
    """The nodes of a cluster that are alive. Blocks; nothing is claimed.

    Args:
        address: As of `RayExecutor`.

    Raises:
        DiscoveryError: Ray is not installed, or no cluster answers.
        ValueError: The address is of another kind.
    """
    check_address(address)
    is_ours = connect(address, None)
    try:
        return Names().alive(_import_ray().nodes())
    finally:
        if is_ours:
            disconnect()


def check_address(address: str) -> None:
    """Refuse what can't be the address of a cluster.

    Raises:
        ValueError: It can't.
    """
    if address.startswith("ray://"):
        raise ValueError(
            f"{address!r} is for Ray Client, which carries each call through a proxy. Run the program within the "
            "cluster (`ray job submit`), or where the head can be reached, with its address as host:6379"
        )
    if not address or "/" in address:
        raise ValueError(
            f"{address!r} is no address of a cluster: say 'auto', 'local', or that of its head as host:6379"
        )


def is_driver() -> bool:
    """Whether this process, which is connected, is a program and not a worker of Ray's."""
    ray = _import_ray()
    return bool(ray.get_runtime_context().worker.mode != ray.WORKER_MODE)


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


def _knock(address: str) -> bool:
    """See whether anybody listens there: Ray itself would try for a minute. False if that can't be seen.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return False
    if (number := number_in(port)) > _LAST_PORT:
        raise OSError(f"there is no port {number}")
    socket.create_connection((host.strip("[]"), number), _ANSWERING).close()
    return True


def _why(address: str, error: Exception, is_there: bool) -> str:
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    if is_there and "RAY_AUTH_MODE" not in os.environ:  # Ray itself sends a token unasked to address='auto' only
        return (
            f"what listens at {address!r} does not let this program in ({first}). If the cluster asks for a token, as "
            "those of `ray start` do where there is one, set RAY_AUTH_MODE=token here, with the same ~/.ray/auth_token"
        )
    return (
        f"no Ray cluster answers at {address!r} ({first}). Start one with `ray start --head`, name the address of its "
        "head, as host:6379, or let this program start one on its own machine: address='local'"
    )
