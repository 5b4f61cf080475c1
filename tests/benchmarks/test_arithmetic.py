"""The arithmetic of the benchmarks, on inputs small enough to work out by hand."""

from __future__ import annotations

import random

import pytest

from benchmarks import lines, theory
from benchmarks.deadlines import Profile, serve
from benchmarks.waiting import plan
from director._format import quantile
from director.cli._bench.catalog import EXPERIMENTS
from director.cli._bench.goals import GOALS, Goal, evaluate, evaluate_all
from director.cli._bench.lost import loss
from director.cli._bench.report import document, number, text
from director.cli._bench.sheet import Cell, Effort, Sheet, ratio, turns
from director.cli._bench.suite import Outcome
from director.cli._console import table

MS = 1_000_000  # ns


def cell(*samples: float, contender: str = "director", figure: str = "gather", unit: str = "µs") -> Cell:
    return Cell(contender, figure, unit, samples)


class TestSheet:
    def test_samples_gather_by_contender_and_figure(self) -> None:
        sheet = Sheet()
        for contender, sample in (("a", 3.0), ("b", 9.0), ("a", 1.0), ("a", 2.0)):
            sheet.add(contender, "gather", "µs", sample)
        first, second = sheet.cells()
        assert first == cell(3.0, 1.0, 2.0, contender="a")
        assert (first.median, first.low, first.high) == (2.0, 1.0, 3.0)
        assert second.samples == (9.0,)

    def test_a_figure_has_one_unit(self) -> None:
        sheet = Sheet()
        sheet.add("a", "gather", "µs", 1.0)
        with pytest.raises(ValueError, match="measured in µs, not in ms"):
            sheet.add("b", "gather", "ms", 1.0)


class TestRatio:
    def test_is_of_the_medians_with_the_range_of_the_rounds(self) -> None:
        compared = ratio(cell(1.0, 2.0, 6.0), cell(4.0, 4.0, 6.0))
        assert compared is not None
        assert (compared.value, compared.low, compared.high) == (0.5, 0.25, 1.0)

    def test_the_range_holds_the_value(self) -> None:
        compared = ratio(cell(1.0, 10.0, 100.0), cell(10.0, 100.0, 1.0))
        assert compared is not None
        assert compared.low <= compared.value <= compared.high
        assert compared.value == 1.0

    def test_of_nothing_is_none(self) -> None:
        assert ratio(cell(1.0), cell(0.0)) is None
        assert ratio(cell(1.0), cell(-0.5)) is None


class TestTurns:
    def test_everybody_plays_every_round_and_the_first_rotates(self) -> None:
        assert "".join(turns("abc", rounds=4)) == "abcbcacababc"


class TestLoss:
    def test_nothing_lost(self) -> None:
        assert loss([(0, 10 * MS), (10 * MS, 20 * MS)], 0.010, 1, (0, 20 * MS)).total == pytest.approx(0)

    def test_time_between_jobs(self) -> None:
        lost = loss([(0, 10 * MS), (15 * MS, 20 * MS)], 0.010, 1, (0, 20 * MS))
        assert lost.between == pytest.approx(0.25)

    def test_time_inside_jobs(self) -> None:
        """Two jobs that take 10 ms alone took 20: half is lost, none of it between them."""
        lost = loss([(0, 20 * MS), (20 * MS, 40 * MS)], 0.010, 1, (0, 40 * MS))
        assert lost.total == pytest.approx(0.5)
        assert lost.between == pytest.approx(0)

    def test_a_job_counts_for_its_part_in_the_window(self) -> None:
        """Half of the first, a quarter of the second: 0.75 jobs of 10 ms in 20 ms of one slot."""
        lost = loss([(-5 * MS, 5 * MS), (10 * MS, 50 * MS)], 0.010, 1, (0, 20 * MS))
        assert lost.total == pytest.approx(1 - 0.75 * 10 / 20)
        assert lost.between == pytest.approx(0.25)

    def test_a_slot_that_never_works_is_lost(self) -> None:
        assert loss([(0, 10 * MS)], 0.010, 2, (0, 10 * MS)).total == pytest.approx(0.5)

    def test_jobs_outside_the_window_do_not_count(self) -> None:
        assert loss([(-20 * MS, -10 * MS), (20 * MS, 30 * MS)], 0.010, 1, (0, 10 * MS)).total == 1.0


