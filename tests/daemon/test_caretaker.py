"""The caretaker on a clock: how long it waits, what it says and how often, and that nothing of it stays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.said import Said
from twisted_etcd.backoff import FIRST_BACKOFF
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.daemon.caretaker import CARETAKER, Caretaker
from twisted_etcd.daemon.settings import RegisterSettings, Settings
from twisted_etcd.errors import (
    AuthenticationFailed,
    Compacted,
    DeadlineExceeded,
    NoLeader,
    NotEtcd,
    PermissionDenied,
    Unavailable,
)
from twisted_etcd.gateway.endpointset import EndpointState, EndpointStatus
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.registry.instance import InstanceFormat
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdConfigChangedMsg,
    EtcdConfigWatchReq,
    EtcdConfigWatchResp,
    EtcdHeartbeatMsg,
    EtcdServiceRegisterReq,
    EtcdServiceRegisterResp,
    EtcdWatchEndedMsg,
)
from twisted_etcd.settings.etcd import EtcdSettings

ValueT = TypeVar("ValueT")
Outcome = Exception | None

SHOP = RegisterSettings(name="shop", address="127.0.0.1:80", ttl=7, tags=("a",), metadata={"zone": "west"})
AWAY = Unavailable("no answer", {"http://a:1": "connection refused"})


class ScriptedClient:
    """Answers reads as it is told, and notes when and how they were asked."""

    endpoints = tuple(EndpointStatus(url=url, state=EndpointState.UNTRIED) for url in ("http://a:1", "http://b:2"))

    def __init__(self, clock: Clock) -> None:
        self.asked: list[tuple[float, str, float | None]] = []
        self.outcome: Callable[[int], Deferred[None]] = lambda _: succeed(None)
        self._clock = clock

    def get(self, key: str, *, count_only: bool, timeout: float | None) -> Deferred[None]:
        assert count_only
        self.asked.append((self._clock.seconds(), key, timeout))
        return self.outcome(len(self.asked))

    def waits(self) -> list[float]:
        """Seconds between one attempt and the next."""
        times = [at for at, _, _ in self.asked]
        return [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]


class ScriptedService(MessageService):
    """Answers for etcd as it is told."""

    def __init__(self) -> None:
        super().__init__(ETCD_SERVICE)
        self.requests: list[object] = []
        self.outcome: Callable[[int], Exception | None] = lambda _: None
        self.waiting: list[Deferred[None]] = []
        self.value: bytes | None = None

    def _answer(self, request: object, answer: ValueT) -> ValueT:
        self.requests.append(request)
        error = self.outcome(len(self.requests))
        if error is not None:
            raise error
        return answer

    @handles(EtcdServiceRegisterReq)
    def on_register(self, message: EtcdServiceRegisterReq) -> EtcdServiceRegisterResp:
        return self._answer(message, EtcdServiceRegisterResp(success=True, lease_id=1))

    @handles(EtcdConfigWatchReq)
    def on_config_watch(self, message: EtcdConfigWatchReq) -> EtcdConfigWatchResp:
        return self._answer(message, EtcdConfigWatchResp(len(self.requests) + 1, self.value))


class Scene:
    """A node with a caretaker, and with stand-ins for all that it talks to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.client = ScriptedClient(self.clock)
        self.etcd = ScriptedService()
        self.node = Node(self.clock)
        self.caretaker: Caretaker

    def start(self, **settings: Any) -> None:  # noqa: ANN401 - as Settings has them
        client = cast("EtcdClient", self.client)
        # The longest waits that there can be.
        self.caretaker = Caretaker(client, self.clock, Settings(**settings), random=lambda: 1.0)
        self.etcd.setServiceParent(self.node)
        self.caretaker.setServiceParent(self.node)
        self.node.startService()
        self.turn()

    def turn(self) -> None:
        """Let what is due now happen."""
        for _ in range(20):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    def tell(self, message: Any) -> None:  # noqa: ANN401 - any message
        self.node.send(CARETAKER, message)
        self.turn()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    stopped: list[None] = []
    scene.node.stopService().addCallback(stopped.append)
    scene.turn()
    assert stopped == [None]
    assert scene.clock.getDelayedCalls() == []


