"""Every public name says what a caller can rely on."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from zope.interface import Interface, implementedBy, implementer

import twisted_etcd

#: The list that test_surface holds the package to.
PUBLIC_NAMES = Path(__file__).with_name("public_names.txt").read_text("utf-8").split()


def has_own_docstring(cls: type) -> bool:
    """Whether someone wrote one: a base class's is not its own, and a dataclass makes one up from its fields."""
    text = cls.__dict__.get("__doc__")
    made_up = dataclasses.is_dataclass(cls) and text is not None and text.startswith(f"{cls.__name__}(")
    return bool(text) and not made_up


def asked_for_by_an_interface(cls: type, name: str) -> bool:
    """Whether a Zope interface of the class declares, and so documents, the name."""
    return any(name in interface for interface in implementedBy(cls).flattened())


def undocumented(name: str, public: object) -> Iterator[str]:
    """The names without a docstring: of the object itself, and of a class's public methods and properties."""
    if inspect.isclass(public):
        if not has_own_docstring(public):
            yield name
        for base in public.__mro__:
            if base.__module__.partition(".")[0] in {"twisted_etcd", __name__.partition(".")[0]}:
                yield from (f"{name}.{method}" for method in undocumented_methods(public, base))
    elif callable(public) and not inspect.getdoc(public):
        yield name


def undocumented_methods(cls: type, base: type) -> Iterator[str]:
    for name, member in list(base.__dict__.items()):  # asking about interfaces adds to it
        if name.startswith("_") or not isinstance(member, staticmethod | classmethod | property | type(undocumented)):
            continue
        # getdoc finds the docstring of the method that this one takes the place of.
        if not inspect.getdoc(getattr(cls, name)) and not asked_for_by_an_interface(cls, name):
            yield name


def test_every_public_name_and_its_methods_have_docstrings() -> None:
    assert [missing for name in PUBLIC_NAMES for missing in undocumented(name, getattr(twisted_etcd, name))] == []


class IOpens(Interface):
    def open_it() -> None:
        """Open."""


class Documented:
    """A class."""

    def method(self) -> None:
        """Do it."""


@implementer(IOpens)
class Heir(Documented):
    """A class that takes its methods' docstrings from elsewhere."""

    def method(self) -> None: ...

    def open_it(self) -> None: ...

    def _hidden(self) -> None: ...


class SilentHeir(Documented):
    def speechless(self) -> None: ...

    @property
    def reading(self) -> int:
        return 1

    @classmethod
    def made(cls) -> None: ...


@dataclasses.dataclass
class SilentData:
    number: int


def silent() -> None: ...


@pytest.mark.parametrize(
    ("public", "missing"),
    [
        (Documented, []),
        (Heir, []),
        (SilentHeir, ["x", "x.speechless", "x.reading", "x.made"]),
        (SilentData, ["x"]),
        (silent, ["x"]),
        (128, []),
    ],
)
def test_a_missing_docstring_is_found(public: object, missing: list[str]) -> None:
    assert list(undocumented("x", public)) == missing
