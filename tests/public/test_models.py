"""`Model`: a replica for each device, loaded when it is first needed, on the thread that will use it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from harness.gates import PATIENCE, Gate, Recorder, outcome, rested, turns, until

from director import Device, Director, JobState, Model, PlacementError
from director.events import WorkerReaped

if TYPE_CHECKING:
    from collections.abc import Callable


class Replica:
    """What the models of these tests load: it knows its device and its thread."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.thread = threading.get_ident()
        self.warm = False


class Loader:
    """A `load` that counts, and can be held."""

    def __init__(self, held: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)
        self._go = threading.Event()
        if not held:
            self._go.set()
        self.loads: list[int] = []

    def __call__(self, device: Device) -> Replica:
        self.loads.append(device.index)
        self._loop.call_soon_threadsafe(self._begun.release)
        assert self._go.wait(PATIENCE)
        return Replica(device)

    async def begun(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._begun.acquire()

    def go(self) -> None:
        self._go.set()


def same(replica: Replica) -> Replica:
    return replica


def where(replica: Replica) -> int:
    return replica.device.index


async def test_it_is_loaded_once_for_each_device_however_many_jobs_want_it() -> None:
    loader = Loader(held=True)
    model = Model(loader, load_alone=False)
    async with Director("simulated:2", slots=3) as director:
        jobs = [director.submit(same, model=model) for _ in range(50)]
        await loader.begun()
        await loader.begun()
        loader.go()
        replicas = await asyncio.gather(*jobs)
    assert sorted(loader.loads) == [0, 1]
    assert len(set(replicas)) == 2
    assert all(job.device is replica.device for job, replica in zip(jobs, replicas, strict=True))


async def test_it_is_not_loaded_where_nobody_needs_it() -> None:
    loader = Loader()
    model = Model(loader)
    async with Director("simulated:4") as director:
        for _ in range(10):
            await director.run(same, model=model)
            await rested(director)
    assert len(loader.loads) == 1


async def test_jobs_run_on_the_thread_that_loaded_it() -> None:
    model = Model(Replica)
    async with Director("simulated:2") as director:
        jobs = [director.submit(lambda it: it.thread == threading.get_ident(), model=model) for _ in range(10)]
        assert all(await asyncio.gather(*jobs))


async def test_per_slot_each_slot_has_its_own_replica_on_its_own_thread(gate: Gate) -> None:
    def work(replica: Replica) -> tuple[Replica, bool]:
        gate(replica)
        return replica, replica.thread == threading.get_ident()

    loader = Loader()
    model = Model(loader, per_slot=True)
    async with Director("simulated:2", slots=2) as director:
        jobs = [director.submit(work, model=model) for _ in range(4)]
        await gate.begun(4)
        gate.open()
        results = await asyncio.gather(*jobs)
    assert all(on_own_thread for _, on_own_thread in results)
    assert len({replica for replica, _ in results}) == 4
    assert Counter(loader.loads) == {0: 2, 1: 2}


async def test_slots_of_a_device_share_its_replica(gate: Gate) -> None:
    loader = Loader()
    model = Model(loader)
    async with Director("simulated:1", slots=3) as director:
        jobs = [director.submit(gate, model=model) for _ in range(3)]
        await gate.begun(3)
        gate.open()
        await asyncio.gather(*jobs)
    assert len({replica for (replica,) in gate.calls}) == 1
    assert loader.loads == [0]


async def test_warm_up_comes_before_the_first_job_and_once() -> None:
    def warm_up(replica: Replica) -> None:
        assert replica.thread == threading.get_ident()
        assert not replica.warm
        replica.warm = True

    model = Model(Replica, warmup=warm_up)
    async with Director("simulated:1", slots=2) as director:
        assert all(await asyncio.gather(*[director.submit(lambda it: it.warm, model=model) for _ in range(5)]))


async def test_it_is_unloaded_at_the_close_on_the_thread_that_loaded_it() -> None:
    unloaded: list[tuple[int, bool]] = []

    def unload(replica: Replica) -> None:
        unloaded.append((replica.device.index, replica.thread == threading.get_ident()))

    model = Model(Replica, unload=unload)
    async with Director("simulated:2", slots=2) as director:
        await director.load(model)
        assert unloaded == []
        assert [device.models for device in director.stats().devices] == [("Replica",), ("Replica",)]
    assert sorted(unloaded) == [(0, True), (1, True)]


async def test_a_loader_that_exits_can_be_caught_where_it_was_asked_for() -> None:
    def leave(_device: Device) -> None:
        raise SystemExit(3)

    async with Director("simulated:2") as director:
        with pytest.raises(SystemExit):
            await director.load(Model(leave))
        assert await director.run(lambda _: 5) == 5


async def test_per_slot_replicas_are_unloaded_each_on_its_own_thread() -> None:
    unloaded: list[bool] = []
    model = Model(
        Replica, per_slot=True, unload=lambda replica: unloaded.append(replica.thread == threading.get_ident())
    )
    async with Director("simulated:1", slots=3) as director:
        await director.load(model)
    assert unloaded == [True] * 3


async def test_a_director_that_is_started_again_loads_it_again() -> None:
    loader = Loader()
    model = Model(loader)
    director = Director("simulated:1")
    for _ in range(2):
        async with director:
            await director.run(same, model=model)
    assert loader.loads == [0, 0]


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
async def test_errors_while_unloading_are_logged_and_stop_nothing(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def unload(_replica: Replica) -> None:
        raise kind("on purpose")

    unloaded: list[int] = []
    models = [Model(Replica, unload=unload, name="bad"), Model(Replica, unload=lambda it: unloaded.append(where(it)))]
    async with Director("simulated:2") as director:
        for model in models:
            await director.load(model)
    assert sorted(unloaded) == [0, 1]
    assert "unloading bad" in caplog.text
    assert "on purpose" in caplog.text


def test_an_exit_while_unloading_stops_nothing_either(python: Callable[[str], str]) -> None:
    printed = python("""
import asyncio, sys, threading
from director import Director, Model
async def main():
    director = Director("simulated:2")
    await director.start()
    await director.load(Model(lambda device: device, unload=lambda replica: sys.exit("on purpose")))
    await director.close()
    print(sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("director")))
asyncio.run(main())
""")
    assert "[]" in printed


class Broken(Exception):
    pass


async def test_a_failed_load_fails_the_jobs_that_wait_with_the_loaders_own_error() -> None:
    raised = Broken("no such file")
    go = threading.Event()

    def load(_device: Device) -> Replica:
        assert go.wait(PATIENCE)
        raise raised

    model = Model(load)
    async with Director("simulated:1") as director:
        jobs = [director.submit(same, model=model) for _ in range(4)]
        other = director.submit(lambda device: device.index)
        await turns()
        go.set()
        assert [await outcome(job) for job in jobs] == [raised] * 4
        assert await other == 0
        assert [job.state for job in jobs] == [JobState.FAILED] * 4
        stats = director.stats()
        assert (stats.queued, stats.running, stats.succeeded, stats.failed) == (0, 0, 1, 4)
    assert jobs[0].attempts == 1


async def test_the_traceback_of_a_failed_load_begins_in_the_loader() -> None:
    def load(_device: Device) -> Replica:
        raise Broken

    async with Director("simulated:1") as director:
        job = director.submit(same, model=Model(load))
        await asyncio.wait([job])
        error = job.exception()
        assert error is not None
        assert error.__traceback__ is not None
        assert error.__traceback__.tb_frame.f_code.co_name == "load"


async def test_later_jobs_try_again() -> None:
    attempts = 0

    def load(device: Device) -> Replica:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Broken(attempts)
        return Replica(device)

    model = Model(load)
    async with Director("simulated:1") as director:
        results = [await outcome(director.run(same, model=model)) for _ in range(4)]
    assert [type(result) for result in results] == [Broken, Broken, Replica, Replica]
    assert attempts == 3


async def test_a_failed_warm_up_is_a_failed_load() -> None:
    def warm_up(_replica: Replica) -> None:
        raise Broken

    loader = Loader()
    model = Model(loader, warmup=warm_up)
    async with Director("simulated:1") as director:
        assert isinstance(await outcome(director.run(same, model=model)), Broken)
        assert director.stats().devices[0].models == ()
        assert isinstance(await outcome(director.run(same, model=model)), Broken)
    assert loader.loads == [0, 0]


async def test_what_was_loaded_is_unloaded_when_its_warm_up_fails() -> None:
    def warm_up(_replica: Replica) -> None:
        raise Broken

    unloaded: list[int] = []
    model = Model(Replica, warmup=warm_up, unload=lambda replica: unloaded.append(where(replica)))
    async with Director("simulated:1") as director:
        assert isinstance(await outcome(director.run(same, model=model)), Broken)
    assert unloaded == [0]


async def test_a_load_that_fails_on_one_device_fails_no_jobs_that_wait_for_another(gate: Gate) -> None:
    def load(device: Device) -> Replica:
        if device.index == 1:
            raise Broken
        return Replica(device)

    model = Model(load)
    async with Director("simulated:2") as director:
        held = director.submit(gate, model=model, devices=[0])
        await gate.begun()
        waits = director.submit(where, model=model, devices=[0])
        assert isinstance(await outcome(director.run(where, model=model, devices=[1])), Broken)
        gate.open()
        assert await waits == 0
        await held


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
async def test_whatever_a_loader_raises_belongs_to_the_jobs(kind: type[BaseException]) -> None:
    def load(_device: Device) -> Replica:
        raise kind("on purpose")

    async with Director("simulated:1") as director:
        jobs = [director.submit(same, model=Model(load)) for _ in range(2)]
        await asyncio.wait(jobs)
        assert [type(job.exception()) for job in jobs] == [kind, kind]
        assert await director.run(lambda _: "the slot lives") == "the slot lives"


A_LOADER_RAISES = """
import asyncio, os, threading
from director import Director, Model
async def main():
    director = Director("simulated:1")
    await director.start()
    go = threading.Event()
    def load(device):
        go.wait(20)
        raise {kind}
    model = Model(load)
    jobs = [director.submit(lambda replica: replica, model=model) for _ in range(3)]
    jobs.append(director.submit(lambda device: device))
    await asyncio.sleep(0.01)
    go.set()
    await asyncio.wait(jobs, timeout=20)
    print([job.state.value if job.done() else "never ends" for job in jobs], flush=True)
    os._exit(0)
asyncio.run(main())
"""


def test_a_loader_that_raises_stop_iteration_leaves_nobody_waiting(python: Callable[[str], str]) -> None:
    printed = python(A_LOADER_RAISES.format(kind="StopIteration"))
    assert "['failed', 'failed', 'failed', 'succeeded']" in printed


def test_a_loader_that_raises_cancelled_error_leaves_nobody_waiting(python: Callable[[str], str]) -> None:
    printed = python(A_LOADER_RAISES.format(kind="asyncio.CancelledError"))
    assert "never ends" not in printed
    assert "'succeeded'" in printed


async def test_a_job_cancelled_during_the_load_is_gone_at_once_and_the_load_goes_on() -> None:
    loader = Loader(held=True)
    model = Model(loader)
    async with Director("simulated:1") as director:
        job = director.submit(same, model=model)
        await loader.begun()
        assert job.cancel()
        assert job.state is JobState.CANCELLED
        loader.go()
        assert (await director.run(same, model=model)).device.index == 0
    assert loader.loads == [0]


async def test_jobs_prefer_a_device_where_it_is_resident(gate: Gate) -> None:
    loader = Loader()
    model = Model(loader)
    async with Director("simulated:3") as director:
        home = (await director.run(same, model=model)).device.index
        for _ in range(6):  # other jobs on other devices in between
            await rested(director)
            await director.run(lambda device: device.index)
            assert await director.run(where, model=model) == home
        director.submit(gate, devices=[home])
        await gate.begun()
        assert await director.run(where, model=model) != home  # rather than wait
        gate.open()


async def test_two_models_on_two_devices_do_not_thrash() -> None:
    loaders = [Loader(), Loader()]
    models = [Model(loader) for loader in loaders]
    async with Director("simulated:2") as director:
        homes = []
        for _ in range(10):
            for model in models:
                homes.append(await director.run(where, model=model))
                await rested(director)
    assert [len(loader.loads) for loader in loaders] == [1, 1]
    assert homes == homes[:2] * 10
    assert homes[0] != homes[1]


async def test_a_device_that_comes_free_leaves_the_job_to_the_one_where_it_is_resident(gate: Gate) -> None:
    # The worker there has to be hired by the loop, which is busy; a worker elsewhere is at hand and must not load it.
    begun, loader, recorder = threading.Event(), Loader(), Recorder()
    model = Model(loader)
    async with Director("simulated:2", hooks=[recorder]) as director:
        home = (await director.run(same, model=model)).device.index
        await recorder.seen(WorkerReaped)
        director.submit(gate, devices=[1 - home])
        await gate.begun()
        job = director.submit(where, model=model)
        other = director.submit(lambda _: begun.set(), devices=[1 - home])
        gate.open()
        assert begun.wait(PATIENCE)  # it has passed over the first and taken the second
        assert await job == home
        await other
    assert loader.loads == [home]


async def test_load_ahead_of_need_on_every_device_and_once() -> None:
    loader = Loader()
    model = Model(loader)
    async with Director("simulated:3", slots=2) as director:
        await director.load(model)
        assert sorted(loader.loads) == [0, 1, 2]
        await director.load(model)
        await asyncio.gather(director.load(model), director.load(model))
        await asyncio.gather(*[director.submit(same, model=model) for _ in range(10)])
        assert len(loader.loads) == 3


async def test_load_ahead_for_each_slot() -> None:
    loader = Loader()
    async with Director("simulated:2", slots=2) as director:
        await director.load(Model(loader, per_slot=True))
    assert Counter(loader.loads) == {0: 2, 1: 2}


async def test_load_raises_what_the_loader_raised() -> None:
    """The first device is loaded by then."""

    def load(device: Device) -> Replica:
        if device.index == 1:
            assert is_loaded.wait(PATIENCE)
            raise Broken("on the second")
        return Replica(device)

    is_loaded = threading.Event()
    async with Director("simulated:2") as director:
        loading = asyncio.create_task(director.load(Model(load, load_alone=False)))
        await until(lambda: director.stats().devices[0].models)
        is_loaded.set()
        with pytest.raises(Broken, match="on the second"):
            await loading
        assert [device.models for device in director.stats().devices] == [("load",), ()]


async def test_a_failed_load_is_no_fault_of_jobs_that_may_not_run_there(gate: Gate) -> None:
    def load(device: Device) -> str:
        if device.index == 1:
            raise Broken("on the second")
        return "replica"

    model = Model(load)
    async with Director("simulated:2") as director:
        busy = director.submit(gate, devices=[0])
        await gate.begun()
        waiting = director.submit(lambda replica: replica, model=model, devices=[0])
        with pytest.raises(Broken):
            await director.run(same, model=model, devices=[1])
        gate.open()
        assert await waiting == "replica"
        await busy


async def test_cancelling_load_lets_the_loads_go_on() -> None:
    loader = Loader(held=True)
    model = Model(loader)
    async with Director("simulated:1") as director:
        loading = asyncio.create_task(director.load(model))
        await loader.begun()
        loading.cancel()
        await asyncio.wait([loading])
        assert loading.cancelled()
        loader.go()
        await director.run(same, model=model)
    assert loader.loads == [0]


async def test_load_does_not_wait_behind_the_queue(gate: Gate) -> None:
    loader = Loader()
    async with Director("simulated:1", max_queue=2) as director:
        director.submit(gate, "first")
        await gate.begun()
        jobs = [director.submit(gate, "waits") for _ in range(2)]
        loading = asyncio.create_task(director.load(Model(loader)))
        await turns()
        gate.let(1)
        await loading
        assert "waits" not in gate.items or gate.finished == 1
        gate.open()
        await asyncio.gather(*jobs)


@pytest.mark.parametrize("devices", [[1], ["SIM-1"], ("simulated:1",), pytest.param(iter([1]), id="iterator")], ids=str)
async def test_a_model_for_some_devices(devices: Any) -> None:
    loader = Loader()
    model = Model(loader, devices=devices)
    async with Director("simulated:3") as director:
        assert await asyncio.gather(*[director.submit(where, model=model) for _ in range(6)]) == [1] * 6
        await director.load(model)
        with pytest.raises(PlacementError, match="loader"):
            director.submit(where, model=Model(loader, devices=[1], name="loader"), devices=[0, 2])
    assert loader.loads == [1]


@pytest.mark.parametrize("devices", [1, "SIM-1", "simulated:1"])
async def test_a_model_for_one_device_without_a_list_as_in_the_options_of_a_job(devices: Any) -> None:
    async with Director("simulated:3") as director:
        assert await director.run(where, model=Model(Replica, devices=devices)) == 1


async def test_a_model_for_a_device_that_is_not_there() -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(PlacementError, match="cuda:7"):
            director.submit(where, model=Model(Replica, devices=["cuda:7"]))
        with pytest.raises(PlacementError, match="cuda:7"):
            await director.load(Model(Replica, devices=["cuda:7"]))


async def test_replicas_on_so_many_devices_those_with_the_fewest_models() -> None:
    loaders = [Loader(), Loader()]
    models = [Model(loader, replicas=2) for loader in loaders]
    async with Director("simulated:4") as director:
        for model in models:
            await director.load(model)
        for model, loader in zip(models, loaders, strict=True):
            went = await asyncio.gather(*[director.submit(where, model=model) for _ in range(20)])
            assert set(went) <= set(loader.loads)
    assert sorted(loaders[0].loads + loaders[1].loads) == [0, 1, 2, 3]


async def test_more_replicas_than_devices() -> None:
    async with Director("simulated:2") as director:
        with pytest.raises(PlacementError, match="3 replicas"):
            director.submit(where, model=Model(Replica, replicas=3))
        with pytest.raises(PlacementError, match="2 replicas"):
            director.submit(where, model=Model(Replica, replicas=2, devices=[0]))


async def test_a_first_job_with_devices_is_a_need_there() -> None:
    async with Director("simulated:2") as director:
        assert await director.run(where, model=Model(Replica, replicas=1), devices=[1]) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"replicas": 0}, ValueError),
        ({"replicas": -1}, ValueError),
        ({"memory": 1.5}, TypeError),
        ({"memory": "six"}, ValueError),
        ({"pin": "yes"}, TypeError),
        ({"per_slot": "yes"}, TypeError),
        ({"replicas": "2"}, TypeError),
    ],
)
def test_a_wrong_option_of_a_model_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Model(Replica, **options)


