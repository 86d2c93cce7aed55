"""The direction of imports between the rooms of the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "twisted_etcd"
SOURCE = Path(__file__).resolve().parents[2] / PACKAGE

#: What each room may import of the others; itself it may always import. A new room is added here, with its reasons.
#: What every room may stand on.
BASE = frozenset({"errors", "keys", "backoff", "moment", "lull", "listeners", "reactor_thread", "discreet", "commands"})
CLIENT = BASE | {"schema", "gateway", "client"}
BEHIND_SERVICES = CLIENT | {"recipes", "registry", "config", "messaging"}

ARROWS: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "keys": frozenset({"errors"}),
    "backoff": frozenset(),
    "moment": frozenset(),
    "lull": frozenset(),
    "listeners": frozenset(),
    "reactor_thread": frozenset(),
    "discreet": frozenset(),
    # A command in a process group of its own; the script that it begins as imports nothing of ours.
    "commands": frozenset({"moment"}),
    "own_group": frozenset(),
    "schema": BASE,
    "gateway": BASE | {"schema"},
    "client": BASE | {"schema", "gateway"},
    # On the client's public API alone.
    "recipes": BASE | {"schema", "client"},
    "registry": CLIENT | {"recipes"},
    "config": CLIENT | {"recipes"},
    # Knows no etcd.
    "messaging": BASE - {"keys"},
    # Runs an etcd process and talks to none.
    "embedded": BASE - {"keys"},
    "services": BEHIND_SERVICES,
    # Templates over configuration and instances, to files.
    "rendering": CLIENT | {"recipes", "registry", "config"},
    # What a file says of etcd: the daemon reads it, and so do endpoint strings that name a file.
    "settings": CLIENT | {"recipes", "registry", "config"},
    "endpoints": CLIENT | {"recipes", "registry", "config", "settings"},
    "daemon": BEHIND_SERVICES | {"services", "embedded", "settings", "endpoints", "rendering"},
    "testing": CLIENT | {"embedded"},
    # The package's own __init__ hands on the public names. Not the daemon's: its tap imports the reactor. Not the
    # testing room's: that one may need what only tests have installed.
    "__init__": BEHIND_SERVICES | {"services", "embedded", "endpoints", "rendering"},
}

#: Packages of others that a room must not know.
HTTP = ("treq", "httptools", "wsproto", "twisted.web")
PARSERS = ("httptools", "wsproto")
STRANGERS: Mapping[str, tuple[str, ...]] = {
    # Plain data.
    "errors": ("twisted", "treq", "httptools", "wsproto"),
    "keys": ("twisted", "treq", "httptools", "wsproto"),
    "schema": ("twisted", "treq", "httptools", "wsproto"),
    # HTTP is the gateway's business.
    "client": HTTP,
    "recipes": HTTP,
    "registry": HTTP,
    "config": HTTP,
    "messaging": HTTP,
    "services": HTTP,
    "settings": HTTP,
    "rendering": HTTP,
    # These serve HTTP, or ask for it, with Twisted's own.
    "endpoints": PARSERS,
    "daemon": PARSERS,
    "embedded": PARSERS,
    # The etcd in memory reads what a client sends, from the other side than the gateway does.
    "testing": (),
}

#: What single modules may know all the same.
ACQUAINTANCES: Mapping[str, tuple[str, ...]] = {
    # Asks servers of any kind by HTTP, and not etcd: the gateway's own agent knows etcd's calls alone, no HEAD, no
    # redirect and no Host header.
    "twisted_etcd.registry.health.http": ("twisted.web",),
}

#: The one module that may import the reactor as it is loaded: twistd has installed one by then.
REACTOR_MODULES = frozenset({"twisted_etcd.daemon.tap"})


def modules_under(source: Path) -> dict[str, Path]:
    """Every module of the package by its full name, a package by the name of its directory."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = (source.name, *path.relative_to(source).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room of a module: the first name after the package's, ``__init__`` for the package itself."""
    return "__init__" if module == PACKAGE else module.split(".")[1]


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str, str | None]]:
    """Each import, wherever it stands: its line, the module, and the name that is taken from that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def loaded_with(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run as the module is loaded: all but the bodies of functions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.stmt):
            yield node
        waiting.extend(ast.iter_child_nodes(node))


def belongs_to(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def what_is_wrong(importer: str, module: str, name: str | None, modules: Mapping[str, Path]) -> str | None:
    """What is wrong with one import in a module, if anything is."""
    room = room_of(importer)
    full = module if name is None else f"{module}.{name}"
    known = ACQUAINTANCES.get(importer, ())
    strangers = tuple(each for each in STRANGERS.get(room, ()) if each not in known)
    if module.startswith("."):
        return f"relative import of {module}; name the module by its full path"
    if belongs_to(module, strangers) or belongs_to(full, strangers):
        return f"imports {full}, which {room} must not know"
    if module == PACKAGE:
        return f"imports from {PACKAGE} itself; name the module that defines it"
    if belongs_to(module, (PACKAGE,)):
        return wrong_arrow(room, full if full in modules else module, modules)
    return None


def wrong_arrow(room: str, target: str, modules: Mapping[str, Path]) -> str | None:
    """What is wrong with a module of that room importing another of the package."""
    if target not in modules:
        return f"imports {target}, and there is no such module"
    if modules[target].name == "__init__.py":
        return f"imports from the package {target}; name the module that defines it"
    there = room_of(target)
    if there != room and there not in ARROWS[room]:
        return f"imports {target}: an arrow from {room} back to {there}"
    return None


def violations_in(module: str, text: str, modules: Mapping[str, Path]) -> list[str]:
    """Every import of a module that the design forbids, a line for each."""
    room = room_of(module)
    if room not in ARROWS:
        return [
            f"{module}: {room!r} is a room that ARROWS in {Path(__file__).name} does not know; add what it may import"
        ]
    tree = ast.parse(text)
    found = []
    for line, imported, name in imports_of(tree):
        wrong = what_is_wrong(module, imported, name, modules)
        if wrong is not None:
            found.append(f"{module}:{line}: {wrong}")
    if module not in REACTOR_MODULES:
        for statement in loaded_with(tree):
            for line, imported, name in imports_of(statement) if is_import(statement) else ():
                if (imported, name) == ("twisted.internet", "reactor") or imported == "twisted.internet.reactor":
                    found.append(f"{module}:{line}: imports the reactor as it is loaded; take it as a parameter")
    return found


def is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


MODULES = modules_under(SOURCE)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_lean_one_way(module: str) -> None:
    assert violations_in(module, MODULES[module].read_text("utf-8"), MODULES) == []


def test_the_package_itself_defines_nothing() -> None:
    body = ast.parse(MODULES[PACKAGE].read_text("utf-8")).body
    defined = [ast.unparse(statement).split("\n")[0] for statement in body if not hands_on(statement)]
    assert defined == []


def hands_on(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets] == ["__all__"]
    return is_import(statement) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def test_every_acquaintance_is_one_of_a_module_that_is_there() -> None:
    assert set(ACQUAINTANCES) <= set(MODULES)


def test_every_arrow_leads_to_a_room_that_has_its_own() -> None:
    assert {room for targets in ARROWS.values() for room in targets} <= set(ARROWS)


def test_no_arrow_has_a_way_back() -> None:
    def reach(room: str, seen: frozenset[str]) -> frozenset[str]:
        for target in ARROWS[room] - seen:
            seen = reach(target, seen | {target})
        return seen

    assert [room for room in ARROWS if room in reach(room, frozenset())] == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("gateway.unary", "from twisted_etcd.client.kv import KV", "an arrow from gateway back to client"),
        ("gateway.unary", "import twisted_etcd.client.kv", "an arrow from gateway back to client"),
        ("gateway.unary", "def f():\n    from twisted_etcd.client import kv", "an arrow from gateway back to client"),
        ("messaging.node", "from twisted_etcd.keys import KeyRange", "an arrow from messaging back to keys"),
        ("recipes.lock", "from twisted_etcd.gateway.unary import Unary", "an arrow from recipes back to gateway"),
        ("registry.machine", "from twisted_etcd.config.follow import F", "an arrow from registry back to config"),
        ("testing.memory", "from twisted_etcd.daemon.tap import Options", "an arrow from testing back to daemon"),
        ("client.kv", "from twisted_etcd import EtcdError", "imports from twisted_etcd itself"),
        ("client.kv", "import twisted_etcd", "imports from twisted_etcd itself"),
        ("client.kv", "from twisted_etcd.gateway import Gateway", "imports from the package twisted_etcd.gateway"),
        ("client.kv", "from . import lease", "relative import"),
        ("client.kv", "from twisted_etcd.keys.nowhere import x", "there is no such module"),
        ("client.kv", "import treq", "must not know"),
        ("client.kv", "from twisted import web", "must not know"),
        ("client.kv", "from httptools import HttpResponseParser", "must not know"),
        ("daemon.tap", "import httptools", "must not know"),
        ("registry.health.http", "import treq", "must not know"),
        ("registry.machine", "from twisted.web.client import Agent", "must not know"),
        ("schema.kv", "from twisted.internet.defer import Deferred", "must not know"),
        ("client.kv", "from twisted.internet import reactor", "imports the reactor as it is loaded"),
        ("client.kv", "try:\n    import twisted.internet.reactor\nfinally:\n    x = 1", "imports the reactor"),
        ("client.kv", "class A:\n    from twisted.internet import reactor", "imports the reactor"),
        ("cellar.wine", "", "'cellar' is a room that ARROWS in test_imports.py does not know"),
    ],
)
def test_a_planted_violation_is_found(module: str, text: str, complaint: str) -> None:
    found = violations_in(f"{PACKAGE}.{module}", text, PLANTED)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("client.kv", "from twisted_etcd.gateway.unary import Unary\nfrom twisted_etcd.gateway import unary"),
        ("client.kv", "from twisted_etcd.client.kv import KV"),
        ("client.kv", "def f():\n    from twisted.internet import reactor\n    return reactor"),
        ("client.kv", "from twisted.internet.defer import Deferred\nimport msgspec"),
        ("daemon.tap", "from twisted.internet import reactor"),
        ("gateway.unary", "import treq\nimport httptools\nfrom twisted.web.client import Agent"),
        ("registry.health.http", "from twisted.web.client import Agent"),
    ],
)
def test_what_the_design_allows_is_left_alone(module: str, text: str) -> None:
    assert violations_in(f"{PACKAGE}.{module}", text, PLANTED) == []


#: The modules that the planted sources may name.
PLANTED = {
    f"{PACKAGE}.{name}": Path(PACKAGE, *name.split("."), "__init__.py") if name == "gateway" else Path(f"{name}.py")
    for name in (
        "client.kv",
        "config.follow",
        "daemon.tap",
        "gateway",
        "gateway.unary",
        "keys",
        "messaging.node",
        "recipes.lock",
        "registry.machine",
        "schema.kv",
        "testing.memory",
    )
}
