"""Spoiled answers end as promised: by an answer of its type or an error of ours, in time, with nothing left."""

from __future__ import annotations

import secrets

import pytest

from tests.fuzz.mutations import ANSWERS
from tests.fuzz.subject import KINDS, Run

_CASES = 600


@pytest.mark.parametrize("seed", ["1", "2", "anew"])
def test_spoiled_answers_end_as_promised(seed: str) -> None:
    run_seed = str(secrets.randbelow(1_000_000)) if seed == "anew" else seed
    with Run() as run:
        for number in range(_CASES if seed == "anew" else _CASES // 3):
            run.case(f"{run_seed}:{number}")
    assert {kind for kind, _ in run.outcomes} == set(KINDS)
    # Some of them are answers still.
    assert {"RangeResponse", "PutResponse", "delivered"} <= {outcome for _, outcome in run.outcomes}


@pytest.mark.parametrize(
    "case",
    ["3:169", "5:345", "5:1957"],
    ids=["a-question-of-an-ended-watch", "a-deep-rest-of-a-websocket", "a-deep-rest-of-a-stream"],
)
def test_what_went_wrong_once_does_not_again(case: str) -> None:
    with Run() as run:
        run.case(case)
    assert run.outcomes.total() == 1


def test_every_kind_of_answer_is_spoiled() -> None:
    assert set(KINDS) - {"websocket"} == set(ANSWERS)
