from __future__ import annotations

import itertools
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent

from twisted_etcd.embedded.output import KEPT_LINES, LONGEST_LINE, EtcdOutput


class Output:
    """An EtcdOutput and what it logged."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.etcd = EtcdOutput(Logger(namespace="etcd", observer=cast("ILogObserver", self.events.append)))

    def said(self) -> list[tuple[LogLevel, str]]:
        return [(event["log_level"], formatEvent(event)) for event in self.events]


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("debug", LogLevel.debug),
        ("info", LogLevel.info),
        ("warn", LogLevel.warn),
        ("error", LogLevel.error),
        ("dpanic", LogLevel.critical),
        ("panic", LogLevel.critical),
        ("fatal", LogLevel.critical),
        ("a level of tomorrow", LogLevel.warn),
    ],
)
def test_a_json_line_is_logged_at_its_own_level(name: str, level: LogLevel) -> None:
    output = Output()
    output.etcd.received(2, f'{{"level":"{name}","ts":"2024","caller":"a.go:1","msg":"it is"}}\n'.encode())
    assert output.said() == [(level, "it is")]


def test_the_fields_of_a_json_line_are_kept_and_its_stack_trace_is_not() -> None:
    output = Output()
    output.etcd.received(2, b'{"level":"warn","msg":"slow","took":"1s","n":2,"stacktrace":"main.main\\n"}\n')
    assert output.said() == [(LogLevel.warn, "slow (took=1s, n=2)")]


def test_a_token_that_etcd_writes_out_is_not_kept() -> None:
    output = Output()
    output.etcd.received(2, b'{"level":"warn","msg":"invalid auth token","token":"sUseRmIdVdJpAsYd.10"}\n')
    assert output.said() == [(LogLevel.warn, "invalid auth token (token=<hidden>)")]
    assert output.etcd.last_lines() == ["invalid auth token (token=<hidden>)"]


@pytest.mark.parametrize(
    "line", ["flag provided but not defined: -x", "{}", "[1]", '"a"', '{"level":1,"msg":"m"}', "{x}"]
)
def test_any_other_line_is_logged_as_it_is(line: str) -> None:
    output = Output()
    output.etcd.received(2, line.encode() + b"\n")
    assert output.said() == [(LogLevel.warn, line)]


def test_what_is_no_text_is_logged_all_the_same() -> None:
    output = Output()
    output.etcd.received(2, b"\xff{0}\n\n  \n")
    assert output.said() == [(LogLevel.warn, "\ufffd{0}")]


@given(st.lists(st.integers(0, 40)))
def test_lines_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = b"first line\nsecond\n\nthe third \xc3\xa9 line\nfourth"
    output = Output()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(edges):
        output.etcd.received(2, data[start:end])
    output.etcd.ended()
    assert output.etcd.last_lines() == ["first line", "second", "the third é line", "fourth"]


def test_lines_of_the_two_outputs_are_not_mixed() -> None:
    output = Output()
    output.etcd.received(1, b"out ")
    output.etcd.received(2, b"err ")
    output.etcd.received(1, b"put\n")
    output.etcd.received(2, b"or\n")
    assert output.etcd.last_lines() == ["out put", "err or"]


def test_a_line_without_an_end_is_cut_and_not_kept_in_memory() -> None:
    output = Output()
    for _ in range(5):
        output.etcd.received(2, b"x" * (LONGEST_LINE // 2))
    assert [len(words) for _, words in output.said()] == [LONGEST_LINE, LONGEST_LINE]
    output.etcd.ended()
    assert len(output.said()[-1][1]) == LONGEST_LINE // 2


def test_only_the_last_lines_are_kept() -> None:
    output = Output()
    output.etcd.received(2, b"".join(b"%d\n" % n for n in range(100)))
    assert output.etcd.last_lines() == [str(n) for n in range(100 - KEPT_LINES, 100)]
