"""Metrics of a Director for Prometheus. Needs the extra ``prometheus``: ``pip install 'gpu-director[prometheus]'``.

Jobs don't get slower: the collector takes one snapshot of the stats per scrape. The exceptions exist only if you give
the Director a hook: the two histograms with `Durations`, jobs by function and by tenant with `Breakdown`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import defaultdict
from multiprocessing import parent_process
from typing import TYPE_CHECKING

from director import DirectorState, Health, __version__
from director._untrusted.numbers import seconds, whole

try:
    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
    from prometheus_client.utils import floatToGoString
except ImportError as _error:
    raise ImportError("director.prometheus needs prometheus-client: pip install 'gpu-director[prometheus]'") from _error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from director import Device, Director, Stats
    from director.events import Event
    from director.hooks import RawRecord

__all__ = ["BUCKETS", "OTHER", "Breakdown", "DirectorCollector", "Durations"]

OTHER = "other"
"""Value of the label ``function`` or ``tenant`` for those beyond the most that are told apart."""

_IF_ANY = ("server", "worker")  # labels that are left out when they are empty
_OUTCOMES = ("succeeded", "failed", "cancelled")
_MOST_ENDED = 10_000  # jobs that ended for their callers before their calls had

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms, in seconds."""


class Durations:
    """A hook that counts how long jobs waited and ran, in the buckets of a histogram: ``Director(hooks=[durations])``.

    Costs about a microsecond for each job. Give it to the `DirectorCollector` of the same Director.

    Args:
        buckets: Upper bounds in seconds, ascending.

    Raises:
        TypeError: A bound is no number.
        ValueError: They don't ascend, or one is out of range, or there are none. The infinite bound is added
            automatically.
    """

    wants: tuple[type[Event], ...] = ()

    def __init__(self, buckets: Sequence[float] = BUCKETS) -> None:
        self.buckets: tuple[float, ...] = tuple(seconds("a bound of buckets", bound, zero=True) for bound in buckets)
        if not self.buckets or any(low >= high for low, high in zip(self.buckets, self.buckets[1:], strict=False)):
            raise ValueError(f"buckets must ascend, and there must be one at least: {buckets!r}")
        self._waits = [0] * (len(self.buckets) + 1)
        self._runs = [0] * (len(self.buckets) + 1)
        self._waited = self._ran = 0.0

    def __call__(self, event: Event) -> None:
        """It wants no events."""

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens; the counts go on."""

    def devices_changed(self, slots: tuple[Device, ...]) -> None:
        """It counts all devices together."""

    def record(self, record: RawRecord) -> None:
        """A job, or one of its attempts, is over: count it if its call has ended."""
        submitted, started, ended = record[4], record[5], record[6]
        if started is None or ended is None:
            return
        waited, ran = started - submitted, ended - started
        self._waits[bisect_left(self.buckets, waited)] += 1
        self._runs[bisect_left(self.buckets, ran)] += 1
        self._waited += waited
        self._ran += ran

    def end(self, at: float) -> None:
        """The Director has closed; the counts stay."""

    def waits(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum of the seconds, of waiting."""
        return self._cumulative(self._waits), self._waited

    def runs(self) -> tuple[list[tuple[str, float]], float]:
        """The same of running."""
        return self._cumulative(self._runs), self._ran

    def _cumulative(self, counts: list[int]) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, number in zip((*self.buckets, float("inf")), counts.copy(), strict=True):
            total += number
            rows.append((str(floatToGoString(bound)), float(total)))  # type: ignore[no-untyped-call]
        return rows


