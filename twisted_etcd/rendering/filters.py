"""The filters of templates that read and write JSON and YAML. No value is in what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import msgspec
import yaml

from twisted_etcd.rendering.undefined import Pending


class Mistake(Exception):
    """Something that a function or filter of ours cannot do; its text may be shown."""


class NotJSON(Exception):
    """Why."""


def _gently(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A filter that leaves alone what is not loaded yet, and says what is wrong with the rest."""

    def apply(value: Any) -> Any:  # noqa: ANN401 - as filters take
        if isinstance(value, Pending):
            return value
        if isinstance(value, jinja2.Undefined):
            str(value)  # fails, and says what is not defined
        try:
            return function(value)
        except NotJSON as error:
            msg = f"what {function.__name__} is given is no JSON: {error}"
            raise Mistake(msg) from None

    return apply


def from_json(value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """What a JSON text says."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
        # msgspec says where, and quotes nothing.
        why = str(error) if isinstance(error, msgspec.DecodeError) else "it is no text, or nested too deeply"
        raise NotJSON(why) from None


def from_yaml(value: Any) -> Any:  # noqa: ANN401 - whatever YAML has
    """What a YAML text says."""
    try:
        return yaml.safe_load(value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        msg = f"what from_yaml is given is no YAML{where}"
        raise Mistake(msg) from None
    except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
        msg = "what from_yaml is given is no YAML"
        raise Mistake(msg) from None


def to_json(value: Any) -> str:  # noqa: ANN401 - whatever the template gives
    """A value in JSON, in one line, with nothing escaped for HTML."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        msg = f"to_json is given what JSON cannot say: {type(value).__name__}"
        raise Mistake(msg) from None


def to_yaml(value: Any) -> str:  # noqa: ANN401 - whatever the template gives
    """A value in YAML, in lines of their own."""
    try:
        plain = msgspec.to_builtins(value)
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    except (TypeError, ValueError, yaml.YAMLError):
        msg = f"to_yaml is given what YAML cannot say: {type(value).__name__}"
        raise Mistake(msg) from None


#: By their names in templates.
FILTERS: Mapping[str, Callable[[Any], Any]] = {
    function.__name__: _gently(function) for function in (from_json, from_yaml, to_json, to_yaml)
}
