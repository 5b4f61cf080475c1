"""What follows from checkups, XIDs and silence; without time and threads."""

from __future__ import annotations

import pytest

from director import HealthRules
from director._devices.health.diagnosis import WARNED, Checkup, Diagnosis, Verdict, Xid

LOST, GOOD = ("lost", "the GPU is lost"), ("fine", "")


class Court:
    """A judge, and what he has said so far, at moments that a test chooses."""

    def __init__(self, *uuids: str, rules: HealthRules | None = None) -> None:
        self.judge = Diagnosis(uuids, rules or HealthRules())
        self.now = 100.0

    def read(self, uuid: str, condition: str = "fine", reason: str = "") -> list[tuple[str, str, str]]:
        self.judge.add_checkup(Checkup(uuid, self.now, condition, reason))  # type: ignore[arg-type]
        return self.said()

    def silence(self, *uuids: str) -> list[tuple[str, str, str]]:
        for uuid in uuids:
            self.judge.add_timeout(uuid, self.now)
        return self.said()

    def xid(self, uuid: str, number: int) -> Verdict | None:
        return self.judge.add_xid(Xid(uuid, number), self.now)

    def said(self, later: float = 0.0) -> list[tuple[str, str, str]]:
        self.now += later
        return [(verdict.uuid, verdict.kind, verdict.reason) for verdict in self.judge.changes(self.now)]


def test_what_was_told_is_not_told_again() -> None:
    court = Court("A", "B")
    assert court.read("A") == []
    assert court.read("A", *LOST) == [("A", *LOST)]
    assert court.read("A", *LOST) == []
    assert court.read("B") == []
    assert court.read("A") == [("A", *GOOD)]


def test_another_reason_is_told() -> None:
    court = Court("A")
    court.read("A", "degraded", "one")
    assert court.read("A", "degraded", "two") == [("A", "degraded", "two")]


def test_an_error_without_meaning_counts_when_it_is_repeated() -> None:
    court = Court("A")
    assert court.read("A", "doubtful", "Unknown Error") == []
    assert court.judge.in_doubt
    assert court.read("A", "doubtful", "Unknown Error") == []
    assert court.read("A", "doubtful", "Unknown Error") == [("A", "lost", "Unknown Error, 3 times in a row")]
    assert not court.judge.in_doubt  # there is nothing more to find out by asking often


def test_a_doubt_that_passes_leaves_no_trace() -> None:
    court = Court("A")
    for _ in range(3):
        assert court.read("A", "doubtful") == []
        assert court.read("A", "doubtful") == []
        assert court.read("A") == []
    assert not court.judge.in_doubt


def test_a_fatal_xid_is_a_verdict_each_time_and_no_reading_takes_it_back() -> None:
    court = Court("A")
    fallen = Verdict("A", "lost", "XID 79 (the GPU has fallen off the bus)")
    assert court.xid("A", 79) == fallen
    assert court.read("A") == []
    assert court.xid("A", 79) == fallen


def test_a_harmless_xid_is_nothing() -> None:
    court = Court("A")
    assert court.xid("A", 31) is None
    assert court.said() == []


def test_any_other_xid_is_a_warning_for_a_while() -> None:
    court = Court("A")
    assert court.xid("A", 54) is None
    assert court.said() == [("A", "degraded", "XID 54 (see NVIDIA's Xid catalog)")]
    assert court.said(later=WARNED - 1) == []
    court.xid("A", 54)
    assert court.said(later=2) == []  # it came again
    assert court.said(later=WARNED) == [("A", *GOOD)]


def test_users_have_sets_of_their_own() -> None:
    court = Court("A", rules=HealthRules(fatal_xids={31}, harmless_xids={79}))
    verdict = court.xid("A", 31)
    assert verdict is not None
    assert verdict.kind == "lost"
    assert court.xid("A", 79) is None
    assert court.said() == []
    court.xid("A", 13)
    assert court.said()[0][1] == "degraded"


def test_an_xid_of_a_stranger_is_nothing() -> None:
    assert Court("A").xid("B", 79) is None


def test_the_only_device_is_lost_when_it_is_silent() -> None:
    court = Court("A")
    assert court.silence("A") == [("A", "lost", "unresponsive: NVML does not answer")]
    assert court.read("A") == [("A", *GOOD)]


def test_one_that_is_silent_while_another_answers_is_lost() -> None:
    court = Court("A", "B")
    court.read("B")
    ((uuid, kind, reason),) = court.silence("A")
    assert (uuid, kind) == ("A", "degraded")  # B answered before: it may be stuck behind A's lock, or A behind B's
    assert "perhaps because of another" in reason
    court.now += 1
    ((uuid, kind, reason),) = court.read("B")
    assert (uuid, kind) == ("A", "lost")
    assert "answers for other devices" in reason
    assert court.read("A") == [("A", *GOOD)]


def test_where_all_are_silent_none_is_to_blame() -> None:
    court = Court("A", "B", "C")
    court.read("A")
    court.now += 1
    assert {kind for _, kind, _ in court.silence("A", "B", "C")} == {"degraded"}
    assert court.said(later=3600) == []


def test_loss_outweighs_silence_and_silence_a_warning() -> None:
    court = Court("A", "B")
    court.xid("A", 54)
    assert court.said()[0][2].startswith("XID 54")
    assert court.silence("A")[0][2].startswith("unresponsive")
    assert court.read("A", *LOST) == [("A", *LOST)]
    assert court.read("A")[0][2].startswith("XID 54")


def test_what_is_dropped_is_no_witness() -> None:
    court = Court("A", "B")
    court.judge.drop("B")
    assert court.silence("A") == [("A", "lost", "unresponsive: NVML does not answer")]
    assert court.xid("B", 79) is None


@pytest.mark.parametrize("kind", ["lost", "degraded"])
def test_a_reading_outweighs_a_warning(kind: str) -> None:
    court = Court("A")
    court.read("A", kind, "bad")
    court.xid("A", 54)
    assert court.said() == []