class TestLines:
    ARRIVALS = (0.0, 0.0, 1.0, 1.0)
    SERVICES = (10.0, 2.0, 5.0, 1.0)

    def test_one_line_for_all(self) -> None:
        """At 2 the second server is free and takes the third job, at 7 the fourth."""
        assert lines.central(self.ARRIVALS, self.SERVICES, 2) == [0, 0, 1, 6]

    def test_round_robin_waits_behind_the_long_one(self) -> None:
        assert lines.round_robin(self.ARRIVALS, self.SERVICES, 2) == [0, 0, 9, 1]

    def test_the_shortest_line_counts_jobs_and_not_their_length(self) -> None:
        """At 1 both servers have one job each: the third joins the first, whose job is long; the fourth the second."""
        assert lines.shortest(self.ARRIVALS, self.SERVICES, 2) == [0, 0, 9, 1]

    def test_the_shortest_line_forgets_who_has_left(self) -> None:
        assert lines.shortest((0.0, 0.0, 3.0), self.SERVICES[:3], 2) == [0, 0, 0]

    @pytest.mark.parametrize("discipline", [lines.central, lines.round_robin, lines.shortest])
    def test_alone_nobody_waits(self, discipline: object) -> None:
        assert discipline((0.0, 5.0, 10.0), (1.0, 1.0, 1.0), 1) == [0, 0, 0]  # type: ignore[operator]

    @pytest.mark.parametrize("discipline", [lines.central, lines.round_robin, lines.shortest])
    def test_with_one_server_all_disciplines_agree(self, discipline: object) -> None:
        assert discipline(self.ARRIVALS, self.SERVICES, 1) == [0, 10, 11, 16]  # type: ignore[operator]

    def test_two_choices_and_lots(self) -> None:
        """Of two servers, two choices are all there are; by lot a job may wait while another server is free."""
        assert lines.two_choices(self.ARRIVALS, self.SERVICES, 2, random.Random(1)) in ([0, 0, 9, 1], [0, 0, 1, 9])
        waits = [lines.at_random((0.0, 0.0), (5.0, 5.0), 2, random.Random(seed))[1] for seed in range(20)]
        assert set(waits) == {0.0, 5.0}

    def test_greedy_batches(self) -> None:
        """One server, 10 s and 1 s for each item: the first goes alone, at 11 the next three, of four at most."""
        stays, sizes = lines.batches((0.0, 1.0, 2.0, 11.0, 12.0, 30.0), lambda size: 10.0 + size, 1, 4)
        assert sizes == [1, 3, 1, 1]
        assert stays == [11, 23, 22, 13, 23, 16]

    def test_greedy_batches_on_two_servers_and_of_a_bounded_size(self) -> None:
        stays, sizes = lines.batches((0.0,) * 5, lambda _: 10.0, 2, 2)
        assert sizes == [2, 2, 1]
        assert stays == [10, 10, 10, 10, 20]

    def test_quantile_is_the_nearest_rank(self) -> None:
        values = [float(n) for n in range(1, 101)]
        assert quantile(sorted(values), 0.99) == 99
        assert quantile(sorted(values), 0.5) == 50
        assert quantile(sorted([7.0]), 0.99) == 7
        assert quantile(sorted([1.0, 2.0, 3.0]), 0.99) == 3

    def test_a_plan_repeats_and_has_the_load_it_should(self) -> None:
        moments, visits = plan(20_000, seed=1)
        again, _ = plan(20_000, seed=1)
        other, _ = plan(20_000, seed=2)
        assert moments == again != other
        assert sum(visit.length for visit in visits) / (4 * moments[-1]) == pytest.approx(0.7, rel=0.1)


