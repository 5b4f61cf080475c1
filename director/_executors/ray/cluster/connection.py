"""The connection of this process to a cluster, and how many Directors use it if it was made here."""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from director._executors.ray.cluster.nodes import NodeNames
from director._untrusted.numbers import number_in
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from director._executors.ray.cluster.nodes import Node

logger = logging.getLogger("director")
_LAST_PORT = 65_535
_CONNECT_TIMEOUT = 5.0  # seconds
_connecting = threading.RLock()  # guards _users; one thread connects at a time, and a log handler may connect within it
_users = 0  # Directors that use the connection; 0 if there is none, or if the application has made it


def connect(address: str, runtime_env: Mapping[str, Any] | None) -> bool:
    """Connect to the cluster, unless this process is connected already: as a driver, or as a worker of Ray.

    Returns:
        Whether the connection was made here; then `disconnect` is to be called once.

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
        is_reachable = False
        try:
            is_reachable = _is_reachable(address)
            with _no_signal_warning():
                ray.init(
                    address=None if address == "local" else address,
                    runtime_env=None if runtime_env is None else dict(runtime_env),
                    logging_level=logging.WARNING,
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise DiscoveryError(_connect_error(address, error, is_reachable)) from error
        _users = 1
        return True


def cluster_nodes(address: str = "auto") -> list[Node]:
    """The nodes of a cluster that are alive. Blocks; reserves nothing.

    Args:
        address: As for `RayExecutor`.

    Raises:
        DiscoveryError: Ray is not installed, or no cluster answers.
        ValueError: The address is of another kind.
    """
    check_address(address)
    is_own = connect(address, None)
    try:
        return NodeNames().alive(_import_ray().nodes())
    finally:
        if is_own:
            disconnect()


def check_address(address: str) -> None:
    """Check the address of a cluster.

    Raises:
        ValueError: It can't be one.
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
    """Whether this process, which is connected, is a driver and not a worker of Ray."""
    ray = _import_ray()
    return bool(ray.get_runtime_context().worker.mode != ray.WORKER_MODE)


def disconnect() -> None:
    """Close the connection that was made here, unless other Directors use it."""
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
def _no_signal_warning() -> Iterator[None]:
    """Drop Ray's warning that it handles SIGTERM on the main thread only: the application handles signals."""

    def is_other(record: logging.LogRecord) -> bool:
        return "SIGTERM handler is not set" not in record.getMessage()

    ray_logger = logging.getLogger("ray._private.worker")
    ray_logger.addFilter(is_other)
    try:
        yield
    finally:
        ray_logger.removeFilter(is_other)


def _is_reachable(address: str) -> bool:
    """Whether something listens at an address: Ray itself would try for a minute. False if that can't be checked.

    Raises:
        OSError: Nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return False
    if (number := number_in(port)) > _LAST_PORT:
        raise OSError(f"there is no port {number}")
    socket.create_connection((host.strip("[]"), number), _CONNECT_TIMEOUT).close()
    return True


def _connect_error(address: str, error: Exception, is_reachable: bool) -> str:
    """The text of the error for a connection that failed."""
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    if is_reachable and "RAY_AUTH_MODE" not in os.environ:  # by itself Ray sends a token to address='auto' only
        return (
            f"what listens at {address!r} refuses this program ({first}). If the cluster asks for a token, as "
            "those of `ray start` do where there is one, set RAY_AUTH_MODE=token here, with the same ~/.ray/auth_token"
        )
    return (
        f"no Ray cluster answers at {address!r} ({first}). Start one with `ray start --head`, name the address of its "
        "head, as host:6379, or let this program start one on its own machine: address='local'"
    )
