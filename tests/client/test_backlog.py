"""What waits for a consumer, and when it is too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.script import events
from twisted_etcd.client.backlog import Backlog
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.schema.kv import Event, KeyValue


def batch(*revisions: int) -> WatchBatch:
    return WatchBatch(events(*revisions), revisions[-1])


def heavy(key: bytes = b"", value: bytes = b"", before: bytes | None = None) -> WatchBatch:
    prev_kv = None if before is None else KeyValue(key=key, value=before)
    return WatchBatch((Event(kv=KeyValue(key=key, value=value), prev_kv=prev_kv),), 1)


def test_it_is_too_long_beyond_its_number_of_events() -> None:
    backlog = Backlog(3)
    backlog.append(batch(1, 2))
    backlog.append(batch(3))
    assert (len(backlog), backlog.is_too_long) == (2, False)
    backlog.append(batch(4))
    assert backlog.is_too_long
    assert backlog.take() == batch(1, 2)
    assert (len(backlog), backlog.is_too_long) == (2, False)


def test_a_batch_without_events_takes_a_place_too() -> None:
    backlog = Backlog(1)
    for revision in (1, 2):
        backlog.append(WatchBatch((), revision))
    assert backlog.is_too_long


def test_it_is_too_long_beyond_its_bytes_of_keys_and_values_those_before_included() -> None:
    for much in (heavy(key=b"1234"), heavy(value=b"1234"), heavy(b"1", b"2", b"34")):
        backlog = Backlog(100, max_bytes=3)
        backlog.append(much)
        assert backlog.is_too_long
        backlog.take()
        backlog.append(heavy(b"1", b"2", b"3"))
        assert not backlog.is_too_long


def test_there_is_nothing_to_take_where_nothing_waits() -> None:
    with pytest.raises(IndexError):
        Backlog(1).take()


@given(script=st.lists(st.integers(-2, 4)))
def test_it_gives_back_all_in_order_and_counts_what_is_left(script: list[int]) -> None:
    """A number from 0 on is a batch with so many events; -1 takes one, and -2 clears it."""
    backlog, waiting, revision = Backlog(5), list[WatchBatch](), 0
    for number in script:
        if number >= 0:
            revision += number + 1
            waiting.append(WatchBatch(events(*range(revision - number, revision)), revision))
            backlog.append(waiting[-1])
        elif number == -2:
            waiting.clear()
            backlog.clear()
        elif waiting:
            assert backlog.take() == waiting.pop(0)
        assert len(backlog) == len(waiting)
        assert backlog.is_too_long is (sum(max(1, len(each.events)) for each in waiting) > 5)
