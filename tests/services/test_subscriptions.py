"""Subscriptions, with something scripted to follow."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, Note, failure_of, peek, result_of
from twisted_etcd.errors import MessagingError, ServiceStopped, ServiceUnavailable, Unavailable, WatchCancelled
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message
from twisted_etcd.moment import Moment
from twisted_etcd.services.background import Background
from twisted_etcd.services.messages import EtcdWatchEndedMsg
from twisted_etcd.services.subscriptions import Subscription, Subscriptions


class ScriptedFollowed:
    def __init__(self) -> None:
        self.moment: Moment[None] = Moment()
        self.stopping: Deferred[None] = Deferred()
        self.stops = 0

    @property
    def ended(self) -> Deferred[None]:
        return self.moment.wait()

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.stopping


class Followers:
    """Subscriptions of one subscriber."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.refuses = False
        self.stopped: Moment[None] = Moment()
        self.handle = ServiceHandle("Subscriber", self.stopped)
        self.background = Background()
        self.subscriptions = Subscriptions(self._send, self.background)
        self.followed = ScriptedFollowed()
        self.starting: Deferred[str] = Deferred()

    def _send(self, target: ServiceHandle, message: Message) -> int:
        assert target is self.handle
        if self.refuses:
            msg = "it is gone"
            raise MessagingError(msg)
        self.sent.append(message)
        return len(self.sent)

    def begin(self, subscription: Subscription | None = None) -> Deferred[str]:
        begun = subscription or self.subscriptions.new(self.handle)
        return Deferred.fromCoroutine(self.subscriptions.begin(begun, self.followed, lambda: self.starting))

    def opened(self) -> Subscription:
        subscription = self.subscriptions.new(self.handle)
        beginning = self.begin(subscription)
        self.starting.callback("value")
        assert result_of(beginning) == "value"
        return subscription


@pytest.fixture
def followers() -> Followers:
    return Followers()


def test_what_is_told_before_the_answer_comes_after_it_in_order(followers: Followers) -> None:
    subscription = followers.subscriptions.new(followers.handle)
    beginning = followers.begin(subscription)
    for number in (1, 2):
        subscription.tell(Note(number))
    assert followers.sent == []
    followers.starting.callback("value")
    assert result_of(beginning) == "value"
    subscription.tell(Note(3))
    assert followers.sent == [Note(1), Note(2), Note(3)]
    assert len(followers.subscriptions) == 1


def test_each_subscription_has_a_number_of_its_own(followers: Followers) -> None:
    assert followers.subscriptions.new(followers.handle).id != followers.subscriptions.new(followers.handle).id
    assert len(followers.subscriptions) == 0


def test_what_cannot_begin_is_not_left_open(followers: Followers) -> None:
    beginning = followers.begin()
    followers.starting.errback(Unavailable("etcd is away"))
    followers.followed.stopping.callback(None)
    failure_of(beginning, Unavailable)
    assert (len(followers.subscriptions), followers.followed.stops) == (0, 1)


def test_closed_it_tells_nothing_more_and_answers_when_its_watch_has_stopped(followers: Followers) -> None:
    subscription = followers.opened()
    closing = followers.subscriptions.close(subscription.id)
    subscription.tell(Note())
    assert peek(closing) is PENDING
    assert result_of(followers.subscriptions.close(subscription.id)) is False
    followers.followed.stopping.callback(None)
    assert result_of(closing) is True
    assert followers.sent == []
    followers.stopped.fire(None)
    assert followers.followed.stops == 1


def test_closed_while_it_begins_its_caller_is_told_so(followers: Followers) -> None:
    subscription = followers.subscriptions.new(followers.handle)
    beginning = followers.begin(subscription)
    followers.subscriptions.close(subscription.id)
    followers.followed.stopping.callback(None)
    followers.starting.callback("too late")
    failure_of(beginning, ServiceStopped)
    assert len(followers.subscriptions) == 0


def test_it_ends_with_its_subscriber_whenever_that_stops(followers: Followers) -> None:
    followers.opened()
    followers.stopped.fire(None)
    assert (len(followers.subscriptions), followers.followed.stops) == (0, 1)
    with pytest.raises(ServiceUnavailable, match="'Subscriber'"):
        followers.subscriptions.new(followers.handle)


def test_it_ends_when_its_subscriber_cannot_be_told(followers: Followers) -> None:
    subscription = followers.opened()
    followers.refuses = True
    subscription.tell(Note())
    subscription.tell(Note())
    assert (len(followers.subscriptions), followers.followed.stops) == (0, 1)


@pytest.mark.parametrize("error", [WatchCancelled("why not"), ZeroDivisionError()])
def test_what_ends_a_watch_is_told_whatever_it_is(followers: Followers, error: Exception) -> None:
    subscription = followers.opened()
    followers.followed.moment.fail(Failure(error))
    assert followers.sent == [EtcdWatchEndedMsg(subscription.id, error)]
    assert len(followers.subscriptions) == 0


def test_all_are_closed_in_the_background_which_can_be_waited_for(
    followers: Followers, logged_errors: LoggedErrors, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = followers.opened()
    followers.subscriptions.close_all()
    waiting = followers.background.wait()
    assert (len(followers.subscriptions), peek(waiting)) == (0, PENDING)
    followers.followed.stopping.errback(Unavailable("etcd is away"))
    assert result_of(waiting) is None
    assert f"watch {subscription.id} could not be ended: etcd is away" in caplog.text


# --- the background itself ----------------------------------------------------------------------------------------


def test_a_bug_in_the_background_is_logged_with_its_traceback(logged_errors: LoggedErrors) -> None:
    background = Background()
    work: Deferred[None] = Deferred()
    background.add(work, "it could not be done")
    work.errback(ZeroDivisionError())
    assert result_of(background.wait()) is None
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_who_waits_no_longer_for_the_background_cancels_it() -> None:
    background = Background()
    cancelled: list[Deferred[None]] = []
    background.add(Deferred(cancelled.append), "it could not be done")
    background.add(succeed(None), "it could not be done")
    waiting = background.wait()
    waiting.cancel()
    assert len(cancelled) == 1
    assert result_of(background.wait()) is None