class TestGoals:
    def judged(self, goal: Goal, *cells: Cell) -> object:
        return evaluate(goal, {(goal.experiment, goal.place): cells})

    def test_a_ratio(self) -> None:
        goal = Goal("burst", "one core", "gather", 0.4, to="pool")
        pool = cell(10.0, 10.0, 10.0, contender="pool")
        for samples, reached, clear, gross in (
            ((2.0, 3.0, 4.0), True, True, False),
            ((2.0, 3.0, 5.0), True, False, False),
            ((3.0, 5.0, 5.0), False, False, False),
            ((5.0, 5.0, 6.0), False, True, False),
            ((11.0, 13.0, 14.0), False, True, False),  # one round has been better
            ((12.5, 13.0, 14.0), False, True, True),
        ):
            verdict = evaluate(goal, {("burst", "one core"): (pool, cell(*samples))})
            assert verdict is not None
            assert (verdict.reached, verdict.clear, verdict.gross) == (reached, clear, gross)

    def test_a_lower_bound(self) -> None:
        goal = Goal("slo", "all cores", "rate", 6.0, at_least=True)
        for samples, reached, clear, gross in (
            ((6.0, 7.0, 8.0), True, True, False),
            ((5.0, 7.0, 8.0), True, False, False),
            ((4.0, 5.0, 5.0), False, True, False),
            ((4.0, 5.0, 7.0), False, False, False),
            ((1.0, 1.0, 1.0), False, True, True),
        ):
            verdict = evaluate(goal, {("slo", "all cores"): (cell(*samples, figure="rate", unit="/s"),)})
            assert verdict is not None
            assert (verdict.reached, verdict.clear, verdict.gross) == (reached, clear, gross)

    def test_a_lower_bound_of_a_ratio(self) -> None:
        goal = Goal("batching", "all cores", "items", 0.9, to="alone", at_least=True)
        model = cell(10.0, contender="alone", figure="items")
        for sample, reached, gross in ((9.5, True, False), (8.0, False, False), (2.0, False, True)):
            verdict = evaluate(goal, {("batching", "all cores"): (model, cell(sample, figure="items"))})
            assert verdict is not None
            assert (verdict.reached, verdict.gross) == (reached, gross)

    def test_a_goal_says_what_it_asks_of_whom(self) -> None:
        assert Goal("slo", "all cores", "rate", 5300, at_least=True).text == "slo, rate >= 5,300"
        assert Goal("idle", "all cores", "wake-ups", 1.0, to="none").text == "idle, wake-ups <= 1 x none"
        text = Goal("uvloop", "one core", "gather", 0.5, to="other", contender="director, uvloop").text
        assert text == "uvloop, gather of director, uvloop <= 0.5 x other"

    def test_a_ratio_to_another_figure(self) -> None:
        goal = Goal("slots", "one core", "1,000 slots", 3.0, of="4 slots")
        verdict = evaluate(
            goal, {("slots", "one core"): (cell(5.0, figure="1,000 slots"), cell(2.0, figure="4 slots"))}
        )
        assert verdict is not None
        assert (verdict.measured.value, verdict.unit, verdict.reached) == (2.5, "x", True)

    def test_a_figure_alone(self) -> None:
        goal = Goal("slots", "one core", "gather", 3.0)
        verdict = evaluate(goal, {("slots", "one core"): (cell(1.0, 3.5, 4.0),)})
        assert verdict is not None
        assert (verdict.measured.value, verdict.unit, verdict.reached, verdict.gross) == (3.5, "µs", False, False)

    def test_between_small_numbers_nothing_is_gross(self) -> None:
        """0.8 % lost is four times 0.2 %, and both are nothing."""
        goal = Goal("burst", "one core", "gather", 1.0, to="pool", floor=1.0)
        verdict = evaluate(goal, {("burst", "one core"): (cell(0.8), cell(0.2, contender="pool"))})
        assert verdict is not None
        assert (verdict.reached, verdict.gross) == (False, False)

    def test_an_unguarded_goal_is_never_gross(self) -> None:
        verdict = evaluate(
            Goal("queue", "one core", "gather", 1.0, guarded=False), {("queue", "one core"): (cell(99.0),)}
        )
        assert verdict is not None
        assert not verdict.gross

    def test_what_was_not_measured_is_not_judged(self) -> None:
        goal = Goal("burst", "one core", "gather", 0.4, to="pool")
        assert evaluate(goal, {}) is None
        assert evaluate(goal, {("burst", "one core"): (cell(1.0),)}) is None
        assert evaluate_all({}, [goal]) == []

    def test_every_goal_says_something_of_its_own(self) -> None:
        goals = (*GOALS, *theory.GOALS)
        assert len({(goal.text, goal.place) for goal in goals}) == len(goals)


