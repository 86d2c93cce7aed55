"""Followed configuration, with a test in the place of etcd and a clock of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.said import Said
from tests.scripted import ScriptedClient, batch, delete_event, found, header, kv, put_event
from twisted_etcd.client.watch import Watch
from twisted_etcd.config.cache import Cached, read_cache, write_cache
from twisted_etcd.config.changes import ConfigChanges
from twisted_etcd.config.config import Config
from twisted_etcd.config.snapshot import ConfigSource, Entry
from twisted_etcd.errors import (
    BadValue,
    Compacted,
    Conflict,
    HistoryReplaced,
    InvalidSettings,
    OutcomeUnknown,
    PermissionDenied,
    ServiceStopped,
    Unavailable,
    WatchCancelled,
)
from twisted_etcd.schema.kv import DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, ResponseOp, TxnResponse

AWAY = Unavailable("etcd is away")


class Limits(msgspec.Struct):
    most: int


class Configured:
    """Configuration below ``/c``, and all that it reported and told."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as Config has them
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.reported: list[BadValue] = []
        self.told: list[ConfigChanges] = []
        options = {"random": lambda: 1.0, "on_error": self.reported.append, **options}
        self.config = Config(self.etcd.client, self.clock, "/c", **options)
        self.loaded = self.config.loaded
        self.loaded.addErrback(lambda failure: failure)

    def start(self) -> Configured:
        self.config.startService()
        return self

    def loads(self, revision: int, **values: str) -> None:
        kvs = [
            kv(f"/c/{key.replace('__', '/')}", value, number) for number, (key, value) in enumerate(values.items(), 2)
        ]
        self.etcd.take("get").answer.callback(found(revision, *kvs))

    def started(self, revision: int = 7, **values: str) -> Configured:
        self.start().loads(revision, **values)
        return self

    @property
    def watch(self) -> Watch:
        return self.etcd.watches[-1][0]

    def puts(self, key: str, value: str, revision: int) -> None:
        self.watch.deliver(batch(put_event(f"/c/{key}", value, revision)))

    def stop(self) -> Deferred[None]:
        stopping = self.config.stopService()
        for asked in self.etcd.asked:
            if asked.what == "stop of a watch" and not asked.answer.called:
                asked.answer.callback(None)
        return stopping

    def listen(self, **options: Any) -> None:  # noqa: ANN401 - as on_change has them
        self.config.on_change(self.told.append, **options)

    def changes(self) -> list[list[tuple[str, bytes | None, bytes | None]]]:
        return [[(each.key, each.old_value, each.new_value) for each in changes] for changes in self.told]


# --- what it is -----------------------------------------------------------------------------------------------------


def test_it_is_a_mapping_of_the_paths_below_its_prefix() -> None:
    configured = Configured().started(9, database__url="x", port="80")
    config = configured.config
    assert result_of(configured.loaded) is None
    assert (config["database/url"], config["/port/"], config.get("none"), config.get("none", "y")) == (
        "x",
        "80",
        None,
        "y",
    )
    assert (len(config), list(config), config.keys()) == (2, ["database/url", "port"], ["database/url", "port"])
    assert dict(config) == {"database/url": "x", "port": "80"}
    assert "port" in config
    assert "none" not in config
    assert 3 not in config
    assert (config.revision, config.revision_of("port"), config.revision_of("none")) == (9, 3, 0)
    assert config.tree() == {"database": {"url": "x"}, "port": "80"}
    assert (config.source, config.stale) == (ConfigSource.ETCD, False)
    with pytest.raises(KeyError):
        _ = config["none"]
    assert repr(config) == "<Config of '/c', 2 values of revision 9, from etcd>"


def test_a_snapshot_stays_what_it_was() -> None:
    configured = Configured().started(9, a="1", b__c="2", b__d="3")
    before = configured.config.snapshot()
    assert configured.config.snapshot() is before
    configured.watch.deliver(batch(put_event("/c/a", "changed", 10), delete_event("/c/b/c", 10)))
    assert (dict(before), before.revision) == ({"a": "1", "b/c": "2", "b/d": "3"}, 9)
    after = configured.config.snapshot()
    assert (dict(after), after.revision) == ({"a": "changed", "b/d": "3"}, 10)
    assert before.tree("b") == {"c": "2", "d": "3"}
    assert (before.raw("a"), before.revision_of("a"), after.revision_of("a")) == (b"1", 2, 10)
    assert "a" in before
    with pytest.raises(TypeError):
        before["a"] = "x"  # type: ignore[index]
    assert repr(before) == "<ConfigSnapshot of 3 values at revision 9, from etcd>"