@pytest.mark.parametrize("options", [{"replicas": 1.5}, {"warmup": "yes"}, {"unload": 5}, {"name": 5}], ids=str)
def test_an_option_of_a_model_of_the_wrong_type_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        Model(Replica, **options)


def test_a_loader_that_can_not_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="callable"):
        Model("detector.pt")  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [Replica, None, 3])
async def test_load_and_unload_refuse_what_is_no_model(model: Any) -> None:
    async with Director("simulated:1") as director:
        with pytest.raises(TypeError, match="Model"):
            await director.load(model)
        with pytest.raises(TypeError, match="Model"):
            await director.unload(model)


def test_its_name_and_repr() -> None:
    assert repr(Model(Replica)) == "<Model 'Replica'>"
    assert Model(Replica, name="detector").name == "detector"


async def test_a_model_serves_two_directors_at_once() -> None:
    loader = Loader()
    model = Model(loader)
    async with Director("simulated:1") as one, Director("simulated:1") as two:
        replicas = [await one.run(same, model=model), await two.run(same, model=model)]
    assert replicas[0] is not replicas[1]
    assert loader.loads == [0, 0]


async def test_a_worker_sleeps_while_a_better_one_is_on_its_way() -> None:
    # The model is resident where no worker is; a worker elsewhere is awake; and the loop, which hires, is busy.
    def spent(_resource: Any) -> float:
        return time.thread_time()

    model, recorder = Model(Replica), Recorder()
    async with Director("simulated:2", hooks=[recorder]) as director:
        home = (await director.run(same, model=model)).device
        other = director.devices[1 - home.index]
        await recorder.seen(WorkerReaped)
        before = await director.run(spent, devices=[other])
        jobs = [director.submit(same, model=model) for _ in range(3)]
        time.sleep(0.08)  # noqa: ASYNC251 - the loop is busy
        after = await director.run(spent, devices=[other])
        await asyncio.gather(*jobs)
        assert after - before < 0.02


async def test_a_model_that_is_made_for_each_job_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def load(device: Device) -> int:
        return device.index

    one = Model(load)
    async with Director("simulated:1") as director:
        for _ in range(100):
            await director.run(lambda index: index, model=one)
        assert caplog.records == []
        for _ in range(100):
            await director.run(lambda index: index, model=Model(load))
    assert [record.getMessage()[:44] for record in caplog.records] == ["64 Models were made of the loader load: each"]
