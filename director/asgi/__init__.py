"""Parts of a web service around a Director, in plain ASGI: for Starlette, FastAPI, Litestar, Quart and Django.

Nothing here needs a framework; `director.fastapi` installs these for FastAPI.
"""

from director.asgi._deadline import RequestDeadline, time_left
from director.asgi._disconnect import CancelOnDisconnect
from director.asgi._health import HealthEndpoints
from director.asgi._job_store import JobStore, StoredJob
from director.asgi._lifespan import lifespan
from director.asgi._problem import MEDIA_TYPE, Problem, ProblemMiddleware, problem_of

__all__ = [
    "MEDIA_TYPE",
    "CancelOnDisconnect",
    "HealthEndpoints",
    "JobStore",
    "Problem",
    "ProblemMiddleware",
    "RequestDeadline",
    "StoredJob",
    "lifespan",
    "problem_of",
    "time_left",
]
