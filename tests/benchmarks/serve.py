"""Ray Serve as a contender of `benchmarks.routers`: deployments that sleep, behind the routers that it comes with.

As in the benchmark of its routers that Ray itself keeps (``router_microbenchmark.py`` of its release tests): a replica
sleeps on its event loop, which costs it next to nothing, and makes so many calls at once. The callers hold the handle,
where Ray's own go through a deployment in front: a hop less for Serve here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import DeploymentActorConfig, RequestRouterConfig
from ray.serve.experimental.capacity_queue import CapacityQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTERS = ("Serve, power of two choices", "Serve, least loaded")  # the default, and the one with a queue of tokens


class Rest:
    """A replica."""

    async def __call__(self, seconds: float) -> float:
        """Sleep; returns how long."""
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        return time.perf_counter() - began


class Block:
    """A replica whose calls hold it, as the one of Ray's issue 52609 does."""

    def __call__(self, seconds: float) -> float:
        """The same on a thread."""
        began = time.perf_counter()
        time.sleep(seconds)
        return time.perf_counter() - began


@contextmanager
def serving() -> Iterator[None]:
    """Have Serve run in the cluster that this program is connected to; without HTTP, which nobody here speaks."""
    serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False, "log_level": "ERROR"})
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # a warning for each late probe would cost it time
    try:
        yield
    finally:
        serve.shutdown()


def deployed(router: str, work: type, replicas: int, slots: int) -> Any:
    """A handle of replicas that make `slots` calls at once each.

    Args:
        router: One of `ROUTERS`.
        work: The class of the replicas.
        replicas: How many.
        slots: Of each.
    """
    made = serve.deployment(work).options(
        num_replicas=replicas,
        max_ongoing_requests=slots,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=0.1,
        ray_actor_options={"num_cpus": 0},
        **(_least_loaded() if router == ROUTERS[1] else {}),
    )
    name = f"{router} {work.__name__} {replicas} {slots}".replace(" ", "-").replace(",", "")
    return serve.run(made.bind(), name=name, route_prefix=None)


def _least_loaded() -> dict[str, Any]:
    """The settings of Ray's own benchmark."""
    return {
        "request_router_config": RequestRouterConfig(
            request_router_class="ray.serve.experimental.capacity_queue_router:CapacityQueueRouter",
            request_router_kwargs={"capacity_queue_actor_name": "capacity_queue", "max_fault_retries": 3},
            initial_backoff_s=0.05,
            backoff_multiplier=2.0,
            max_backoff_s=1.0,
        ),
        "deployment_actors": [
            DeploymentActorConfig(
                name="capacity_queue",
                actor_class=CapacityQueue,
                init_kwargs={"acquire_timeout_s": 0.5, "token_ttl_s": 5},
                actor_options={"num_cpus": 0},
            )
        ],
    }