def heartbeat(*, healthy: bool) -> EtcdHeartbeatMsg:
    state = RegistrationState.ALIVE if healthy else RegistrationState.LOST
    return EtcdHeartbeatMsg(
        service_name=SHOP.name, service_address=SHOP.address, healthy=healthy, state=state, seconds_left=3.0
    )


# --- until etcd answers ---------------------------------------------------------------------------------------------


def test_the_first_question_is_short_and_the_others_have_the_time_of_any_request(scene: Scene) -> None:
    scene.client.outcome = lambda number: fail(AWAY) if number < 3 else succeed(None)
    scene.start(etcd=EtcdSettings(config_prefix="/our/config"))
    scene.advance(1)
    assert [(key, timeout) for _, key, timeout in scene.client.asked] == [
        ("/our/config/-", 1.0),
        ("/our/config/-", None),
        ("/our/config/-", None),
    ]


def test_the_first_question_is_no_longer_than_any_request(scene: Scene) -> None:
    scene.start(etcd=EtcdSettings(request_timeout=0.3))
    assert [timeout for _, _, timeout in scene.client.asked] == [0.3]


def test_the_waits_double_up_to_five_seconds(scene: Scene) -> None:
    scene.client.outcome = lambda _: fail(AWAY)
    scene.start()
    scene.advance(25)
    assert scene.client.waits() == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0], abs=0.03)


def test_each_kind_of_failure_is_said_once(scene: Scene, said: Said, logged_errors: LoggedErrors) -> None:
    failures = [AWAY, AWAY, DeadlineExceeded("late"), AWAY, NoLeader(14, "no leader"), NotEtcd("a web site"), AWAY]
    scene.client.outcome = lambda number: fail(failures[number - 1]) if number <= len(failures) else succeed(None)
    scene.start()
    scene.advance(10)
    lines = [line.partition("#")[2] for line in said.lines if "caretaker" in line]
    where = "http://a:1, http://b:2"
    cannot = f"Cannot use etcd at {where} yet, and will go on trying: "
    assert lines == [
        f"warn {cannot}no answer: http://a:1: connection refused",
        f"warn {cannot}late",
        f"warn {cannot}no leader (etcd, code 14)",
        f"error {cannot}a web site",
        f"info etcd answers at {where}",
    ]
    assert len(logged_errors.flush_messages("a web site")) == 1


def test_a_user_that_may_not_read_the_configuration_has_reached_etcd(scene: Scene, said: Said) -> None:
    scene.client.outcome = lambda _: fail(PermissionDenied(7, "permission denied"))
    scene.start(register=(SHOP,))
    assert said.count("etcd answers at") == 1
    assert len(scene.etcd.requests) == 1


def test_all_that_a_registration_can_say_is_asked_for(scene: Scene) -> None:
    scene.start(
        register=(
            RegisterSettings(
                name="web", address="h:1", drain=1.5, weight=3, id="web-1", format=InstanceFormat.GO, own_lease=True
            ),
        )
    )
    [request] = scene.etcd.requests
    assert request == EtcdServiceRegisterReq(
        service_name="web",
        service_address="h:1",
        heartbeat_to=scene.caretaker.handle,
        drain=1.5,
        weight=3,
        id="web-1",
        format="go",
        own_lease=True,
    )


def test_nothing_is_asked_for_before_etcd_answers(scene: Scene) -> None:
    answer: Deferred[None] = Deferred()
    scene.client.outcome = lambda _: answer
    scene.start(register=(SHOP,), watch=("app/database",))
    assert scene.etcd.requests == []
    answer.callback(None)
    scene.turn()
    assert [type(request) for request in scene.etcd.requests] == [EtcdServiceRegisterReq, EtcdConfigWatchReq]


def test_a_stop_ends_a_question_under_way(scene: Scene, said: Said) -> None:
    cancelled: list[object] = []
    scene.client.outcome = lambda _: Deferred(cancelled.append)
    scene.start(register=(SHOP,))
    scene.node.stopService()
    scene.turn()
    assert len(cancelled) == 1
    assert said.lines == []


# --- registering and following --------------------------------------------------------------------------------------


def test_a_registration_is_asked_for_as_the_settings_have_it(scene: Scene) -> None:
    scene.start(register=(SHOP,))
    assert scene.etcd.requests == [
        EtcdServiceRegisterReq(
            service_name="shop",
            service_address="127.0.0.1:80",
            ttl=7,
            tags=("a",),
            metadata={"zone": "west"},
            heartbeat_to=scene.caretaker.handle,
        )
    ]


