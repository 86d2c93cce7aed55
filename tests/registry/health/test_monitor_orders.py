"""The monitor, in whatever order results, answers of the registration, and time come."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.messaging.common import result_of
from tests.registry.health.looked_at import CRITICAL, PASSING
from twisted_etcd.errors import Unavailable
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status


class WaitingCheck:
    """A check whose look waits for the test, and may end late after it was cancelled."""

    def __init__(self) -> None:
        self.looking: Deferred[CheckResult] | None = None

    def check(self) -> Deferred[CheckResult]:
        assert self.looking is None, "two looks at a time"
        result: Deferred[CheckResult] = Deferred()
        look: Deferred[CheckResult] = Deferred(lambda _: None)

        def ended(found: CheckResult) -> CheckResult:
            if not look.called:
                look.callback(found)
            return found

        self.looking = result.addCallback(ended)
        return look.addErrback(lambda _: result)

    def ends(self, status: Status) -> None:
        looking, self.looking = self.looking, None
        if looking is not None:
            looking.callback(CheckResult(status))


class ModelledRegistration:
    """A registration whose calls wait for the test, and may fail although they had their effect."""

    def __init__(self) -> None:
        self.offered: bool | None = None
        self.shown: Status | None = None
        self.taken_back = False
        self._waiting: tuple[Deferred[None], Callable[[], None]] | None = None

    def _call(self, **effect: object) -> Deferred[None]:
        assert self._waiting is None, "two calls at a time"
        assert effect.get("taken_back") or not self.taken_back, "called after it was taken back"

        def apply() -> None:
            for name, value in effect.items():
                setattr(self, name, value)

        deferred: Deferred[None] = Deferred()
        self._waiting = (deferred, apply)
        return deferred

    def withhold(self) -> Deferred[None]:
        return self._call(offered=False)

    def offer(self) -> Deferred[None]:
        return self._call(offered=True)

    def update(self, *, status: Status) -> Deferred[None]:
        return self._call(shown=status)

    def take_back(self) -> Deferred[None]:
        return self._call(offered=False, taken_back=True)

    def answers(self, *, applied: bool, fails: bool) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        deferred, apply = waiting
        if applied:
            apply()
        if fails:
            deferred.errback(Unavailable("etcd is away"))
        else:
            deferred.callback(None)

    @property
    def is_called(self) -> bool:
        return self._waiting is not None


EVENTS = st.one_of(
    st.sampled_from(list(Status)),
    st.sampled_from(["works", "fails, applied", "fails"]),
    st.floats(min_value=0.1, max_value=12.0),
)


@settings(max_examples=400)
@given(
    events=st.lists(EVENTS, min_size=10, max_size=60),
    in_a_row=st.sampled_from([1, 2]),
    show_status=st.booleans(),
    initial=st.sampled_from([PASSING, CRITICAL]),
    deregister_after=st.sampled_from([None, 40.0]),
    chance=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_whatever_happens_the_registration_stands_in_the_end_as_its_health_says(
    *,
    events: list[Status | str | float],
    in_a_row: int,
    show_status: bool,
    initial: Status,
    deregister_after: float | None,
    chance: float,
) -> None:
    clock, check, registration = Clock(), WaitingCheck(), ModelledRegistration()
    health = Health(
        [check],
        fall=in_a_row,
        rise=in_a_row,
        deregister_after=deregister_after,
        initial=initial,
        show_status=show_status,
    )
    changes: list[tuple[Status, Status | None]] = []
    monitor = HealthMonitor(
        clock,
        registration,
        health,
        name="shop",
        random=lambda: chance,
        changed=lambda _, old, new, _why: changes.append((old, new)),
    )
    monitor.start()
    for event in events:
        if isinstance(event, Status):
            # Up to the next look.
            for _ in range(25):
                if check.looking is None:
                    clock.advance(0.5)
            check.ends(event)
        elif isinstance(event, float):
            clock.advance(event)
        else:
            registration.answers(applied=event != "fails", fails=event != "works")
    # the changes are a chain, from how it began to how it is
    assert [old for old, _ in changes] == [initial, *[new for _, new in changes]][: len(changes)]
    assert not changes or changes[-1][1] is (None if monitor.deregistered else monitor.status)
    # longer than the longest wait between two attempts
    for _ in range(25):
        while registration.is_called:
            registration.answers(applied=True, fails=False)
        clock.advance(0.5)
    while registration.is_called:
        registration.answers(applied=True, fails=False)
    if monitor.deregistered:
        assert registration.taken_back
    else:
        assert registration.offered is (monitor.status is not CRITICAL)
        assert not show_status or monitor.status is CRITICAL or registration.shown is monitor.status
    stopped = monitor.stop()
    check.ends(PASSING)
    assert result_of(stopped) is None
    assert result_of(monitor.ended) is None
    assert clock.getDelayedCalls() == []
