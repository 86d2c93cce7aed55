from __future__ import annotations

import socket
import time

import pytest

from benchmarks.measuring import (
    Stopwatch,
    connections_to,
    delay_figures,
    established,
    latency_figures,
    median,
    percentile,
    resident_bytes,
)


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0), (0.01, 1.0), (0.0001, 1.0)]
)
def test_a_percentile_is_one_of_the_values_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_every_percentile_of_one_value_is_that() -> None:
    assert percentile([3.0], 0.5) == percentile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(("values", "middle"), [([5.0], 5.0), ([3.0, 1.0], 2.0), ([9.0, 1.0, 2.0], 2.0)])
def test_the_median(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_the_figures_of_a_loop_have_their_units() -> None:
    used = Stopwatch()
    used.seconds, used.cpu = 2.0, 0.5
    figures = latency_figures([0.001] * 98 + [0.010] * 2, used)
    assert figures == pytest.approx({"p50": 1.0, "p99": 10.0, "rate": 50.0, "cpu": 5000.0})


def test_a_stopwatch_counts_the_work_of_this_process_and_not_its_waiting() -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    watch.stop()
    assert watch.seconds >= 0.05
    assert 0 <= watch.cpu < watch.seconds


def test_this_process_has_memory() -> None:
    resident = resident_bytes()
    assert resident is None or resident > 1_000_000


def test_connections_are_counted_by_their_port_and_owner() -> None:
    # As Linux writes them: number, local, remote, state, and the inode as the tenth.
    line = "0: 0100007F:C000 0100007F:094B {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0"
    lines = [
        line.format(state="01", inode=7),
        line.format(state="01", inode=8),
        line.format(state="06", inode=9),
        line.format(state="01", inode=10).replace("094B", "094C"),
    ]
    own = {"socket:[7]", "socket:[9]", "socket:[10]"}
    assert established(lines, 0x094B, own) == 1


def test_an_open_connection_is_counted_once_at_its_clients_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = connections_to(port)
        if before is None:
            pytest.skip("the system does not tell as Linux does")
        with socket.create_connection(("127.0.0.1", port)):
            assert (before, connections_to(port)) == (0, 1)


def test_delays_are_those_of_each_event_without_the_first_tenth() -> None:
    sent = [float(number) for number in range(20)]
    arrived = [each + (9.0 if each < 2 else 0.001 if each < 19 else 0.003) for each in sent]
    figures = delay_figures(sent, arrived)
    assert figures == {"p50": pytest.approx(1), "p99": pytest.approx(3)}