def test_what_etcd_refuses_is_tried_again_until_it_is_mended_there(
    scene: Scene, said: Said, logged_errors: LoggedErrors
) -> None:
    refusal = PermissionDenied(7, "permission denied")
    scene.etcd.outcome = lambda number: refusal if number < 6 else None
    scene.start(register=(SHOP,))
    scene.advance(0.05 + 0.1 + 0.2 + 0.4)
    assert 3 < len(scene.etcd.requests) < 6
    scene.advance(10)
    assert len(scene.etcd.requests) == 6
    (line,) = logged_errors.flush_messages("Cannot register shop at 127.0.0.1:80 yet")
    assert "permission denied" in line


def test_a_stop_ends_the_wait_for_the_next_attempt(scene: Scene, said: Said, logged_errors: LoggedErrors) -> None:
    scene.etcd.outcome = lambda _: AuthenticationFailed(3, "authentication failed")
    scene.start(register=(SHOP,), watch=("app/database",))
    scene.node.stopService()
    scene.turn()
    asked = len(scene.etcd.requests)
    assert asked == 2
    assert scene.clock.getDelayedCalls() == []
    assert len(logged_errors.flush_messages("Cannot ")) == 2


def test_what_is_followed_is_told_with_its_size_alone(scene: Scene, said: Said) -> None:
    scene.etcd.value = b"a-secret"
    scene.start(watch=("app/database",))
    assert said.count("The configuration app/database is followed: 8 bytes") == 1
    change = EtcdConfigChangedMsg(
        key="app/database", new_value=b"new-secret", old_value=b"a-secret", change_type=ChangeType.MODIFIED, revision=9
    )
    scene.tell(change)
    assert said.count("The configuration app/database was modified at revision 9: 10 bytes") == 1
    assert said.count("secret") == 0


def test_a_watch_that_ended_is_begun_anew(scene: Scene, said: Said) -> None:
    scene.start(watch=("app/database", "app/cache"))
    assert len(scene.etcd.requests) == 2
    scene.tell(EtcdWatchEndedMsg(1, Compacted(11, "compacted")))
    assert scene.etcd.requests[2:] == []
    scene.advance(FIRST_BACKOFF)
    assert scene.etcd.requests[2:] == [EtcdConfigWatchReq("app/database")]
    assert said.count("#warn The configuration app/database is followed anew: compacted") == 1
    assert said.count("The configuration app/database is followed: not set") == 2
    # Each time it waits longer, until something has come of it.
    scene.tell(EtcdWatchEndedMsg(3, Compacted(11, "compacted")))
    scene.advance(FIRST_BACKOFF)
    assert scene.etcd.requests[3:] == []
    scene.advance(FIRST_BACKOFF + 0.01)
    assert scene.etcd.requests[3:] == [EtcdConfigWatchReq("app/database")]
    scene.tell(
        EtcdConfigChangedMsg(
            key="app/database", new_value=b"1", old_value=None, change_type=ChangeType.CREATED, revision=9
        )
    )
    scene.tell(EtcdWatchEndedMsg(4, Compacted(11, "compacted")))
    scene.advance(FIRST_BACKOFF)
    assert scene.etcd.requests[4:] == [EtcdConfigWatchReq("app/database")]


def test_health_is_told_when_it_changes(scene: Scene, said: Said) -> None:
    scene.start()
    for healthy in (True, True, False, False, True):
        scene.tell(heartbeat(healthy=healthy))
    assert [line.partition("#")[2] for line in said.lines if "shop" in line] == [
        "info shop at 127.0.0.1:80 is registered",
        "warn shop at 127.0.0.1:80 is not registered now: lost",
        "info shop at 127.0.0.1:80 is registered",
    ]


def test_a_failure_that_nobody_thought_of_is_logged_with_its_traceback(
    scene: Scene, logged_errors: LoggedErrors
) -> None:
    scene.etcd.outcome = lambda _: ZeroDivisionError("a mistake of ours")
    scene.start(register=(SHOP,))
    scene.advance(10)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    assert len(scene.etcd.requests) == 1
