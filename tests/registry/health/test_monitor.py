"""The monitor, with a test in the place of time, of the checks and of the registration."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, peek, result_of
from tests.registry.health.looked_at import (
    CRITICAL,
    PASSING,
    WARNING,
    Monitored,
    Registered,
    ScriptedCheck,
    SteadyCheck,
)
from tests.said import Said
from twisted_etcd.errors import InvalidSettings, ServiceStopped, Unavailable
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.health.result import CheckResult

AWAY = Unavailable("etcd is away")


def test_it_is_offered_once_its_check_has_passed(said: Said) -> None:
    check = ScriptedCheck()
    monitored = Monitored(check)
    monitored.start()
    assert monitored.registered.told == ["withhold"]
    assert monitored.monitor.status is CRITICAL
    assert repr(monitored.monitor) == "<HealthMonitor of shop at 10.0.0.7:80: critical, not looked at yet>"
    check.ends(PASSING, "answered 200")
    assert monitored.registered.told == ["withhold", "offer"]
    assert monitored.changes == [(CRITICAL, PASSING, "<check>: answered 200")]
    assert repr(monitored.monitor) == "<HealthMonitor of shop at 10.0.0.7:80: passing, <check>: answered 200>"
    assert said.count("#info shop at 10.0.0.7:80 is passing, after critical: <check>: answered 200") == 1
    monitored.monitor.stop()


def test_one_that_begins_as_passing_is_offered_at_once() -> None:
    monitored = Monitored(ScriptedCheck(), initial=PASSING)
    monitored.start()
    assert monitored.registered.told == ["offer"]
    assert monitored.changes == []
    monitored.monitor.stop()


def test_it_is_withheld_at_the_fall_and_comes_back_at_the_rise(said: Said) -> None:
    check = SteadyCheck()
    monitored = Monitored(check)
    monitored.start()
    check.status = CRITICAL
    monitored.pass_by(20)
    assert (monitored.monitor.status, monitored.registered.told) == (WARNING, ["withhold", "offer"])
    monitored.pass_by(10)
    assert (monitored.monitor.status, monitored.registered.told) == (CRITICAL, ["withhold", "offer", "withhold"])
    check.status = PASSING
    monitored.pass_by(10)
    assert monitored.monitor.status is CRITICAL
    monitored.pass_by(10)
    assert monitored.monitor.status is PASSING
    assert monitored.registered.told == ["withhold", "offer", "withhold", "offer"]
    assert [change[:2] for change in monitored.changes] == [
        (CRITICAL, PASSING),
        (PASSING, WARNING),
        (WARNING, CRITICAL),
        (CRITICAL, PASSING),
    ]
    assert said.count("#warn shop at 10.0.0.7:80 is warning, after passing: <steady>: look 2") == 1
    assert said.count("#warn shop at 10.0.0.7:80 is critical, after warning: <steady>: look 4") == 1
    monitored.monitor.stop()


def test_of_several_checks_the_worst_counts() -> None:
    good, bad = SteadyCheck(), SteadyCheck(CRITICAL, "bad")
    monitored = Monitored(good, bad, fall=1, rise=1)
    monitored.start()
    assert (monitored.monitor.status, monitored.registered.told) == (CRITICAL, ["withhold"])
    bad.status = WARNING
    monitored.pass_by(10)
    assert (monitored.monitor.status, monitored.registered.told) == (WARNING, ["withhold", "offer"])
    assert monitored.monitor.why == "<bad>: look 2"
    bad.status = PASSING
    monitored.pass_by(10)
    assert (monitored.monitor.status, monitored.registered.told) == (PASSING, ["withhold", "offer"])
    monitored.monitor.stop()


def test_several_healths_have_times_of_their_own() -> None:
    quick, slow = SteadyCheck(), SteadyCheck()
    healths = (Health((quick,), interval=1.0), Health((slow,), interval=5.0))
    monitored = Monitored(healths=healths)
    monitored.start()
    monitored.pass_by(10)
    assert (quick.looks, slow.looks) == (11, 3)
    monitored.monitor.stop()


def test_the_status_is_shown_before_the_key_comes_back() -> None:
    check = SteadyCheck()
    monitored = Monitored(check, show_status=True, fall=2, rise=1)
    monitored.start()
    assert monitored.registered.told == ["withhold", "update passing", "offer"]
    check.status = CRITICAL
    monitored.pass_by(10)
    assert monitored.registered.told[3:] == ["update warning"]
    monitored.pass_by(10)
    assert monitored.registered.told[4:] == ["withhold"]
    check.status = WARNING
    monitored.pass_by(10)
    assert monitored.registered.told[5:] == ["offer"]
    check.status = PASSING
    monitored.pass_by(10)
    assert monitored.registered.told[6:] == ["update passing"]
    monitored.monitor.stop()


# --- where it cannot be told ----------------------------------------------------------------------------------------


def test_what_fails_is_said_once_and_tried_again_until_it_works(said: Said) -> None:
    monitored = Monitored(SteadyCheck(), interval=100.0, initial=PASSING)
    monitored.registered.answers = [AWAY, AWAY, AWAY]
    monitored.start()
    monitored.pass_by(1, step=0.1)
    assert monitored.registered.told == ["offer"] * 4
    assert said.count("#warn shop at 10.0.0.7:80 could not offer it, which is tried again: etcd is away") == 1
    monitored.pass_by(50)
    assert monitored.registered.told == ["offer"] * 4
    monitored.monitor.stop()


def test_the_waits_between_attempts_grow_up_to_ten_seconds() -> None:
    monitored = Monitored(SteadyCheck(), interval=10_000.0, initial=PASSING)
    monitored.registered.answers = [AWAY] * 1000
    monitored.start()
    monitored.pass_by(100)
    before = len(monitored.registered.told)
    monitored.pass_by(100)
    # the test's chance is always a half
    assert len(monitored.registered.told) - before == 20
    monitored.monitor.stop()


def test_an_error_of_the_registrations_own_is_logged_whole(logged_errors: LoggedErrors) -> None:
    monitored = Monitored(SteadyCheck(), initial=PASSING)
    monitored.registered.answers = [ZeroDivisionError("a mistake")]
    monitored.start()
    assert monitored.registered.told == ["offer", "offer"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    monitored.monitor.stop()


def test_after_a_failure_nothing_is_taken_for_granted() -> None:
    check = SteadyCheck()
    monitored = Monitored(check, fall=1, rise=1)
    monitored.start()
    check.status = CRITICAL
    monitored.registered.answers = [AWAY] * 1000
    monitored.pass_by(15)
    assert monitored.registered.told[:3] == ["withhold", "offer", "withhold"]
    # it may be withheld by now, so it is offered although it was before
    check.status = PASSING
    monitored.registered.answers = []
    monitored.registered.told.clear()
    monitored.clock.advance(5.5)
    assert monitored.registered.told[-1] == "offer"
    monitored.monitor.stop()


def test_one_call_at_a_time_and_the_last_status_is_what_counts() -> None:
    check = SteadyCheck()
    monitored = Monitored(check, fall=1, rise=1)
    withholding: Deferred[None] = Deferred()
    monitored.registered.answers = [withholding]
    monitored.start()
    assert monitored.monitor.status is PASSING
    assert monitored.registered.told == ["withhold"]
    for status in (CRITICAL, PASSING, CRITICAL, PASSING):
        check.status = status
        monitored.pass_by(10)
    assert monitored.registered.told == ["withhold"]
    withholding.callback(None)
    assert monitored.registered.told == ["withhold", "offer"]
    monitored.monitor.stop()


def test_a_new_status_does_not_wait_for_the_next_attempt() -> None:
    check = SteadyCheck()
    monitored = Monitored(check, interval=1.0, fall=1, rise=1)
    monitored.start()
    check.status = CRITICAL
    monitored.registered.answers = [AWAY] * 9
    while monitored.registered.answers:
        monitored.clock.advance(0.1)
    check.status = PASSING
    monitored.registered.told.clear()
    monitored.clock.advance(1)
    assert monitored.registered.told == ["offer"]
    monitored.monitor.stop()


def test_a_registration_that_has_ended_is_looked_at_no_longer(said: Said) -> None:
    monitored = Monitored(SteadyCheck(), initial=PASSING)
    monitored.registered.answers = [ServiceStopped("it was taken back")]
    monitored.start()
    assert result_of(monitored.monitor.ended) is None
    assert monitored.clock.getDelayedCalls() == []
    assert not monitored.monitor.deregistered
    assert said.count("shop at 10.0.0.7:80 is looked at no longer: its registration has ended") == 1


# --- no hope --------------------------------------------------------------------------------------------------------


def test_after_a_set_time_of_critical_it_is_taken_back_and_the_monitor_ends(said: Said) -> None:
    check = SteadyCheck()
    monitored = Monitored(check, deregister_after=60.0)
    monitored.start()
    check.status = CRITICAL
    monitored.pass_by(30 + 59)
    assert monitored.monitor.status is CRITICAL
    assert monitored.registered.told == ["withhold", "offer", "withhold"]
    monitored.pass_by(1)
    assert monitored.registered.told == ["withhold", "offer", "withhold", "take back"]
    assert monitored.changes[-1] == (CRITICAL, None, "<steady> was critical for 60 seconds")
    assert result_of(monitored.monitor.ended) is None
    assert monitored.monitor.deregistered
    assert monitored.clock.getDelayedCalls() == []
    assert said.count("#warn shop at 10.0.0.7:80 is deregistered: <steady> was critical for 60 seconds") == 1
    assert result_of(monitored.monitor.stop()) is None


def test_what_never_passed_is_taken_back_too() -> None:
    monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
    monitored.monitor.start()
    monitored.pass_by(59.5)
    assert not monitored.monitor.deregistered
    monitored.pass_by(0.5)
    assert monitored.monitor.deregistered
    assert monitored.registered.told == ["withhold", "take back"]


def test_a_moment_of_health_begins_the_time_anew() -> None:
    check = SteadyCheck(CRITICAL)
    monitored = Monitored(check, deregister_after=60.0, rise=1)
    monitored.start()
    monitored.pass_by(40)
    check.status = WARNING
    monitored.pass_by(10)
    check.status = CRITICAL
    monitored.pass_by(80)
    assert not monitored.monitor.deregistered
    monitored.pass_by(10)
    assert monitored.monitor.deregistered


def test_taking_back_is_tried_until_it_works() -> None:
    monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
    monitored.start()
    monitored.registered.answers = [AWAY, AWAY]
    monitored.pass_by(59.5)
    assert monitored.registered.told == ["withhold", "take back"]
    assert peek(monitored.monitor.ended) is PENDING
    monitored.pass_by(1)
    assert monitored.registered.told == ["withhold", "take back", "take back", "take back"]
    assert result_of(monitored.monitor.ended) is None
    assert monitored.clock.getDelayedCalls() == []


def test_a_registration_that_has_ended_already_need_not_be_taken_back() -> None:
    monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
    monitored.start()
    monitored.registered.answers = [ServiceStopped("it was taken back")]
    monitored.pass_by(60)
    assert result_of(monitored.monitor.ended) is None
    assert monitored.registered.told == ["withhold", "take back"]


# --- callbacks, and the end -----------------------------------------------------------------------------------------


def test_a_callback_that_fails_is_logged_and_nothing_else(logged_errors: LoggedErrors) -> None:
    monitored = Monitored(SteadyCheck())
    monitored.during_changed = lambda: 1 // 0
    monitored.start()
    assert monitored.registered.told == ["withhold", "offer"]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    monitored.pass_by(10)
    monitored.monitor.stop()


def test_stopped_it_leaves_the_registration_as_it_is() -> None:
    monitored = Monitored(SteadyCheck())
    monitored.start()
    assert result_of(monitored.monitor.stop()) is result_of(monitored.monitor.ended) is None
    assert monitored.registered.told == ["withhold", "offer"]
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_from_a_callback() -> None:
    monitored = Monitored(SteadyCheck())
    monitored.during_changed = monitored.monitor.stop
    monitored.start()
    assert result_of(monitored.monitor.ended) is None
    assert monitored.clock.getDelayedCalls() == []
    assert len(monitored.changes) == 1


@pytest.mark.parametrize("initial", [CRITICAL, PASSING])
@pytest.mark.parametrize("call", [1, 2])
def test_stopped_from_within_the_registration(initial: object, call: int) -> None:
    check = SteadyCheck(CRITICAL if initial is PASSING else PASSING)
    monitored = Monitored(check, initial=initial, fall=1)

    def stop() -> None:
        if len(monitored.registered.told) == call:
            monitored.monitor.stop()

    monitored.registered.during = stop
    monitored.start()
    assert result_of(monitored.monitor.ended) is None
    assert len(monitored.registered.told) == call
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_while_it_looks_and_while_the_registration_is_being_told() -> None:
    check = ScriptedCheck()
    check.holds_on = True
    monitored = Monitored(check)
    withholding: Deferred[None] = Deferred()
    monitored.registered.answers = [withholding]
    monitored.start()
    stopped = monitored.monitor.stop()
    assert withholding.called
    assert peek(stopped) is PENDING
    check.ends()
    assert result_of(stopped) is None
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_while_it_is_taken_back_it_waits_for_that_and_tries_no_more() -> None:
    for comes in (None, AWAY):
        monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
        monitored.start()
        taking_back: Deferred[None] = Deferred()
        monitored.registered.answers = [taking_back]
        monitored.pass_by(60)
        stopped = monitored.monitor.stop()
        assert not taking_back.called
        assert peek(stopped) is PENDING
        if comes is None:
            taking_back.callback(None)
        else:
            taking_back.errback(comes)
        assert result_of(stopped) is None
        assert monitored.registered.told == ["withhold", "take back"]
        assert monitored.clock.getDelayedCalls() == []


def test_stopped_by_the_registration_as_it_is_taken_back() -> None:
    monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
    monitored.start()
    taking_back: Deferred[None] = Deferred()
    monitored.registered.answers = [taking_back]
    monitored.registered.during = monitored.monitor.stop
    monitored.pass_by(60)
    assert not taking_back.called
    assert peek(monitored.monitor.ended) is PENDING
    taking_back.callback(None)
    assert result_of(monitored.monitor.ended) is result_of(monitored.monitor.stop()) is None
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_while_it_waits_to_take_it_back_again() -> None:
    monitored = Monitored(SteadyCheck(CRITICAL), deregister_after=60.0)
    monitored.start()
    monitored.registered.answers = [AWAY]
    monitored.pass_by(59.5)
    assert result_of(monitored.monitor.stop()) is None
    assert monitored.registered.told == ["withhold", "take back"]
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_while_it_waits_for_the_next_attempt() -> None:
    monitored = Monitored(SteadyCheck(), interval=100.0)
    monitored.registered.answers = [AWAY] * 1000
    monitored.start()
    assert result_of(monitored.monitor.stop()) is None
    assert monitored.clock.getDelayedCalls() == []


def test_stopped_before_it_was_started() -> None:
    monitored = Monitored(SteadyCheck())
    assert result_of(monitored.monitor.stop()) is None
    with pytest.raises(RuntimeError, match="make a new one"):
        monitored.monitor.start()


def test_it_is_started_once() -> None:
    monitored = Monitored(SteadyCheck())
    monitored.start()
    with pytest.raises(RuntimeError, match="make a new one"):
        monitored.monitor.start()
    monitored.monitor.stop()


def test_without_any_health_there_is_nothing_to_monitor() -> None:
    with pytest.raises(InvalidSettings, match="the health of shop is needed"):
        HealthMonitor(Clock(), Registered(), (), name="shop", random=lambda: 0.5)


# --- many -----------------------------------------------------------------------------------------------------------


def test_a_thousand_checks_do_not_go_together() -> None:
    clock = Clock()
    chance = random.Random(5)
    looks: Counter[float] = Counter()

    class Counted(SteadyCheck):
        def check(self) -> Deferred[CheckResult]:
            looks[round(clock.seconds(), 1)] += 1
            return super().check()

    monitors = [
        HealthMonitor(clock, Registered(), Health((Counted(),)), name="shop", random=chance.random) for _ in range(1000)
    ]
    for monitor in monitors:
        monitor.start()
    clock.pump([0.01] * 100)
    assert sum(looks.values()) == 1000
    assert max(looks.values()) < 150
    looks.clear()
    clock.pump([0.01] * 1200)
    assert max(looks.values()) < 100
    for monitor in monitors:
        assert result_of(monitor.stop()) is None
    assert clock.getDelayedCalls() == []
