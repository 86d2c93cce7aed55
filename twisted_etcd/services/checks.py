"""Health checks by message: a service of the node is asked how it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic

from twisted.internet.defer import Deferred

from twisted_etcd.messaging.addresses import Target
from twisted_etcd.messaging.correspondence import Correspondent
from twisted_etcd.messaging.messages import AnswerT, Request
from twisted_etcd.registry.health.function import CallableCheck
from twisted_etcd.registry.health.result import CheckResult


def _any_answer(_: object) -> None:
    """Who answers, serves."""


class MessageCheck(Generic[AnswerT]):
    """
    Calls a service of the node, which passes where it answers, and fails where it does not run, or fails itself.

    :param caller: the node, or a service.
    :param target: the service's name or handle.
    :param request: what it is asked, each time the same.
    :param judge: says what an answer means, as the function of a
        :class:`~twisted_etcd.registry.health.function.CallableCheck` does; without it every answer passes.
    """

    def __init__(
        self,
        caller: Correspondent,
        target: Target,
        request: Request[AnswerT],
        judge: Callable[[AnswerT], object] = _any_answer,
    ) -> None:
        self._target = target
        self._request = request
        # The monitor cancels it in its time.
        self._check = CallableCheck(lambda: caller.call(target, request, math.inf).addCallback(self._judged))
        self._judge: Callable[[AnswerT], Any] = judge

    def __repr__(self) -> str:
        # The request may have secrets in it.
        name = self._target if isinstance(self._target, str) else self._target.name
        return f"<MessageCheck {name}: {type(self._request).__name__}>"

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        return self._check.check()

    def _judged(self, answer: AnswerT) -> Any:  # noqa: ANN401 - a verdict has many forms
        return self._judge(answer)
