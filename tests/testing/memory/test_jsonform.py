"""The etcd in memory writes what real ones were recorded to write, byte for byte."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.schema.recorded import ANSWERS, ERRORS, FRAMES
from tests.schema.test_recorded import MEANT
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import decode_error
from twisted_etcd.testing.memory import jsonform
from twisted_etcd.testing.memory.refusals import as_answer, as_frame, status_of

VERSION = "3.5.1"
ERRORS_IN_JSON = [asked for asked, (_, body) in ERRORS[VERSION].items() if body.startswith(b"{")]


@pytest.mark.parametrize("asked", [asked for asked in MEANT if asked in ANSWERS[VERSION]])
def test_an_answer_is_written_as_etcd_writes_it(asked: str) -> None:
    rpc, meant = MEANT[asked]
    assert jsonform.encode(meant) == ANSWERS[VERSION][asked]
    assert rpc.decode(jsonform.encode(meant)) == meant


@pytest.mark.parametrize("asked", ["watch", "progress and cancel", "watch from a compacted revision"])
def test_a_message_of_a_stream_is_written_as_etcd_writes_it(asked: str) -> None:
    for line in FRAMES[VERSION][asked]:
        result = rpcs.WATCH.decode_frame(line).result
        assert result is not None
        assert msgspec.json.encode({"result": jsonform.plain(result)}) + b"\n" == line


@pytest.mark.parametrize("asked", ERRORS_IN_JSON)
def test_an_error_is_written_as_etcd_writes_it(asked: str) -> None:
    status, body = ERRORS[VERSION][asked]
    error = decode_error(body)
    if asked == "stream without a token":
        # Worded by the store of users itself, and so without a code that says more.
        error.message, error.code = "auth: user name is empty", 2
        assert as_frame(error) == json.loads(body)
    else:
        assert msgspec.json.encode(as_answer(error)) == body
    assert status_of(error) == status
