"""Metrics of a Director for Prometheus. Needs the extra ``prometheus``: ``pip install 'gpu-director[prometheus]'``.

Jobs don't get slower: the collector takes one snapshot of the stats per scrape. The two histograms are the exception:
they exist only if you give the Director a `Durations` as a hook.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from director import DirectorState, Health, __version__
from director._untrusted.numbers import seconds

try:
    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError("director.prometheus needs prometheus-client: pip install 'gpu-director[prometheus]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from director import Device, Director, Stats
    from director.events import Event
    from director.hooks import RawRecord

__all__ = ["BUCKETS", "DirectorCollector", "Durations"]

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
        self.buckets = tuple(seconds("a bound of buckets", bound, zero=True) for bound in buckets)
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


class DirectorCollector(Collector):
    """Reads the stats of Directors when Prometheus scrapes; from any thread.

    Args:
        director: The Director; started or not.
        durations: The hook of the same Director that counts waits and runs; `None` leaves the two histograms out.
        registry: Where it registers itself; `None` registers it nowhere.
        name: Value of the label ``director``; `None` takes the Director's name, or ``""``.
    """

    def __init__(
        self,
        director: Director,
        durations: Durations | None = None,
        *,
        registry: CollectorRegistry | None = REGISTRY,
        name: str | None = None,
    ) -> None:
        self._watched: dict[str, tuple[Director, Durations | None]] = {}
        self.watch(director, durations, name=name)
        if registry is not None:
            registry.register(self)

    def watch(self, director: Director, durations: Durations | None = None, *, name: str | None = None) -> None:
        """Read another Director too, for a process that has several.

        Raises:
            ValueError: One of that name is read already.
        """
        name = (director.name or "") if name is None else name
        if name in self._watched:
            raise ValueError(f"a Director named {name!r} is read already; give this one another `name`")
        self._watched[name] = (director, durations)

    def collect(self) -> Iterator[Metric]:
        """One scrape: a snapshot of each Director, and the metrics made of them."""
        scrape = _Scrape()
        for name, (director, durations) in self._watched.copy().items():
            name, stats = _text(name), director.stats()
            scrape.add_director(name, director, stats)
            scrape.add_devices(name, stats)
            scrape.add_functions(name, stats)
            if durations is not None:
                scrape.add_durations(name, durations)
        yield from scrape.families()


class _Scrape:
    """The metrics of one scrape, empty until they are added to."""

    def __init__(self) -> None:
        mine, device = ["director"], ["director", "device", "uuid", "kind"]
        self.info = InfoMetricFamily("director", "The library.", labels=mine)
        self.state = GaugeMetricFamily("director_state", "1 for the state it is in.", labels=[*mine, "state"])
        self.queued = GaugeMetricFamily("director_jobs_queued", "Jobs that wait.", labels=mine)
        self.running = GaugeMetricFamily("director_jobs_running", "Jobs that run.", labels=mine)
        self.jobs = CounterMetricFamily("director_jobs", "Jobs by how they ended.", labels=[*mine, "outcome"])
        self.slots = GaugeMetricFamily("director_device_slots", "Calls that it may run at once.", labels=device)
        self.busy = GaugeMetricFamily("director_device_busy_slots", "Slots that are in a call now.", labels=device)
        self.elsewhere = GaugeMetricFamily(
            "director_device_elsewhere_slots", "Slots that another process has and this one wants.", labels=device
        )
        self.calls = CounterMetricFamily("director_device_jobs", "Jobs whose calls have ended there.", labels=device)
        self.seconds = CounterMetricFamily(
            "director_device_busy_seconds", "Seconds its slots have spent in calls that have ended.", labels=device
        )
        self.health = GaugeMetricFamily("director_device_health", "1 for its health.", labels=[*device, "health"])
        self.models = GaugeMetricFamily("director_model_resident", "1: it is loaded.", labels=[*device, "model"])
        function = [*mine, "function", "device"]
        self.batches = CounterMetricFamily("director_batches", "Batches whose cost was measured.", labels=function)
        self.items = CounterMetricFamily("director_batch_items", "Items in these batches.", labels=function)
        self.waits = HistogramMetricFamily("director_job_wait_seconds", "From submission to start.", labels=mine)
        self.runs = HistogramMetricFamily("director_job_run_seconds", "From start to end of the call.", labels=mine)

    def families(self) -> Iterator[Metric]:
        """The families that have samples."""
        return (family for family in vars(self).values() if family.samples)

    def add_director(self, name: str, director: Director, stats: Stats) -> None:
        """State and jobs."""
        self.info.add_metric([name], {"version": __version__})
        for state in DirectorState:
            self.state.add_metric([name, state.value], state is director.state)
        self.queued.add_metric([name], stats.queued)
        self.running.add_metric([name], stats.running)
        for outcome in ("succeeded", "failed", "cancelled", "rejected"):
            self.jobs.add_metric([name, outcome], getattr(stats, outcome))

    def add_devices(self, name: str, stats: Stats) -> None:
        """Slots, calls, time and models of each device."""
        for device in stats.devices:
            values = [name, device.device.label, device.device.uuid, device.device.kind]
            self.slots.add_metric(values, device.slots)
            self.busy.add_metric(values, device.busy)
            self.elsewhere.add_metric(values, device.elsewhere)
            self.calls.add_metric(values, device.jobs)
            self.seconds.add_metric(values, device.busy_seconds)
            for health in Health:
                self.health.add_metric([*values, health.value], device.health is health)
            for model in dict.fromkeys(device.models):  # models may share a name
                self.models.add_metric([*values, _text(model)], 1)

    def add_functions(self, name: str, stats: Stats) -> None:
        """Batches of each function on each device."""
        totals: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for each in stats.functions:  # functions may share a name
            total = totals[_text(each.name), each.device.label]
            total[0] += each.calls
            total[1] += each.items
        for (function, device), (calls, items) in totals.items():
            self.batches.add_metric([name, function, device], calls)
            self.items.add_metric([name, function, device], items)

    def add_durations(self, name: str, durations: Durations) -> None:
        """Histograms of waits and runs."""
        for family, (buckets, total) in ((self.waits, durations.waits()), (self.runs, durations.runs())):
            family.add_metric([name], buckets, sum_value=total)


def _text(name: str) -> str:
    """The name with lone surrogates escaped.

    A label that can't be encoded as UTF-8 would make the whole scrape fail.
    """
    return name.encode("utf-8", "backslashreplace").decode()
