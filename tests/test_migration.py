"""What the guide to moving from other clients says is to be written here, can be."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - what a caller sees of Twisted's

import twisted_etcd
from twisted_etcd import Event, KeyValue, Lease, Lock, Watch, WatchBatch
from twisted_etcd.client import kv as options
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.testing.memory import MemoryEtcd

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "migration.md").read_text("utf-8")
HEADER = "| aetcd, etcd3 | etcd3gw | txaioetcd | here | what differs |"
#: What the guide calls something of ours.
OURS: dict[str, type] = {
    "client": EtcdClient,
    "lease": Lease,
    "watch": Watch,
    "batch": WatchBatch,
    "event": Event,
    "kv": KeyValue,
    "lock": Lock,
}
#: What is no name of ours in the column that says what to write.
NOT_OURS = {"reactor", "print"}
#: Code that is no expression.
STATEMENTS = {"async with", "async with lock"}


def rows() -> Iterator[list[str]]:
    """The cells of every row of the tables, without their headers."""
    for line in GUIDE.splitlines():
        if line.startswith("|") and line != HEADER and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def codes(column: int) -> list[str]:
    return [code for row in rows() for code in re.findall(r"`([^`]+)`", row[column])]


def members(cls: type) -> dict[str, Any]:
    """The public attributes of a class and of its objects, as far as its own docstring or source names them."""
    set_by_init = re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", inspect.getsource(cls))
    return {**dict.fromkeys(set_by_init), **{name: getattr(cls, name) for name in dir(cls) if name[0] != "_"}}


def named_in(function: Callable[..., Any], name: str) -> Any:  # noqa: ANN401 - whatever has that name there
    return getattr(sys.modules[function.__module__], name)


def keywords(function: Callable[..., Any]) -> set[str]:
    """What a function takes by keyword, with the options of a ``TypedDict``."""
    taken: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found = re.search(r"Unpack\[(\w+)\]", str(parameter.annotation))
            assert found, f"{function} takes anything"
            taken |= set(get_type_hints(getattr(options, found[1])))
        else:
            taken.add(parameter.name)
    return taken


def result(function: Callable[..., Any]) -> type:
    """What the Deferred of a function fires with."""
    found = re.fullmatch(r"Deferred\[(\w+)\]", str(inspect.signature(function).return_annotation))
    assert found, f"{function} gives no Deferred"
    return named_in(function, found[1])  # type: ignore[no-any-return]


class Meaning(ast.NodeVisitor):
    """
    What an expression of the guide stands for: a class, a module, a function, a property or None for a value.

    It fails where there is no such thing.
    """

    def visit_Name(self, node: ast.Name) -> Any:  # noqa: ANN401
        if node.id in OURS:
            return OURS[node.id]
        return None if node.id in NOT_OURS else getattr(twisted_etcd, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> Any:  # noqa: ANN401
        owner = self.visit(node.value)
        known = members(owner) if inspect.isclass(owner) else vars(owner)
        assert node.attr in known, f"{owner} has no {node.attr}"
        if owner is EtcdClient and node.attr in ("auth", "cluster", "maintenance"):
            return named_in(EtcdClient, node.attr.capitalize())
        return known[node.attr]

    def visit_Await(self, node: ast.Await) -> type:
        assert isinstance(node.value, ast.Call)
        self.visit(node.value)
        return result(self.visit(node.value.func))

    def visit_Call(self, node: ast.Call) -> None:
        function = self.visit(node.func)
        given = {str(each.arg): each.value for each in node.keywords}
        assert given.keys() <= keywords(function), f"{function} does not take all of {sorted(given)}"
        for each in (*node.args, *given.values()):
            self.visit(each)
        signature = inspect.signature(function)
        # A method that was looked up in its class wants the object as well.
        itself = [None] if "self" in signature.parameters else []
        signature.bind(*itself, *node.args, **given)

    def generic_visit(self, node: ast.AST) -> None:
        assert isinstance(node, ast.Constant | ast.List | ast.Load), ast.dump(node)
        super().generic_visit(node)


def resolve(code: str) -> None:
    Meaning().visit(ast.parse(code, mode="eval").body)


def test_every_row_has_its_five_cells() -> None:
    assert GUIDE.count(HEADER) == GUIDE.count("\n## ") - 1
    assert [row for row in rows() if len(row) != 5] == []


@pytest.mark.parametrize("code", sorted(set(codes(3)) - STATEMENTS))
def test_what_is_to_be_written_here_exists(code: str) -> None:
    resolve(code)


@pytest.mark.parametrize("code", ["client.putt", "client.put('a', 'b', leese=1)", "client.put('a')", "Lok(client)"])
def test_what_does_not_exist_would_be_noticed(code: str) -> None:
    with pytest.raises((AssertionError, AttributeError, TypeError)):
        resolve(code)


def test_what_differs_names_what_is_there() -> None:
    said = [code for code in codes(4) if code.partition(".")[0] in OURS]
    assert said
    for code in said:
        resolve(code)


def test_the_functions_of_the_guide_do_what_theirs_do() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(compile(code, "migration.md", "exec"), names)  # noqa: S102 - our own
    etcd = MemoryEtcd()
    client = etcd.client()

    def done(function: str, *args: object) -> Any:  # noqa: ANN401 - what it gives
        return etcd.wait(Deferred.fromCoroutine(names[function](client, *args)))

    assert [done("put_if_not_exists", "key", value) for value in ("1", "2")] == [True, False]
    assert [done("replace", "key", "1", value) for value in ("3", "4")] == [True, False]
    assert etcd.wait(client.get("key")).kvs[0].value == b"3"
    once = Deferred.fromCoroutine(names["watch_once"](client, "key", 10))
    etcd.advance()
    etcd.wait(client.put("key", "5"))
    assert etcd.wait(once).kv.value == b"5"
    with pytest.raises(TimeoutError):
        done("watch_once", "key", 1)
    etcd.wait(client.stopService())


def test_the_readme_leads_to_it() -> None:
    assert "(docs/migration.md)" in (ROOT / "README.md").read_text("utf-8").split("\n## ")[-1]