class Breakdown:
    """A hook that counts jobs by function and by tenant, each with a bound: ``Director(hooks=[breakdown])``.

    Costs about a microsecond for each job. Give it to the `DirectorCollector` of the same Director. The first names to
    come keep a label of their own for as long as the process lives, since a counter must not shrink; all others are
    counted under `OTHER`.

    Args:
        functions: Most functions that are told apart; 0 counts none.
        tenants: Most tenants that are told apart; 0 counts none. Jobs without a tenant are not among these.

    Raises:
        TypeError: One is no int.
        ValueError: One is negative.
    """

    wants: tuple[type[Event], ...] = ()

    def __init__(self, *, functions: int = 50, tenants: int = 50) -> None:
        self._most_functions, self._most_tenants = whole("functions", functions, 0), whole("tenants", tenants, 0)
        self._functions: dict[str, Outcomes] = {}
        self._tenants: dict[str, Outcomes] = {}
        self._ended: dict[int, None] = {}  # jobs that did not succeed, of which a second record may come

    def __call__(self, event: Event) -> None:
        """It wants no events."""

    def begin(
        self, clock: Callable[[], float], slots: tuple[Device, ...], unfinished: Callable[[], list[RawRecord]]
    ) -> None:
        """A Director opens, whose jobs are numbered anew; the counts go on."""
        self._ended.clear()

    def end(self, at: float) -> None:
        """The Director has closed; the counts stay."""

    def record(self, record: RawRecord) -> None:
        """A job, or one of its attempts, is over."""
        job, name, state, _, _, started, ended, _, _, tenant = record
        is_counted = state == "retried" or (state != "succeeded" and self._is_known(job))
        ran = 0.0 if started is None or ended is None else ended - started
        if self._most_functions:
            _outcomes_of(self._functions, name, self._most_functions).add(None if is_counted else state, ran)
        if self._most_tenants and tenant is not None:
            _outcomes_of(self._tenants, tenant, self._most_tenants).add(None if is_counted else state, ran)

    def _is_known(self, job: int) -> bool:
        """Whether the job had ended before; then this record is of the end of its call."""
        if job in self._ended:
            del self._ended[job]
            return True
        self._ended[job] = None
        if len(self._ended) > _MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        return False

    def functions(self) -> dict[str, Outcomes]:
        """The counts of each function, and of the others as `OTHER`."""
        return self._functions.copy()

    def tenants(self) -> dict[str, Outcomes]:
        """The counts of each tenant, and of the others as `OTHER`."""
        return self._tenants.copy()


class Outcomes:
    """Jobs by how they ended, and the seconds that they ran; written on the event loop alone."""

    __slots__ = ("cancelled", "failed", "ran", "succeeded")

    def __init__(self) -> None:
        self.succeeded: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.ran: float = 0.0

    def add(self, state: str | None, ran: float) -> None:
        """Count one more end; `None` for an attempt, or a call that has ended after its job."""
        self.ran += ran
        if state is not None:
            setattr(self, state, getattr(self, state) + 1)


def _outcomes_of(groups: dict[str, Outcomes], name: str, most: int) -> Outcomes:
    found = groups.get(name)
    if found is None:
        name = name if len(groups) < most else OTHER
        found = groups[name] = groups.get(name) or Outcomes()
    return found


class DirectorCollector:
    """Reads the stats of Directors when Prometheus scrapes; from any thread.

    Args:
        director: The Director; started or not.
        durations: The hook of the same Director that counts waits and runs; `None` leaves the two histograms out.
        breakdown: The hook of the same Director that counts by function and tenant; `None` leaves these metrics out.
        registry: Where it registers itself; `None` registers it nowhere.
        name: Value of the label ``director``; `None` takes the Director's name, or ``""``.
        worker: Value of the label ``worker`` of what this process counts, for servers with several worker processes.
            `None`: the number of the process if it was started by `multiprocessing`, as uvicorn and hypercorn start
            their workers, or by gunicorn; else there is no such label. ``""``: there is none. What a Director with
            ``server=`` reads from its server process is the same in all workers, and has the label ``server`` instead.
    """

    def __init__(
        self,
        director: Director,
        durations: Durations | None = None,
        *,
        breakdown: Breakdown | None = None,
        registry: CollectorRegistry | None = REGISTRY,
        name: str | None = None,
        worker: str | None = None,
    ) -> None:
        self._watched: dict[str, tuple[Director, Durations | None, Breakdown | None]] = {}
        self._worker = worker
        self.watch(director, durations, breakdown=breakdown, name=name)
        if registry is not None:
            registry.register(self)

    def watch(
        self,
        director: Director,
        durations: Durations | None = None,
        *,
        breakdown: Breakdown | None = None,
        name: str | None = None,
    ) -> None:
        """Read another Director too, for a process that has several.

        Raises:
            ValueError: One of that name is read already.
        """
        name = (director.name or "") if name is None else name
        if name in self._watched:
            raise ValueError(f"a Director named {name!r} is read already; give this one another `name`")
        self._watched[name] = (director, durations, breakdown)

    def collect(self) -> Iterator[Metric]:
        """One scrape: a snapshot of each Director, and the metrics made of them."""
        worker = _own_worker() if self._worker is None else str(self._worker)
        scrape = _Scrape()
        for label, (director, durations, breakdown) in self._watched.copy().items():
            server, stats = director.server or "", director.stats()
            own = [_text(label), server, _text(worker)]
            common = [_text(label), server, "" if server else _text(worker)]  # of all processes that have the server
            scrape.add_state(own, director)
            scrape.add_jobs(common, stats)
            scrape.add_devices(common, stats)
            scrape.add_replicas(common, stats, time.time() - director._clock.time())
            scrape.add_functions(common, stats)
            if durations is not None:
                scrape.add_durations(own, durations)
            if breakdown is not None:
                scrape.add_breakdown(own, breakdown)
        yield from scrape.families()


