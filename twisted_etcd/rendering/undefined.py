"""What templates name and is not there: because there is none, or because it was not loaded yet."""

from __future__ import annotations

from typing import Any, cast

import jinja2
import jinja2.utils


class NotDefined(jinja2.UndefinedError):
    """
    :ivar name: what is not there; it may be a value.
    :ivar owner: the type of what it was looked for in; None for the template itself.
    :ivar hint: Jinja2's own words, in place of both.
    """

    def __init__(self, name: object, owner: str | None, hint: str | None) -> None:
        super().__init__()
        self.name = name
        self.owner = owner
        self.hint = hint

    def explained(self, row: str) -> str:
        """What is not there, without values: a name that does not stand in the line of the template came from one."""
        if self.hint is not None:
            return self.hint
        if self.owner is None:
            return f"{self.name!r} is not defined"
        if str(self.name) in row:
            return f"{self.owner} has no {self.name!r}"
        return f"{self.owner} has nothing under the name that a value gives"


class Undefined(jinja2.StrictUndefined):
    """Fails wherever it is used."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = jinja2.utils.missing,  # noqa: ANN401 - as Jinja2 has it
        name: str | None = None,
        exc: type[jinja2.TemplateRuntimeError] = jinja2.UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        owner = None if obj is jinja2.utils.missing else type(obj).__name__
        self._undefined_exception = cast("Any", lambda _: NotDefined(name, owner, hint))


class Pending(jinja2.ChainableUndefined):
    """Stands for what is not loaded yet: it can be used for much, and nothing of what comes of it is kept."""

    __slots__ = ()

    def _itself(self, *_: object, **__: object) -> Pending:
        return self

    def _no(self, _: object) -> bool:
        return False

    def __int__(self) -> int:  # type: ignore[override]
        return 0

    def __float__(self) -> float:  # type: ignore[override]
        return 0.0

    __call__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _itself  # type: ignore[assignment]
    __pow__ = __rpow__ = __neg__ = __pos__ = _itself  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _no  # type: ignore[assignment]
