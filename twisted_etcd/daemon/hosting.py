"""
People's own services in the daemon's node.

A class named under ``services:`` in the settings file is a
:class:`~twisted_etcd.messaging.service.MessageService`. It is made as ``Class(name=…)``, with ``None`` where the file
has no name for it; where its constructor has a parameter ``settings``, as ``Class(name=…, settings=…)``. These are the
mapping of the file, ``{}`` where it has none; where the class has an attribute ``Settings``, a msgspec Struct, they are
one of those. ::

    class Thumbnails(MessageService):
        class Settings(msgspec.Struct, frozen=True):
            directory: str
            width: int = 120

        def __init__(self, name: str | None = None, *, settings: Settings) -> None:
            super().__init__(name)
            self.settings = settings
"""

from __future__ import annotations

import importlib
import inspect
import operator
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from twisted_etcd.daemon.settings import HostSettings
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.settings.section import unknown

_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`$")


def load_service_class(path: str) -> type[MessageService]:
    """
    The class that a path names; its module is imported.

    :param path: ``package.module.Class``, or ``package.module:Class``, where the class may stand within another.
    :raises InvalidSettings: where there is no such class, or it is no ``MessageService``.
    """
    module_name, _, class_name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidSettings(_import_failed(module_name, error)) from error
        msg = f"there is no module {error.name!r}; is its directory on PYTHONPATH?"
        raise InvalidSettings(msg) from error
    except Exception as error:
        raise InvalidSettings(_import_failed(module_name, error)) from error
    try:
        found = operator.attrgetter(class_name)(module)
    except AttributeError as error:
        msg = f"the module {module_name!r} has no {class_name!r}"
        raise InvalidSettings(msg) from error
    if not isinstance(found, type) or not issubclass(found, MessageService):
        msg = f"{path} is no class of MessageService's kind: derive it from twisted_etcd.messaging's MessageService"
        raise InvalidSettings(msg)
    return found


def make_service(host: HostSettings) -> MessageService:
    """
    The service that an entry of the file asks for, not yet in any node.

    :raises InvalidSettings: with file, line and key, where it cannot be made.
    """
    try:
        service_class = load_service_class(host.path)
    except InvalidSettings as error:
        raise _mistake(host, f"{host.key}.class", str(error)) from error
    arguments: dict[str, Any] = {"name": host.name}
    if _takes_settings(service_class):
        arguments["settings"] = _settings_for(service_class, host)
    elif host.settings:
        raise _mistake(host, f"{host.key}.settings", f"{host.path} has no parameter settings in its constructor")
    try:
        return service_class(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}=…" for name in arguments)
        text = f"{host.path}({given}) failed with {type(error).__name__}: {error}"
        raise _mistake(host, host.key, text) from error


def make_services(hosts: Iterable[HostSettings], taken: Iterable[str] = ()) -> list[MessageService]:
    """
    All services that a file asks for.

    :param taken: names that the node has already.
    :raises InvalidSettings: with a line for each entry that cannot be made, or whose name is another's.
    """
    services: list[MessageService] = []
    mistakes: list[InvalidSettings] = []
    names = set(taken)
    for host in hosts:
        try:
            service = make_service(host)
        except InvalidSettings as error:
            mistakes.append(error)
            continue
        if service.name in names:
            text = f"the node has another service of the name {service.name!r}: give this one a name"
            mistakes.append(_mistake(host, host.key, text))
        names.add(service.name)
        services.append(service)
    if mistakes:
        raise InvalidSettings("\n".join(str(mistake) for mistake in mistakes)) from mistakes[0]
    return services


def _takes_settings(service_class: type[MessageService]) -> bool:
    return "settings" in inspect.signature(service_class).parameters


def _settings_for(service_class: type[MessageService], host: HostSettings) -> object:
    wanted = getattr(service_class, "Settings", None)
    if wanted is None:
        return host.settings
    if not (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        raise _mistake(host, f"{host.key}.class", f"{host.path}.Settings is no msgspec Struct")
    known = [field.encode_name for field in msgspec.structs.fields(wanted)]
    for key in host.settings:
        if key not in known:
            raise _mistake(host, f"{host.key}.settings.{key}", unknown(key, known))
    try:
        # what the environment filled in is text, and may be meant as a number
        return msgspec.convert(host.settings, wanted, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        path = f"{host.key}.settings{place[1] if place else ''}"
        raise _mistake(host, path, _PLACE.sub("", text)) from error


def _mistake(host: HostSettings, path: str, text: str) -> InvalidSettings:
    above = path
    while above not in host.lines and above:
        above = above[: max(above.rfind("."), above.rfind("["), 0)]
    line = host.lines.get(above, host.lines.get(host.key, 0))
    return InvalidSettings(f"{host.file}:{line}: {path}: {text}")


def _import_failed(module_name: str, error: Exception) -> str:
    return f"the module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