class _Scrape:
    """The metrics of one scrape, empty until they are added to."""

    def __init__(self) -> None:
        mine = ["director", *_IF_ANY]
        device = [*mine, "device", "uuid", "kind"]
        self.info = InfoMetricFamily("director", "The library.", labels=mine)
        self.state = GaugeMetricFamily("director_state", "1 for the state it is in.", labels=[*mine, "state"])
        self.queued = GaugeMetricFamily("director_jobs_queued", "Jobs that wait.", labels=mine)
        self.running = GaugeMetricFamily("director_jobs_running", "Jobs that run.", labels=mine)
        self.jobs = CounterMetricFamily("director_jobs", "Jobs by how they ended.", labels=[*mine, "outcome"])
        self.slots = GaugeMetricFamily("director_device_slots", "Calls that it may run at once.", labels=device)
        self.busy = GaugeMetricFamily("director_device_busy_slots", "Slots that are in a call now.", labels=device)
        self.abandoned = GaugeMetricFamily(
            "director_device_abandoned_slots", "Slots in a call whose jobs have all ended.", labels=device
        )
        self.elsewhere = GaugeMetricFamily(
            "director_device_elsewhere_slots", "Slots that another process has and this one wants.", labels=device
        )
        self.calls = CounterMetricFamily("director_device_jobs", "Jobs whose calls have ended there.", labels=device)
        self.seconds = CounterMetricFamily(
            "director_device_busy_seconds", "Seconds its slots have spent in calls that have ended.", labels=device
        )
        self.health = GaugeMetricFamily("director_device_health", "1 for its health.", labels=[*device, "health"])
        self.models = GaugeMetricFamily("director_model_resident", "1: it is loaded.", labels=[*device, "model"])
        self.budget = GaugeMetricFamily(
            "director_device_memory_budget_bytes", "What replicas and calls may take.", labels=device
        )
        self.memory = GaugeMetricFamily(
            "director_device_memory_reserved_bytes", "What is taken of that, by what.", labels=[*device, "by"]
        )
        self.replicas = GaugeMetricFamily(
            "director_model_memory_bytes",
            "What replicas are charged with, declare, were measured to take, and take of the host asleep.",
            labels=[*device, "model", "by"],
        )
        self.used = GaugeMetricFamily(
            "director_model_last_use_timestamp_seconds", "When a call has used it last.", labels=[*device, "model"]
        )
        function = [*mine, "function", "device"]
        self.batches = CounterMetricFamily("director_batches", "Batches whose cost was measured.", labels=function)
        self.items = CounterMetricFamily("director_batch_items", "Items in these batches.", labels=function)
        self.by_function = CounterMetricFamily(
            "director_function_jobs", "Jobs by function and how they ended.", labels=[*mine, "function", "outcome"]
        )
        self.function_seconds = CounterMetricFamily(
            "director_function_run_seconds", "Seconds that they ran.", labels=[*mine, "function"]
        )
        self.by_tenant = CounterMetricFamily(
            "director_tenant_jobs", "Jobs by tenant and how they ended.", labels=[*mine, "tenant", "outcome"]
        )
        self.tenant_seconds = CounterMetricFamily(
            "director_tenant_run_seconds", "Seconds that they ran.", labels=[*mine, "tenant"]
        )
        self.waits = HistogramMetricFamily("director_job_wait_seconds", "From submission to start.", labels=mine)
        self.runs = HistogramMetricFamily("director_job_run_seconds", "From start to end of the call.", labels=mine)

    def families(self) -> Iterator[Metric]:
        """The families that have samples."""
        for family in vars(self).values():
            for sample in family.samples:
                for label in _IF_ANY:
                    if not sample.labels[label]:
                        del sample.labels[label]
            if family.samples:
                yield family

    def add_state(self, mine: list[str], director: Director) -> None:
        """The version, and what the Director does."""
        self.info.add_metric(mine, {"version": __version__})
        for state in DirectorState:
            self.state.add_metric([*mine, state.value], state is director.state)

    def add_jobs(self, mine: list[str], stats: Stats) -> None:
        """Jobs by what they do, and how they ended."""
        self.queued.add_metric(mine, stats.queued)
        self.running.add_metric(mine, stats.running)
        for outcome in (*_OUTCOMES, "rejected"):
            self.jobs.add_metric([*mine, outcome], getattr(stats, outcome))

    def add_devices(self, mine: list[str], stats: Stats) -> None:
        """Slots, calls, time and models of each device."""
        for device in stats.devices:
            values = [*mine, device.device.label, device.device.uuid, device.device.kind]
            self.slots.add_metric(values, device.slots)
            self.busy.add_metric(values, device.busy)
            self.abandoned.add_metric(values, device.abandoned)
            self.elsewhere.add_metric(values, device.elsewhere)
            self.calls.add_metric(values, device.jobs)
            self.seconds.add_metric(values, device.busy_seconds)
            for health in Health:
                self.health.add_metric([*values, health.value], device.health is health)
            memory = device.memory
            if memory.budget is not None:
                self.budget.add_metric(values, memory.budget)
            for by, size in memory.by_kind.items():
                self.memory.add_metric([*values, by], size)
            for model in dict.fromkeys(device.models):  # models may share a name
                self.models.add_metric([*values, _text(model)], 1)

    def add_replicas(self, mine: list[str], stats: Stats, epoch: float) -> None:
        """Memory and last use of models; `epoch` turns the Director's clock into the time of day."""
        for device in stats.devices:
            sizes: defaultdict[tuple[str, str], int] = defaultdict(int)
            used: dict[str, float] = {}
            for replica in device.memory.models:  # slots may have their own, and models may share a name
                model = _text(replica.model)
                taken = "asleep" if replica.state == "asleep" else "reserved"
                for by, size in (
                    (taken, replica.bytes),
                    ("declared", replica.declared),
                    ("measured", replica.measured),
                ):
                    if size is not None:
                        sizes[model, by] += size
                used[model] = max(used.get(model, replica.used_at), replica.used_at)
            values = [*mine, device.device.label, device.device.uuid, device.device.kind]
            for key, size in sizes.items():
                self.replicas.add_metric([*values, *key], size)
            for model, moment in used.items():
                self.used.add_metric([*values, model], epoch + moment)

    def add_functions(self, mine: list[str], stats: Stats) -> None:
        """Batches of each function on each device."""
        totals: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for each in stats.functions:  # functions may share a name
            total = totals[_text(each.name), each.device.label]
            total[0] += each.calls
            total[1] += each.items
        for (function, device), (calls, items) in totals.items():
            self.batches.add_metric([*mine, function, device], calls)
            self.items.add_metric([*mine, function, device], items)

    def add_breakdown(self, mine: list[str], breakdown: Breakdown) -> None:
        """Jobs of functions and tenants."""
        for groups, jobs, ran in (
            (breakdown.functions(), self.by_function, self.function_seconds),
            (breakdown.tenants(), self.by_tenant, self.tenant_seconds),
        ):
            for name, found in groups.items():
                for outcome in _OUTCOMES:
                    jobs.add_metric([*mine, _text(name), outcome], getattr(found, outcome))
                ran.add_metric([*mine, _text(name)], found.ran)

    def add_durations(self, mine: list[str], durations: Durations) -> None:
        """Histograms of waits and runs."""
        for family, (buckets, total) in ((self.waits, durations.waits()), (self.runs, durations.runs())):
            family.add_metric(mine, buckets, sum_value=total)


def _own_worker() -> str:
    """The number of this process if it is one of several workers of a server; ``""`` if not, or nothing tells."""
    is_worker = parent_process() is not None or os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
    return str(os.getpid()) if is_worker else ""


def _text(name: str) -> str:
    """The name with lone surrogates escaped.

    A label that can't be encoded as UTF-8 would make the whole scrape fail.
    """
    return name.encode("utf-8", "backslashreplace").decode()
