"""Configuration below a prefix, with a test in the place of etcd."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found, header, kv, put_event
from twisted_etcd.config.changes import ChangeType, ConfigChange
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.config.follower import ConfigFollower
from twisted_etcd.config.paths import CONFIG_PREFIX
from twisted_etcd.errors import Compacted, InvalidSettings, ServiceStopped, Unavailable
from twisted_etcd.schema.kv import PutResponse

KEY = "/config/app/db"


class Configured:
    def __init__(self) -> None:
        self.etcd = ScriptedClient()
        self.configuration = Configuration(self.etcd.client, Clock())
        self.told: list[ConfigChange] = []

    def follow(self, *, patient: bool = False) -> ConfigFollower:
        return self.configuration.follow("app/db", self.told.append, patient=patient)

    def changes(self) -> list[tuple[ChangeType, bytes | None, bytes | None, int]]:
        return [(each.change_type, each.old_value, each.new_value, each.revision) for each in self.told]


@pytest.fixture
def configured() -> Configured:
    return Configured()


@pytest.mark.parametrize("key", ["app/db", "/app/db", "app/db/", "//app/db//"])
def test_a_key_is_a_path_below_the_prefix(configured: Configured, key: str) -> None:
    assert CONFIG_PREFIX == "/config"
    assert configured.configuration.path(key) == KEY
    assert Configuration(configured.etcd.client, Clock(), "/conf/").path(key) == "/conf/app/db"


@pytest.mark.parametrize("key", ["", "/", "//"])
def test_an_empty_key_is_refused_with_what_to_give(configured: Configured, key: str) -> None:
    for attempt in (
        lambda: configured.configuration.load(key),
        lambda: configured.configuration.set(key, "v"),
        lambda: configured.configuration.follow(key, configured.told.append),
    ):
        with pytest.raises(InvalidSettings) as refused:
            attempt()
        assert str(refused.value) == f"configuration key {key!r} is empty; give a path such as 'app/database'"


def test_loading_gives_the_value_or_none(configured: Configured) -> None:
    loading = configured.configuration.load("app/db")
    asked = configured.etcd.take("get")
    assert asked.args == (KEY,)
    asked.answer.callback(found(7, kv(KEY, "", 3)))
    assert result_of(loading) == b""
    loading = configured.configuration.load("app/db")
    configured.etcd.take("get").answer.callback(found(7))
    assert result_of(loading) is None


def test_setting_gives_the_revision(configured: Configured) -> None:
    setting = configured.configuration.set("app/db", "v")
    asked = configured.etcd.take("put")
    assert asked.args == (KEY, "v")
    asked.answer.callback(PutResponse(header=header(8)))
    assert result_of(setting) == 8


def test_a_follower_has_the_value_and_tells_each_change_with_old_and_new(configured: Configured) -> None:
    follower = configured.follow()
    started = follower.start()
    assert follower.value is None
    configured.etcd.take("get").answer.callback(found(7, kv(KEY, "1", 3)))
    assert result_of(started) is None
    assert follower.value == b"1"
    watch = configured.etcd.watches[0][0]
    watch.deliver(batch(put_event(KEY, "2", 8), delete_event(KEY, 9), put_event(KEY, "", 10)))
    assert configured.changes() == [
        (ChangeType.MODIFIED, b"1", b"2", 8),
        (ChangeType.DELETED, b"2", None, 9),
        (ChangeType.CREATED, None, b"", 10),
    ]
    assert {change.key for change in configured.told} == {"app/db"}
    assert follower.value == b""


def test_a_compaction_leaves_the_difference(configured: Configured) -> None:
    follower = configured.follow()
    follower.start()
    configured.etcd.take("get").answer.callback(found(7, kv(KEY, "1", 3)))
    configured.etcd.watches[0][0].finished(Failure(Compacted(11, "compacted", 15)))
    configured.etcd.take("get").answer.callback(found(20))
    assert configured.changes() == [(ChangeType.DELETED, b"1", None, 20)]
    assert follower.value is None


def test_it_fails_where_etcd_is_away_unless_it_is_patient(configured: Configured) -> None:
    started = configured.follow().start()
    configured.etcd.take("get").fails(Unavailable("etcd is away"))
    failure_of(started, Unavailable)

    patient = configured.follow(patient=True)
    started = patient.start()
    configured.etcd.take("get").fails(Unavailable("etcd is away"))
    assert peek(started) is PENDING
    patient.stop()
    failure_of(started, ServiceStopped)
    assert result_of(patient.ended) is None


def test_a_change_shows_no_value_in_its_repr() -> None:
    change = ConfigChange(
        key="app/db", new_value=b"a secret", old_value=b"a secret", change_type=ChangeType.MODIFIED, revision=8
    )
    for shown in (repr(change), repr(change.__rich_repr__())):
        assert "secret" not in shown
        assert "app/db" in shown
        assert "<8 bytes>" in shown


def test_a_key_that_is_no_text_is_named(configured: Configured) -> None:
    with pytest.raises(TypeError, match="a configuration key must be str, not bytes"):
        configured.configuration.load(b"app/db")  # type: ignore[arg-type]
