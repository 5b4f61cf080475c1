"""The story of a run in order, and in numbers."""

from __future__ import annotations

import pytest
from hypothesis import given

from director._format import quantile
from director.timeline._figures import distribution, figures, queue_depth, slot_times
from director.timeline._story import Story, calls_of, in_order
from timeline.stories import DEVICES, never_ran, ran, stories, story


def test_the_later_record_of_a_job_replaces_the_earlier() -> None:
    first = ran(1, 0, 0, 1, None, state="failed", settled=2, error="JobTimeout: late")
    last = first._replace(ended=5, settled=5.5, error=None)
    assert in_order([first, last]) == ((first._replace(ended=5),), ())
    running = ran(1, 0, 0, 1, None)
    assert in_order([running, ran(1, 0, 0, 1, 3)]) == ((ran(1, 0, 0, 1, 3),), ())


def test_jobs_stand_in_order_of_submission() -> None:
    jobs = [ran(1, 0, 2, 3, 4), ran(3, 0, 1, 2, 3), ran(2, 1, 1, 2, 3)]
    assert [job.job for job in in_order(jobs)[0]] == [2, 3, 1]


def test_tries_that_were_not_the_last() -> None:
    first = ran(1, 0, 0, 1, 2, state="retried", error="WorkerDied: gone")
    last = ran(1, 1, 0, 4, 5)
    told = story([first, last], until=9)
    assert (told.jobs, told.tries) == ((last,), (first,))
    assert [(call.slot, call.began, call.ended) for call in told.calls] == [(0, 1, 2), (1, 4, 5)]
    assert list(queue_depth(told)) == [(0, 1), (1, 0), (2, 1), (4, 0)]


def test_a_batch_is_one_call() -> None:
    first, second, alone = ran(1, 0, 0, 1, 2), ran(2, 0, 0.5, 1, 2), ran(3, 0, 0, 2, 3)
    calls = calls_of([first, second, alone, never_ran(4, 0, 1)])
    assert [(call.slot, call.began, call.ended, call.jobs) for call in calls] == [
        (0, 1, 2, (first, second)),
        (0, 2, 3, (alone,)),
    ]


def test_what_runs_still_runs_to_the_end_of_the_story() -> None:
    told = story([ran(1, 0, 0, 4, None), ran(2, 1, 0, 1, 3)], until=10, since=2)
    assert [told.within(call) for call in told.calls] == [(2, 3), (4, 10)]
    before = story([ran(1, 0, 0, 0, 1)], until=10, since=2)
    assert before.within(before.calls[0]) == (2, 2)


def test_the_depth_of_the_queue() -> None:
    jobs = [ran(1, 0, 0, 1, 2), ran(2, 1, 0, 0, 2), never_ran(3, 1, 5), never_ran(4, 6, None)]
    # At 0 two come and one starts; at 1 one starts and one comes, which is no change.
    assert list(queue_depth(story(jobs, until=9))) == [(0, 1), (5, 0), (6, 1)]


def test_time_is_lost_while_a_slot_is_idle_and_a_job_waits() -> None:
    # Slot 0 is busy from 0 to 4. One job waits from 1 to 3 and then runs on slot 1 until 6; the story ends at 8.
    told = story([ran(1, 0, 0, 0, 4), ran(2, 1, 1, 3, 6)], until=8)
    assert slot_times(told) == [(1, 4, 0), (1, 3, 2)]
    numbers = figures(told)
    assert numbers.all.busy == pytest.approx(7 / 16)
    assert numbers.all.idle == pytest.approx(9 / 16)
    assert numbers.all.lost == pytest.approx(2 / 16)
    assert numbers.devices[DEVICES[1]].lost == pytest.approx(2 / 8)


def test_one_waiting_job_is_a_half_loss_for_each_of_two_idle_slots() -> None:
    assert [time.lost for time in slot_times(story([never_ran(1, 1, 5)], until=8))] == [2, 2]
    assert [time.lost for time in slot_times(story([never_ran(n, 1, 5) for n in range(7)], until=8))] == [4, 4]


def test_a_call_without_length_takes_no_time() -> None:
    assert slot_times(story([ran(1, 0, 1, 1, 1), never_ran(2, 1, 5)], until=8)) == [(1, 0, 2), (0, 0, 2)]


@given(stories())
def test_no_slot_has_more_than_all_of_its_time(told: Story) -> None:
    for time in slot_times(told):
        assert -1e-9 <= time.busy + time.lost <= told.seconds + 1e-6
    numbers = figures(told)
    assert sum(numbers.states.values()) == len(told.jobs)
    assert 0 <= numbers.all.busy <= 1 + 1e-9


def test_spread_and_quantiles() -> None:
    assert distribution([]) is None
    values = distribution(float(n) for n in range(100, 0, -1))
    assert values is not None
    assert (values.count, values.p50, values.p90, values.p99, values.longest) == (100, 50, 90, 99, 100)
    assert quantile([1.0], 0.99) == 1.0


def test_how_long_outcomes_waited_for_the_loop() -> None:
    numbers = figures(
        story(
            [
                ran(1, 0, 0, 1, 2, settled=2.5),
                ran(2, 1, 0, 1, 3, state="cancelled", settled=2),  # it was left before it ended
                never_ran(3, 0, 1),
            ],
            until=4,
        )
    )
    assert numbers.lags is not None
    assert (numbers.lags.count, numbers.lags.longest) == (1, 0.5)
    assert numbers.states == {"succeeded": 1, "cancelled": 2}
    assert numbers.per_second == 0.25
