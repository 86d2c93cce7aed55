"""Requests at random, over few enough keys that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from twisted_etcd.schema import kv
from twisted_etcd.schema.kv import Compare, CompareResult, CompareTarget, RequestOp, TxnRequest
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest

#: Not more of them: etcd leaves open in which order a range stands whose keys are equal by what it is sorted by.
KEYS = (b"a", b"a\x00", b"ab", b"b", b"b\xff", b"c")
LEASES = (1, 2, 3, 0x7FFF_FFFF_FFFF_FFFF)
NO_LEASE = 999

keys = st.sampled_from(KEYS)
values = st.sampled_from((b"", b"1", b"2", b"\x00\xff", b"v" * 2000))
ends = st.one_of(st.just(b""), st.sampled_from((b"\x00", b"b", b"c", b"d", b"ab", b"\xff")))
#: Backwards from the newest one; None for zero.
ages = st.one_of(st.none(), st.integers(-2, 12), st.integers(0, 3))
leases = st.one_of(st.just(0), st.just(0), st.sampled_from((*LEASES, NO_LEASE)))
rarely = st.integers(0, 9).map(lambda number: number == 0)


def revisions(now: int) -> st.SearchStrategy[int]:
    """Revisions around the newest one, and 0."""
    return ages.map(lambda age: 0 if age is None else now - age)


@st.composite
def ranges(draw: st.DrawFn, now: int) -> kv.RangeRequest:
    bound = st.one_of(st.just(0), st.just(0), revisions(now))
    return kv.RangeRequest(
        key=b"" if draw(rarely) else draw(keys),
        range_end=draw(ends),
        limit=draw(st.one_of(st.just(0), st.integers(-1, 7))),
        revision=draw(st.one_of(st.just(0), revisions(now))),
        sort_order=draw(st.sampled_from(kv.SortOrder)),
        sort_target=draw(st.sampled_from(kv.SortTarget)),
        serializable=draw(st.booleans()),
        keys_only=draw(rarely),
        count_only=draw(rarely),
        min_mod_revision=draw(bound),
        max_mod_revision=draw(bound),
        min_create_revision=draw(bound),
        max_create_revision=draw(bound),
    )


def everything() -> kv.RangeRequest:
    """All keys."""
    return kv.RangeRequest(key=b"\x00", range_end=b"\x00")


@st.composite
def puts(draw: st.DrawFn) -> kv.PutRequest:
    ignore_value, ignore_lease = draw(rarely), draw(rarely)
    return kv.PutRequest(
        key=b"" if draw(rarely) and draw(rarely) else draw(keys),
        value=b"" if ignore_value and not draw(rarely) else draw(values),
        lease=0 if ignore_lease and not draw(rarely) else draw(leases),
        prev_kv=draw(st.booleans()),
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


@st.composite
def deletions(draw: st.DrawFn) -> kv.DeleteRangeRequest:
    return kv.DeleteRangeRequest(key=draw(keys), range_end=draw(ends), prev_kv=draw(st.booleans()))


@st.composite
def comparisons(draw: st.DrawFn, now: int) -> Compare:
    target = draw(st.sampled_from(CompareTarget))
    number = draw(st.one_of(st.integers(0, 4), revisions(now)))
    return Compare(
        result=draw(st.sampled_from(CompareResult)),
        target=target,
        key=b"" if draw(rarely) and draw(rarely) else draw(keys),
        range_end=draw(ends) if draw(rarely) else b"",
        version=number if target is CompareTarget.VERSION else None,
        create_revision=number if target is CompareTarget.CREATE else None,
        mod_revision=number if target is CompareTarget.MOD else None,
        value=draw(values) if target is CompareTarget.VALUE else None,
        lease=draw(leases) if target is CompareTarget.LEASE else None,
    )


@st.composite
def operations(draw: st.DrawFn, now: int, depth: int) -> RequestOp:
    kind = draw(st.integers(0, 7 if depth else 6))
    if kind <= 1:
        return RequestOp(request_range=draw(ranges(now)))
    if kind <= 4:
        return RequestOp(request_put=draw(puts()))
    if kind <= 6:
        return RequestOp(request_delete_range=draw(deletions()))
    return RequestOp(request_txn=draw(transactions(now, depth - 1)))


@st.composite
def transactions(draw: st.DrawFn, now: int, depth: int = 2) -> TxnRequest:
    branch = st.lists(operations(now, depth), max_size=4).map(tuple)
    if draw(rarely) and draw(rarely):
        # One more than etcd takes.
        return TxnRequest(success=(RequestOp(request_range=kv.RangeRequest(key=b"a")),) * 129)
    return TxnRequest(
        compare=tuple(draw(st.lists(comparisons(now), max_size=3))), success=draw(branch), failure=draw(branch)
    )


@st.composite
def watches(draw: st.DrawFn, now: int, watch_id: int) -> WatchCreateRequest:
    return WatchCreateRequest(
        key=b"" if draw(rarely) else draw(keys),
        range_end=draw(ends),
        start_revision=draw(revisions(now)),
        prev_kv=draw(st.booleans()),
        filters=tuple(draw(st.lists(st.sampled_from(FilterType), max_size=2))) if draw(rarely) else (),
        progress_notify=draw(st.booleans()),
        watch_id=watch_id,
        fragment=draw(st.booleans()),
    )