class TestReport:
    CELLS = (
        cell(10.0, 10.0, contender="ThreadPoolExecutor, no asyncio"),
        cell(2.0, 3.0, contender="director"),
        cell(1.0, contender="director", figure="in turn"),
    )

    def outcome(self) -> Outcome:
        measured = {("burst", "one core"): self.CELLS}
        verdicts = tuple(evaluate_all(measured, GOALS))
        return Outcome(EXPERIMENTS, Effort.QUICK, {"python": "3.11"}, ("x: y is not installed",), measured, verdicts)

    def test_numbers_have_three_digits(self) -> None:
        assert [number(n) for n in (12345.6, 99.94, 1.234, 0.0456, -0.5)] == [
            "12,346",
            "99.9",
            "1.23",
            "0.046",
            "-0.50",
        ]

    def test_columns_line_up(self) -> None:
        assert table(("a", "bbb"), [("cc", "d")]) == ["a   bbb", "cc    d"]

    def test_people_read_medians_ranges_ratios_verdicts_and_who_is_missing(self) -> None:
        printed = text(self.outcome(), goals=True)
        assert "2.50 (2.00 - 3.00) 0.25x" in printed
        assert "Left out: x: y is not installed." in printed
        assert "burst, gather <= 0.4 x ThreadPoolExecutor, no asyncio" in printed
        assert printed.endswith("reached")

    def test_goals_are_told_on_request_only(self) -> None:
        assert "burst, gather" not in text(self.outcome())
        assert "goals" not in document(self.outcome())

    def test_machines_read_every_sample(self) -> None:
        result = document(self.outcome(), goals=True)
        assert result["results"][0]["cells"][1]["samples"] == [2.0, 3.0]
        assert result["goals"][0]["measured"] == 0.25
        assert result["effort"] == "quick"


class TestDeadlines:
    """Calls take 5 s and 1 s for each item."""

    PROFILE = Profile(5.0, 1.0, most=4)

    def test_the_largest_batch_in_a_time(self) -> None:
        assert [self.PROFILE.size_within(seconds) for seconds in (5.5, 6.0, 7.9, 9.0, 99.0)] == [0, 1, 2, 4, 4]

    def test_strictly_by_deadline_the_first_one_limits(self) -> None:
        assert self.PROFILE.first_limits([6.0, 99.0, 99.0]) == (0, 1)
        assert self.PROFILE.first_limits([9.0, 99.0]) == (0, 2)

    def test_the_largest_batch_passes_over_as_few_as_it_can(self) -> None:
        assert self.PROFILE.largest([6.0, 7.0, 9.0, 9.0, 9.0]) == (2, 3)
        assert self.PROFILE.largest([8.0, 8.0, 9.0, 9.0]) == (0, 3)
        assert self.PROFILE.largest([99.0] * 9) == (0, 4)

    @pytest.mark.parametrize(("keep", "last"), [(True, True), (False, False)])
    def test_who_is_passed_over_may_be_served_by_the_next_device(self, keep: bool, last: bool) -> None:
        """Two devices; one is busy until 6 and one until 6.5, when three wait of whom the first has 7 s left."""
        moments = [0.0, 0.5, 3.0, 4.5, 4.6, 4.7]
        assert serve(moments, 10.0, 2, self.PROFILE, self.PROFILE.largest, keep) == [True, True, last, True, True, True]

    def test_the_hopeless_are_failed(self) -> None:
        moments = [0.0] * 6
        assert serve(moments, 10.0, 1, self.PROFILE, self.PROFILE.first_limits, False) == [True] * 4 + [False] * 2
