from __future__ import annotations

from typing import Any, cast

import pytest

from tests.registry.health.looked_at import CRITICAL, PASSING, WARNING, SteadyCheck
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.health import Health, initial_status

CHECK = SteadyCheck()


def test_only_the_checks_must_be_given() -> None:
    assert Health([CHECK]) == Health(
        (CHECK,),
        interval=10.0,
        timeout=5.0,
        rise=2,
        fall=3,
        deregister_after=None,
        initial=CRITICAL,
        show_status=False,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"checks": []}, "no check is given; give at least one"),
        ({"checks": CHECK}, r"checks must be a list of them, such as \[TCPCheck\(.*\], not SteadyCheck"),
        ({"checks": [print]}, "a check is needed, such as .*, not builtin_function_or_method"),
        ({"interval": 0}, "interval of a health check must be a number of seconds greater than 0, not 0"),
        ({"interval": None}, "interval .* not None"),
        ({"interval": float("nan")}, "interval .* not nan"),
        ({"timeout": -1.5}, "timeout .* not -1.5"),
        ({"timeout": "5"}, "timeout .* not '5'"),
        ({"deregister_after": 0}, "deregister_after .* not 0"),
        ({"rise": 0}, "rise of a health check must be a whole number from 1 on, not 0"),
        ({"fall": 2.0}, "fall .* not 2.0"),
        ({"fall": True}, "fall .* not True"),
        ({"initial": WARNING}, "initial of a health check must be Status.CRITICAL or Status.PASSING"),
        ({"initial": "warning"}, "initial .* not 'warning'"),
        ({"initial": "good"}, "initial .* not 'good'"),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{expected}"):
        Health(**cast("Any", {"checks": [CHECK], **given}))


def test_several_begin_as_the_worst_of_them_does() -> None:
    critical, good = Health([CHECK]), Health([CHECK], initial=PASSING)
    assert initial_status([good]) is PASSING
    assert initial_status([good, critical]) is CRITICAL