def test_keys_that_no_path_leads_to_are_left_out() -> None:
    configured = Configured().start()
    odd = [KeyValue(key=b"/c/", mod_revision=2), KeyValue(key=b"/c/\xff", mod_revision=3), kv("/c/a", "1", 4)]
    configured.etcd.take("get").answer.callback(found(7, *odd))
    configured.watch.deliver(batch(put_event("/c/x/", "1", 8)))
    assert dict(configured.config) == {"a": "1"}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"cache_after": -1}, InvalidSettings, "cache_after must be at least 0 seconds"),
        ({"quiet_min": -1}, InvalidSettings, "quiet_min must be at least 0 seconds"),
        ({"format": "toml"}, InvalidSettings, "'toml' is no format"),
        ({"types": {"a": (int, "bytes")}}, InvalidSettings, "types\\['a'\\]: the format 'bytes' gives bytes alone"),
        ({"types": {"/": int}}, InvalidSettings, "configuration key '/' is empty"),
        ({"on_error": 3}, TypeError, "on_error must be a function that takes a BadValue, not int"),
        ({"defaults": 3}, TypeError, "defaults must be a mapping, or the path of a file, not int"),
    ],
)
def test_what_it_cannot_be_made_with_is_named(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Configured(**options)


def test_what_is_no_client_and_no_reactor_is_named() -> None:
    with pytest.raises(TypeError, match="the first argument of Config must be an EtcdClient, not str"):
        Config("http://x", Clock())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the second argument of Config must be the reactor, not str"):
        Config(ScriptedClient().client, "x")  # type: ignore[arg-type]


# --- values that are decoded ----------------------------------------------------------------------------------------


def test_the_last_good_value_stays_and_a_bad_one_is_reported_without_showing_it(said: Said) -> None:
    configured = Configured(types={"limits": Limits, "pool/*": (Limits, "yaml")}).started(
        limits='{"most":1}', pool__a="most: 2"
    )
    config = configured.config
    assert (config["limits"], config["pool/a"]) == (Limits(1), Limits(2))
    configured.puts("limits", '{"most":"a secret"}', 8)
    configured.puts("pool/a", "most: [", 9)
    assert (config["limits"], config["pool/a"], config.revision_of("limits")) == (Limits(1), Limits(2), 8)
    assert [(error.key, error.revision, error.place) for error in configured.reported] == [
        ("limits", 8, "most"),
        ("pool/a", 9, "line 1, column 8"),
    ]
    assert said.count("configuration 'limits', of revision 8, cannot be used at most: Expected `int`, got `str`") == 1
    assert said.count("a secret") == 0
    configured.puts("limits", '{"most":3}', 10)
    assert config["limits"] == Limits(3)


def test_a_declared_value_that_never_was_good_fails_the_loading_and_is_followed_all_the_same() -> None:
    configured = Configured(types={"limits": Limits}).started(limits="{}", other="x")
    error = failure_of(configured.loaded, BadValue)
    assert (error.key, error.revision) == ("limits", 2)
    with pytest.raises(BadValue):
        _ = configured.config["limits"]
    with pytest.raises(BadValue):
        configured.config.get("limits")
    with pytest.raises(BadValue):
        configured.config.tree()
    assert configured.config["other"] == "x"
    configured.puts("limits", '{"most":1}', 8)
    assert configured.config["limits"] == Limits(1)


def test_where_a_bad_value_has_a_default_that_stands_in() -> None:
    configured = Configured(types={"limits": Limits}, defaults={"limits": {"most": 9}}).started(limits="{}")
    assert result_of(configured.loaded) is None
    assert configured.config["limits"] == Limits(9)
    assert len(configured.reported) == 1


def test_a_bad_value_of_no_declared_key_fails_only_who_reads_it() -> None:
    configured = Configured().start()
    configured.etcd.take("get").answer.callback(found(7, KeyValue(key=b"/c/a", value=b"\xff", mod_revision=3)))
    assert result_of(configured.loaded) is None
    with pytest.raises(BadValue, match="it is not text in UTF-8, at byte 0"):
        _ = configured.config["a"]


def test_bound_before_it_is_loaded_a_bad_value_fails_the_loading_and_later_the_binding() -> None:
    configured = Configured().start()
    binding = configured.config.bind("limits", Limits)
    configured.loads(7, limits="{}")
    assert failure_of(configured.loaded, BadValue).key == "limits"
    configured.puts("limits", '{"most":1}', 8)
    assert (binding.value, binding.revision) == (Limits(1), 8)
    configured.puts("other", "{}", 9)
    with pytest.raises(BadValue):
        configured.config.bind("other", Limits)
    assert configured.config.bind("other", Limits, default=Limits(3)).value == Limits(3)


def test_a_value_as_an_object_of_a_class_is_the_last_good_one() -> None:
    configured = Configured().started(limits="most: 1", port="80")
    config = configured.config
    assert config.value("limits", Limits, "yaml") == Limits(1)
    assert config.value("port", int) == 80
    assert config.value("port", bytes) == b"80"
    configured.puts("limits", "most: x", 8)
    assert config.value("limits", Limits, "yaml") == Limits(1)
    with pytest.raises(KeyError):
        config.value("none", int)
    with pytest.raises(BadValue):
        config.value("limits", Limits)


def test_a_subtree_is_one_object_that_changes_as_a_whole() -> None:
    told: list[Limits] = []
    configured = Configured().started(pool__most="1")
    binding = configured.config.bind_tree("pool", Limits, changed=told.append)
    assert binding.value == Limits(1)
    configured.puts("other", "x", 8)
    configured.puts("pool/most", "2", 9)
    assert told == [Limits(2)]
    with pytest.raises(TypeError, match="changed must be a function that takes the new value, not int"):
        configured.config.bind_tree("pool", Limits, changed=3)  # type: ignore[arg-type]


def test_a_binding_that_is_stopped_stays_what_it_is() -> None:
    configured = Configured().started(a="1")
    binding = configured.config.bind("a", int)
    binding.stop()
    binding.stop()
    configured.puts("a", "2", 8)
    assert (binding.value, configured.config["a"]) == (1, "2")


def test_who_is_told_of_bad_values_and_fails_harms_nobody(logged_errors: LoggedErrors) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    configured = Configured(types={"limits": Limits}, on_error=fail).started(limits='{"most":1}')
    configured.puts("limits", "{}", 8)
    assert configured.config["limits"] == Limits(1)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


# --- changes --------------------------------------------------------------------------------------------------------


def test_each_change_is_told_with_old_and_new_and_what_was_there_is_not() -> None:
    configured = Configured().start()
    configured.listen()
    configured.loads(7, a="1")
    configured.watch.deliver(batch(put_event("/c/a", "2", 8), put_event("/c/b", "x", 8), delete_event("/c/a", 9)))
    configured.puts("b", "x", 10)
    assert configured.changes() == [[("a", b"1", None), ("b", None, b"x")]]
    assert (configured.told[0].first_revision, configured.told[0].revision) == (8, 9)
    # It was set to what it was.
    assert configured.config.revision_of("b") == 10


def test_changes_are_told_of_one_key_or_below_a_path_alone() -> None:
    configured = Configured().started()
    configured.listen(key="pool/a")
    below: list[ConfigChanges] = []
    configured.config.on_change(below.append, prefix="pool/")
    for number, key in enumerate(("pool", "pool/a", "pool/a/b", "poolside"), 8):
        configured.puts(key, "x", number)
    assert configured.changes() == [[("pool/a", None, b"x")]]
    assert [change.key for changes in below for change in changes] == ["pool", "pool/a", "pool/a/b"]
    with pytest.raises(InvalidSettings, match="key='a' and prefix='b' contradict each other"):
        configured.config.changes(key="a", prefix="b")
    with pytest.raises(TypeError, match="callback must be a function that takes ConfigChanges, not int"):
        configured.config.on_change(3)  # type: ignore[arg-type]


def test_each_listener_has_its_own_quiet() -> None:
    configured = Configured(quiet_min=1, quiet_max=2).started()
    at_once: list[ConfigChanges] = []
    configured.config.on_change(at_once.append, quiet_min=0)
    configured.listen()
    configured.puts("a", "1", 8)
    configured.puts("a", "2", 9)
    assert len(at_once) == 2
    assert configured.told == []
    configured.clock.advance(1)
    assert configured.changes() == [[("a", None, b"2")]]


def test_while_a_callback_waits_changes_are_gathered_and_its_error_harms_nobody(logged_errors: LoggedErrors) -> None:
    configured = Configured().started()
    waiting: list[Deferred[None]] = []

    def wait(changes: ConfigChanges) -> Deferred[None]:
        configured.told.append(changes)
        waiting.append(Deferred())
        return waiting[-1]

    configured.config.on_change(wait)
    other: list[ConfigChanges] = []
    configured.config.on_change(other.append)
    for number in range(8, 12):
        configured.puts("a", str(number), number)
    assert configured.changes() == [[("a", None, b"8")]]
    waiting[0].errback(ZeroDivisionError())
    assert configured.changes()[1:] == [[("a", b"8", b"11")]]
    waiting[1].callback(None)
    assert len(other) == 4
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_a_coroutine_is_waited_for_and_one_that_raises_is_logged(logged_errors: LoggedErrors) -> None:
    configured = Configured().started()
    gate: Deferred[None] = Deferred()

    async def waits(changes: ConfigChanges) -> None:
        configured.told.append(changes)
        await gate
        raise ZeroDivisionError

    listener = configured.config.on_change(waits)
    configured.puts("a", "1", 8)
    configured.puts("a", "2", 9)
    gate.callback(None)
    assert len(configured.told) == 2
    assert len(logged_errors.flush(ZeroDivisionError)) == 2
    listener.stop()
    listener.stop()
    configured.puts("a", "3", 10)
    assert len(configured.told) == 2


def test_a_slow_consumer_of_a_stream_gets_what_came_of_it() -> None:
    configured = Configured().started()
    stream = configured.config.changes()
    for number in range(8, 100):
        configured.puts(f"key{number % 3}", str(number), number)
    first = result_of(stream.next())
    assert [(c.key, c.new_value) for c in first] == [("key0", b"99"), ("key1", b"97"), ("key2", b"98")]
    second = stream.next()
    assert peek(second) is PENDING
    with pytest.raises(RuntimeError, match="the next changes of this stream are being waited for already"):
        stream.next()
    second.cancel()
    second.addErrback(lambda _: None)
    configured.puts("key0", "100", 100)
    assert result_of(stream.next())["key0"].old_value == b"99"
    stream.stop()
    failure_of(stream.next(), ServiceStopped)


def test_a_loop_over_changes_ends_when_configuration_is_stopped() -> None:
    configured = Configured().started()
    seen: list[str] = []

    async def loop() -> None:
        async with configured.config.changes(prefix="a") as stream:
            async for changes in stream:
                seen.extend(change.key for change in changes)

    looping = Deferred.fromCoroutine(loop())
    configured.puts("a/b", "1", 8)
    configured.puts("b", "1", 9)
    configured.stop()
    assert result_of(looping) is None
    assert seen == ["a/b"]
    with pytest.raises(ServiceStopped):
        configured.config.changes()


# --- writes ---------------------------------------------------------------------------------------------------------


def test_a_write_is_done_when_it_is_seen_here_whichever_comes_first() -> None:
    configured = Configured().started()
    # etcd answers before the watch tells of it.
    setting = configured.config.set("a", "1")
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    assert peek(setting) is PENDING
    configured.puts("a", "1", 8)
    assert result_of(setting) == 8
    # The watch tells of it before etcd answers.
    setting = configured.config.set("a", "2")
    configured.puts("a", "2", 9)
    assert peek(setting) is PENDING
    configured.etcd.take("put").answer.callback(PutResponse(header=header(9)))
    assert result_of(setting) == 9
    assert configured.clock.getDelayedCalls() == []


def test_a_write_that_is_not_seen_is_done_after_a_while_all_the_same(said: Said) -> None:
    configured = Configured().started()
    setting = configured.config.set("a", "1")
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    configured.clock.advance(5)
    assert result_of(setting) == 8
    assert said.count("'a' was written, and etcd has not told of it yet") == 1


def test_a_write_to_a_cluster_that_was_set_back_is_seen_once_that_is_known() -> None:
    configured = Configured().started(40, a="1")
    setting = configured.config.set("a", "2")
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    assert peek(setting) is PENDING
    configured.watch.finished(Failure(HistoryReplaced(40, 8)))
    configured.etcd.take("get").answer.callback(found(8, kv("/c/a", "2", 8)))
    assert result_of(setting) == 8
    assert configured.config["a"] == "2"


def test_a_newer_value_is_as_good_as_the_one_that_was_written() -> None:
    configured = Configured().started()
    setting = configured.config.set("a", "1")
    configured.puts("a", "somebody else's", 12)
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    assert result_of(setting) == 8


def test_a_deletion_is_done_when_it_is_gone_here_and_one_that_did_nothing_at_once() -> None:
    configured = Configured().started(a="1")
    deleting = configured.config.delete("a")
    configured.etcd.take("delete").answer.callback(DeleteRangeResponse(header=header(8), deleted=1))
    assert peek(deleting) is PENDING
    configured.watch.deliver(batch(delete_event("/c/a", 8)))
    assert result_of(deleting) is True
    deleting = configured.config.delete("none")
    configured.etcd.take("delete").answer.callback(DeleteRangeResponse(header=header(20)))
    assert result_of(deleting) is False


def test_stopped_a_write_waits_for_nothing_more() -> None:
    configured = Configured().started()
    setting = configured.config.set("a", "1")
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    configured.stop()
    assert result_of(setting) == 8


def test_a_write_that_nobody_waits_for_leaves_nothing() -> None:
    configured = Configured().started()
    setting = configured.config.set("a", "1")
    configured.etcd.take("put").answer.callback(PutResponse(header=header(8)))
    setting.cancel()
    setting.addErrback(lambda _: None)
    assert configured.clock.getDelayedCalls() == []


def test_a_conflict_has_the_revision_that_is_there_and_what_is_unknown_stays_so() -> None:
    configured = Configured().started(a="1")
    setting = configured.config.set("a", "2", if_revision=1)
    asked = configured.etcd.take("txn")
    [condition] = asked.options["compare"]
    assert (condition.key, condition.mod_revision) == (b"/c/a", 1)
    there = ResponseOp(response_range=RangeResponse(kvs=(KeyValue(key=b"/c/a", mod_revision=5),)))
    asked.answer.callback(TxnResponse(header=header(8), succeeded=False, responses=(there,)))
    error = failure_of(setting, Conflict)
    assert (error.key, error.wanted, error.revision) == ("a", 1, 5)
    setting = configured.config.set("a", "2", if_absent=True)
    configured.etcd.take("txn").fails(OutcomeUnknown("no answer"))
    failure_of(setting, OutcomeUnknown)
    with pytest.raises(InvalidSettings, match="if_absent and if_revision=3 contradict each other"):
        configured.config.set("a", "2", if_absent=True, if_revision=3)


def test_a_value_that_could_not_be_read_again_is_not_sent() -> None:
    configured = Configured(types={"limits": Limits}).started()
    with pytest.raises(BadValue, match="cannot be used at most: Expected `int`, got `str`"):
        configured.config.set("limits", {"most": "x"})
    configured.config.set("limits", Limits(3))
    assert configured.etcd.take("put").args == ("/c/limits", b'{"most":3}')
    configured.config.set("plain", {"a": 1}, format="yaml")
    assert configured.etcd.take("put").args == ("/c/plain", b"a: 1\n")
    with pytest.raises(TypeError, match="is given as str or bytes, not as dict"):
        configured.config.set("plain", {"a": 1})


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (lambda config: config.update({}), "update was given no values to write"),
        (lambda config: config.update({"a": "1", "/a": "2"}), "values has the key 'a' twice"),
        (lambda config: config.update({"a": "1"}, if_revision={"b": -1}), "if_revision of 'b' must be at least 0"),
        (lambda config: config.rollback("a", 0), "revision must be at least 1, not 0"),
        (lambda config: config.at(0), "revision must be at least 1, not 0"),
        (lambda config: config.history("a", limit=-1), "limit must be at least 0, not -1"),
        (lambda config: config.modify("a", str, attempts=0), "attempts must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(update: Any, said: str) -> None:  # noqa: ANN401
    configured = Configured().started()

    async def ask() -> None:
        await update(configured.config)

    assert said in str(failure_of(Deferred.fromCoroutine(ask()), InvalidSettings))


def test_a_modification_is_tried_again_so_many_times_with_growing_waits() -> None:
    configured = Configured().started()
    seen: list[str] = []

    def append(value: str) -> str:
        seen.append(value)
        return value + "!"

    modifying = configured.config.modify("a", append, default="", attempts=3)
    waits = []
    for number in range(3):
        configured.etcd.take("get").answer.callback(found(7, kv("/c/a", str(number), 10 + number)))
        there = ResponseOp(response_range=RangeResponse(kvs=(KeyValue(key=b"/c/a", mod_revision=50),)))
        asked = configured.etcd.take("txn")
        asked.answer.callback(TxnResponse(header=header(8), succeeded=False, responses=(there,)))
        for call in configured.clock.getDelayedCalls():
            waits.append(round(call.getTime() - configured.clock.seconds(), 6))
            configured.clock.advance(waits[-1])
    assert failure_of(modifying, Conflict).revision == 50
    assert (seen, waits) == (["0", "1", "2"], [0.005, 0.01])


def test_a_modification_that_changes_nothing_writes_nothing_and_bad_values_are_not_touched() -> None:
    configured = Configured(types={"limits": Limits}).started()
    modifying = configured.config.modify("a", lambda value: value, default=None)
    configured.etcd.take("get").answer.callback(found(7))
    assert result_of(modifying) is None
    modifying = configured.config.modify("limits", lambda limits: Limits(limits.most + 1))
    configured.etcd.take("get").answer.callback(found(7, kv("/c/limits", "{}", 3)))
    failure_of(modifying, BadValue)
    assert configured.etcd.asked == []


# --- defaults and cache ---------------------------------------------------------------------------------------------


def test_defaults_stand_where_etcd_has_nothing_and_come_back_when_it_is_deleted() -> None:
    configured = Configured(defaults={"a": "default", "b": {"c": 3}}).started(a="1")
    configured.listen()
    config = configured.config
    assert (dict(config), config.revision_of("b/c")) == ({"a": "1", "b/c": "3"}, 0)
    configured.watch.deliver(batch(delete_event("/c/a", 8)))
    configured.puts("b/c", "3", 9)
    assert dict(config) == {"a": "default", "b/c": "3"}
    assert configured.changes() == [[("a", b"1", b"default")]]
    assert config.revision_of("b/c") == 9


def test_without_an_answer_the_defaults_stand_in_after_a_while_and_the_difference_is_told(said: Said) -> None:
    configured = Configured(defaults={"a": "default"}, cache_after=2.0).start()
    configured.listen()
    configured.clock.advance(1.9)
    assert peek(configured.loaded) is PENDING
    configured.clock.advance(0.1)
    assert result_of(configured.loaded) is None
    config = configured.config
    assert (dict(config), config.source, config.stale, config.revision) == (
        {"a": "default"},
        ConfigSource.DEFAULTS,
        True,
        0,
    )
    assert said.count("The configuration /c is that of the defaults until etcd answers") == 1
    configured.loads(7, a="1", b="2")
    assert (dict(config), config.source, config.stale, config.revision) == (
        {"a": "1", "b": "2"},
        ConfigSource.ETCD,
        False,
        7,
    )
    assert configured.changes() == [[("a", b"default", b"1"), ("b", None, b"2")]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "config.cache"
    entries = {"a": Entry(b"cached", 30), "gone": Entry(b"x", 31)}
    write_cache(path, Cached(1, "/c", "2", 40, entries))
    return path


def test_a_start_without_etcd_is_one_from_the_cache_and_etcd_counts_whatever_its_revisions(
    cache: Path, said: Said
) -> None:
    configured = Configured(defaults={"d": "default"}, cache=cache, cache_after=0).start()
    configured.listen()
    assert result_of(configured.loaded) is None
    config = configured.config
    assert dict(config) == {"a": "cached", "d": "default", "gone": "x"}
    assert (config.source, config.stale, config.revision) == (ConfigSource.CACHE, True, 40)
    assert config.snapshot().source is ConfigSource.CACHE
    # Another cluster, at a lower revision.
    configured.loads(7, a="1")
    assert (dict(config), config.revision, config.stale) == ({"a": "1", "d": "default"}, 7, False)
    assert configured.changes() == [[("a", b"cached", b"1"), ("gone", b"x", None)]]
    assert said.count("is that of cluster 1, and was that of 2") == 1
    configured.clock.advance(1)
    assert read_cache(cache, "/c") == Cached(1, "/c", "1", 7, {"a": Entry(b"1", 2)})


def test_where_etcd_answers_in_time_the_cache_is_not_used(cache: Path) -> None:
    configured = Configured(cache=cache).started(a="1")
    assert (dict(configured.config), configured.config.source) == ({"a": "1"}, ConfigSource.ETCD)
    configured.puts("a", "2", 8)
    stopping = configured.stop()
    assert result_of(stopping) is None
    cached = read_cache(cache, "/c")
    assert isinstance(cached, Cached)
    assert (cached.entries, cached.revision) == ({"a": Entry(b"2", 8)}, 8)
    assert configured.clock.getDelayedCalls() == []


def test_a_bad_value_in_the_cache_fails_the_loading(cache: Path) -> None:
    configured = Configured(types={"a": int}, cache=cache, cache_after=0).start()
    failure_of(configured.loaded, BadValue)


@pytest.mark.parametrize("reached", [True, False], ids=["etcd", "no etcd"])
def test_with_a_cache_the_last_good_value_outlives_a_restart(reached: bool, tmp_path: Path) -> None:  # noqa: FBT001
    options: dict[str, Any] = {"types": {"a": int}, "cache": tmp_path / "cache"}
    before = Configured(**options).started(a="1")
    before.puts("a", "bad", 8)
    before.puts("a", "worse", 9)
    before.stop()
    cached = read_cache(tmp_path / "cache", "/c")
    assert isinstance(cached, Cached)
    assert (cached.entries, cached.good) == ({"a": Entry(b"worse", 9)}, {"a": Entry(b"1", 2)})

    configured = Configured(**options, cache_after=3)
    if reached:
        configured.started(a="worst")
    else:
        configured.start().clock.advance(3)
    assert result_of(configured.loaded) is None
    assert configured.config["a"] == 1
    assert len(configured.reported) == 1
    configured.stop()


# --- outages and ends -----------------------------------------------------------------------------------------------


def test_a_compaction_meanwhile_leaves_the_difference() -> None:
    configured = Configured().started(a="1", b="2")
    configured.listen()
    configured.watch.finished(Failure(Compacted(11, "compacted", 15)))
    assert dict(configured.config) == {"a": "1", "b": "2"}
    configured.loads(20, a="1", c="3")
    assert configured.changes() == [[("b", b"2", None), ("c", None, b"3")]]
    assert configured.config.revision == 20


@pytest.mark.parametrize("error", [WatchCancelled("why not"), PermissionDenied(7, "permission denied")])
def test_where_it_cannot_be_followed_it_stays_and_is_followed_anew(error: Exception, said: Said) -> None:
    configured = Configured().started(a="1")
    configured.listen()
    configured.watch.finished(Failure(error))
    configured.etcd.take("stop of a watch").answer.callback(None)
    assert (configured.config["a"], configured.config.stale) == ("1", True)
    assert said.count("'/c/' is read and followed again in ") == 1
    [waiting] = configured.clock.getDelayedCalls()
    configured.clock.advance(waiting.getTime())
    configured.etcd.take("get").fails(AWAY)
    configured.clock.advance(1)
    assert configured.config.stale
    configured.loads(20, a="2")
    assert (configured.config["a"], configured.config.stale, configured.config.revision) == ("2", False, 20)
    assert configured.changes() == [[("a", b"1", b"2")]]


def test_it_waits_for_etcd_unless_it_is_told_not_to() -> None:
    patient = Configured().start()
    patient.etcd.take("get").fails(AWAY)
    assert peek(patient.loaded) is PENDING
    patient.stop()
    failure_of(patient.loaded, ServiceStopped)
    impatient = Configured(patient=False).start()
    impatient.etcd.take("get").fails(AWAY)
    assert failure_of(impatient.loaded, Unavailable) is AWAY
    assert impatient.clock.getDelayedCalls() == []
    assert result_of(impatient.stop()) is None


def test_a_client_that_was_stopped_first_is_said_and_not_asked_again(said: Said) -> None:
    configured = Configured().started(a="1")
    configured.watch.finished(Failure(ServiceStopped("the client was stopped")))
    configured.etcd.take("stop of a watch").answer.callback(None)
    assert said.count("is followed no longer: its client was stopped") == 1
    assert configured.clock.getDelayedCalls() == []
    assert configured.config.stale
    assert result_of(configured.stop()) is None


PHASES = {
    "not started": lambda configured: configured,
    "reading": lambda configured: configured.start(),
    "waiting for etcd": lambda configured: configured.start().etcd.take("get").fails(AWAY),
    "loaded": lambda configured: configured.started(a="1"),
    "with changes gathered": lambda configured: configured.started(a="1").puts("a", "2", 8),
    "cut off": lambda configured: configured.started(a="1").watch.finished(Failure(WatchCancelled(""))),
}


@pytest.mark.parametrize("phase", PHASES)
def test_stopped_in_any_phase_nothing_is_left(phase: str, cache: Path) -> None:
    configured = Configured(defaults={"d": "x"}, cache=cache, quiet_min=1.0)
    configured.listen()
    waiting = configured.config.changes().next()
    PHASES[phase](configured)
    for asked in tuple(configured.etcd.asked):
        if asked.what == "stop of a watch":
            asked.answer.callback(None)
    assert result_of(configured.stop()) is None
    assert result_of(configured.config.stopService()) is None
    assert configured.clock.getDelayedCalls() == []
    failure_of(waiting, ServiceStopped)
    assert configured.told == []
    configured.loaded.addErrback(lambda failure: failure.trap(ServiceStopped))
    with pytest.raises(ServiceStopped, match="was stopped and cannot be used again: make a new one"):
        configured.config.startService()


def test_stopped_a_callback_that_waits_is_cancelled() -> None:
    configured = Configured().started()
    waiting: Deferred[None] = Deferred()
    cancelled: list[bool] = []

    async def wait(_: ConfigChanges) -> None:
        try:
            await waiting
        finally:
            cancelled.append(True)

    configured.config.on_change(wait)
    configured.puts("a", "1", 8)
    assert result_of(configured.stop()) is None
    assert cancelled == [True]


def test_stopped_by_who_is_told() -> None:
    configured = Configured().started()
    gate: Deferred[None] = Deferred()

    async def stop(_: ConfigChanges) -> None:
        await gate
        await configured.config.stopService()

    configured.config.on_change(stop)
    configured.config.on_change(lambda _: configured.config.stopService(), key="b")
    configured.puts("a", "1", 8)
    gate.callback(None)
    configured.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(configured.config.stopService()) is None

    configured = Configured().started()
    configured.config.on_change(lambda _: configured.config.stopService())
    configured.puts("b", "1", 8)
    configured.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(configured.config.stopService()) is None


def test_used_with_async_with_it_is_loaded_within_and_stopped_after_it() -> None:
    configured = Configured()
    seen: list[str] = []

    async def use() -> None:
        async with configured.config as config:
            seen.append(config["a"])

    using = Deferred.fromCoroutine(use())
    # Stopped by who waited for it, before there is a watch.
    configured.loads(7, a="1")
    assert result_of(using) is None
    assert configured.etcd.watches == []
    assert seen == ["1"]

    failing = Configured(patient=False)
    using = Deferred.fromCoroutine(failing.config.__aenter__()).addCallback(lambda _: None)
    failing.etcd.take("get").fails(AWAY)
    failure_of(using, Unavailable)
    assert not failing.config.running
