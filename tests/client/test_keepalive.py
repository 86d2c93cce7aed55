from __future__ import annotations

import heapq
import itertools
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_etcd.client.keepalive import KeepaliveSchedule

# --- in particular --------------------------------------------------------------------------------------------------


def test_a_lease_is_due_after_a_third_of_its_ttl() -> None:
    schedule = KeepaliveSchedule()
    assert schedule.next_due() is None
    schedule.add(1, 30, 100.0)
    assert schedule.next_due() == 110
    assert schedule.take_due(109.9) == ([], [])
    assert schedule.take_due(110) == ([1], [])
    # It is asked for once, until there is an answer or none.
    assert schedule.take_due(111) == ([], [])
    assert schedule.next_due() == 130


def test_what_was_confirmed_counts_from_when_it_was_asked_for() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 30, 100.0)
    schedule.take_due(110)
    schedule.confirmed(1, 30, 110.0)
    assert schedule.next_due() == 120
    assert schedule.seconds_left(1, 115.0) == 25
    assert schedule.seconds_left(1, 999.0) == 0


def test_an_answer_to_an_older_question_takes_nothing_away() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 30, 100.0)
    schedule.confirmed(1, 30, 110.0)
    schedule.confirmed(1, 30, 105.0)
    assert schedule.seconds_left(1, 110.0) == 30


def test_without_an_answer_it_is_asked_for_again_soon_and_at_the_end_it_is_lost() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 6, 0.0)
    asked = []
    now = schedule.next_due()
    while now is not None:
        ask, lost = schedule.take_due(now)
        if lost:
            assert (ask, lost, now) == ([], [1], 6)
            break
        asked.append(now)
        schedule.unanswered(1, now)
        now = schedule.next_due()
    assert asked == [2 + half / 2 for half in range(8)]
    assert 1 not in schedule
    assert len(schedule) == 0
    assert schedule.next_due() is None


def test_a_long_lease_is_asked_for_again_after_a_second() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 3600, 0.0)
    schedule.take_due(1200)
    schedule.unanswered(1, 1203)
    assert schedule.next_due() == 1204


def test_one_that_was_never_answered_is_lost_at_its_deadline() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 30, 0.0)
    schedule.take_due(10)
    assert schedule.next_due() == 30
    assert schedule.take_due(30) == ([], [1])
    # What comes now comes too late, and does not bring it back.
    schedule.confirmed(1, 30, 10.0)
    schedule.unanswered(1, 31)
    assert schedule.next_due() is None
    assert schedule.seconds_left(1, 31) == 0


def test_leases_that_are_nearly_due_keep_the_first_company() -> None:
    schedule = KeepaliveSchedule()
    for number in range(10):
        schedule.add(number, 12, number * 0.25)
    # Due at 4, 4.25, …; a twelfth of 12 is 1.
    assert schedule.take_due(4) == ([0, 1, 2, 3, 4], [])
    assert schedule.next_due() == 5.25


def test_a_lease_that_was_removed_is_never_due() -> None:
    schedule = KeepaliveSchedule()
    schedule.add(1, 30, 0.0)
    schedule.add(2, 30, 5.0)
    schedule.remove(1)
    schedule.remove(1)
    assert schedule.next_due() == 15
    assert schedule.take_due(1000) == ([], [2])


# --- in general -----------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What becomes of a keepalive: ``None`` where nobody ever hears of it, else whether, and after how long."""

    confirmed: bool
    after: float


times = st.floats(min_value=0, max_value=50, allow_nan=False).map(lambda seconds: round(seconds, 2))
answers = st.one_of(st.none(), st.builds(Answer, st.booleans(), times))
leases = st.lists(st.tuples(times, st.integers(min_value=1, max_value=60)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(leases=leases, fates=st.lists(answers, min_size=1, max_size=12), lateness=st.sampled_from([0.0, 0.0, 0.3, 5.0]))
def test_no_lease_passes_its_deadline_unnoticed_and_time_always_goes_on(  # noqa: C901, PLR0912 - one simulation
    leases: list[tuple[float, int]], fates: list[Answer | None], lateness: float
) -> None:
    """
    Plays keepers against a server whose answers come late, or not, or never.

    ``lateness`` is how much after the time that it asked for the timer comes.
    """
    schedule = KeepaliveSchedule()
    order = itertools.count()
    happenings: list[tuple[float, int, str, int, float]] = []
    for lease_id, (start, ttl) in enumerate(leases):
        heapq.heappush(happenings, (start, next(order), "granted", lease_id, ttl))
    fate = itertools.cycle(fates)
    deadlines: dict[int, float] = {}
    lost_at: dict[int, float] = {}
    under_way: dict[int, int] = {}
    now = 0.0
    for _ in range(400):
        due = schedule.next_due()
        tick = max(now, due + lateness) if due is not None else None
        if happenings and (tick is None or happenings[0][0] <= tick):
            now, _, what, lease_id, value = heapq.heappop(happenings)
            if what == "granted":
                schedule.add(lease_id, value, now)
                deadlines[lease_id] = now + value
                continue
            under_way[lease_id] -= 1
            if what == "confirmed":
                asked_at = value
                ttl = leases[lease_id][1]
                if lease_id in schedule:
                    deadlines[lease_id] = max(deadlines[lease_id], asked_at + ttl)
                schedule.confirmed(lease_id, ttl, asked_at)
            else:
                schedule.unanswered(lease_id, now)
            continue
        if tick is None:
            break
        now = tick
        ask, lost = schedule.take_due(now)
        for lease_id in lost:
            assert lease_id not in schedule
            assert lease_id not in lost_at
            assert deadlines[lease_id] <= now <= deadlines[lease_id] + lateness
            lost_at[lease_id] = now
        assert not set(ask) & set(lost)
        assert len(set(ask)) == len(ask)
        for lease_id in ask:
            # In time for an answer, and never two questions at a time.
            assert now < deadlines[lease_id]
            answer = next(fate)
            under_way[lease_id] = under_way.get(lease_id, 0) + 1
            if answer is not None:
                what = "confirmed" if answer.confirmed else "unanswered"
                heapq.heappush(happenings, (now + answer.after, next(order), what, lease_id, now))
        for lease_id, deadline in deadlines.items():
            assert lease_id in lost_at or deadline > now
        following = schedule.next_due()
        # Else the keeper would spin.
        assert following is None or following > now
    for lease_id, deadline in deadlines.items():
        assert (lease_id in schedule) == (lease_id not in lost_at)
        assert lease_id in lost_at or deadline + lateness >= now
