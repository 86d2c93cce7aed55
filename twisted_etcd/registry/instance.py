"""One instance of a service, and how it stands in etcd."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, ClassVar

import msgspec

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings

_HIGHEST_PORT = 65535


class Status(str, enum.Enum):
    """What the health checks of an instance say."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class InstanceFormat(str, enum.Enum):
    """
    How an instance is written in etcd. All of them are read.

    ``JSON``: our own, with everything; a Go program finds no address in it. ``GO``: that of etcd's Go package
    ``naming/endpoints``, with address and metadata; what Go has no place for (tags, weight, id and status, where they
    are not the usual ones) stands in an object of its own, named ``twisted-etcd``, in the metadata. ``ADDRESS``: a bare
    ``host:port``, and nothing else.
    """

    JSON = "json"
    GO = "go"
    ADDRESS = "address"


class Instance(Discreet, frozen=True, kw_only=True):
    """
    Where a service can be reached. Its ``repr`` names the metadata, and shows none of it.

    :ivar address: the host, a name or an IP address.
    :ivar weight: its share of the calls, against the other instances' weights.
    :ivar id: what tells it from the others; ``address:port`` unless it has a name of its own.
    :ivar status: what its health checks say, where they are shown; ``msgspec.UNSET`` where not.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})

    address: Annotated[str, msgspec.Meta(min_length=1)]
    port: Annotated[int, msgspec.Meta(ge=1, le=_HIGHEST_PORT)]
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    id: str = ""
    status: Status | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if not self.id:
            msgspec.structs.force_setattr(self, "id", self.endpoint)

    @property
    def endpoint(self) -> str:
        """``address:port``; an IPv6 address in brackets."""
        return join_address(self.address, self.port)


class _GoEndpoint(msgspec.Struct, kw_only=True):
    """What etcd's Go package ``naming/endpoints`` writes."""

    op: int = msgspec.field(name="Op", default=0)
    addr: str = msgspec.field(name="Addr")
    metadata: object = msgspec.field(name="Metadata", default=None)


class _Extras(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an instance has and Go's form has no place for."""

    tags: tuple[str, ...] = ()
    weight: int = 1
    id: str = ""
    status: Status | msgspec.UnsetType = msgspec.UNSET


#: Where those stand, in the metadata.
_EXTRAS = "twisted-etcd"
#: Go's encoder writes these so, for the sake of HTML.
_ESCAPED_BY_GO = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    *((character.encode(), b"\\u%x" % ord(character)) for character in "\u2028\u2029"),
)


def split_address(text: str) -> tuple[str, int]:
    """
    Host and port of ``host:port``, or of ``[host]:port`` for an IPv6 address.

    :raises InvalidSettings: for anything else; the error names the text.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _HIGHEST_PORT:
        msg = f"service address {text!r} is not HOST:PORT"
        raise InvalidSettings(msg)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if bracketed is not (":" in host):
        msg = f"service address {text!r} is not HOST:PORT; an IPv6 address stands in brackets, and nothing else does"
        raise InvalidSettings(msg)
    if any(character in "/[]" or character.isspace() for character in host):
        msg = f"service address {text!r} has a character that no host name has"
        raise InvalidSettings(msg)
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def make_instance(
    service_address: str, tags: Iterable[str], metadata: Mapping[str, str], *, weight: int = 1, instance_id: str = ""
) -> Instance:
    """
    Build the instance at ``host:port``.

    :param instance_id: what tells it from the others; the address unless given.
    :raises InvalidSettings: where that is not what the address is, tags and metadata are not texts, or the weight is no
        whole number from 0 on.
    """
    address, port = split_address(service_address)
    fields = {
        "address": address,
        "port": port,
        "tags": tags,
        "metadata": metadata,
        "weight": weight,
        "id": instance_id or service_address,
    }
    return _instance(fields, service_address)


def change_instance(instance: Instance, **changes: object) -> Instance:
    """
    The same instance with other tags, metadata, weight or status; what is None stays.

    :raises InvalidSettings: for what :func:`make_instance` refuses.
    """
    fields = {name: getattr(instance, name) for name in instance.__struct_fields__}
    fields.update({name: value for name, value in changes.items() if value is not None})
    if fields["status"] is msgspec.UNSET:
        del fields["status"]
    return _instance(fields, instance.endpoint)


def _instance(fields: Mapping[str, object], service_address: str) -> Instance:
    weight = fields["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
        msg = f"the weight of the instance at {service_address} must be a whole number from 0 on, not {weight!r}"
        raise InvalidSettings(msg)
    if not isinstance(fields["id"], str):
        msg = f"the id of the instance at {service_address} must be a text, not {type(fields['id']).__name__}"
        raise InvalidSettings(msg)
    status = fields.get("status", Status.PASSING)
    if status not in tuple(Status):
        kinds = ", ".join(each.value for each in Status)
        msg = f"the status of the instance at {service_address} must be one of {kinds}, not {status!r}"
        raise InvalidSettings(msg)
    try:
        return msgspec.convert(fields, Instance)
    except msgspec.ValidationError as error:
        msg = f"the instance at {service_address} cannot be used, since its tags and metadata must be texts: {error}"
        raise InvalidSettings(msg) from error


def encode_instance(instance: Instance, form: InstanceFormat = InstanceFormat.JSON) -> bytes:
    """
    Its value in etcd. In the form of Go it is byte for byte what Go writes of the same.

    :raises InvalidSettings: where the form has no place for all that the instance has, which is named.
    """
    check_form(f"the instance at {instance.endpoint}", instance, form)
    match form:
        case InstanceFormat.GO:
            return _encode_for_go(instance)
        case InstanceFormat.ADDRESS:
            return instance.endpoint.encode()
        case InstanceFormat.JSON:
            return msgspec.json.encode(instance)


def check_form(what: str, instance: Instance, form: InstanceFormat) -> None:
    """
    See that a form has a place for all that an instance has.

    :param what: it is, for the error.
    :raises InvalidSettings: where it has not; it is named.
    """
    if form is InstanceFormat.GO and _EXTRAS in instance.metadata:
        msg = f"{what} has metadata named {_EXTRAS!r}; that name is taken in Go's form"
        raise InvalidSettings(msg)
    if form is InstanceFormat.ADDRESS:
        more = [*_set_in(_extras(instance)), *(["metadata"] if instance.metadata else [])]
        if more:
            msg = (
                f"{what} has {' and '.join(more)}, for which a bare address has no place; leave that out, or write the "
                "instance as 'json' or 'go'"
            )
            raise InvalidSettings(msg)


def _extras(instance: Instance) -> _Extras:
    named = "" if instance.id == instance.endpoint else instance.id
    return _Extras(tags=instance.tags, weight=instance.weight, id=named, status=instance.status)


def _set_in(extras: _Extras) -> list[str]:
    usual = _Extras()
    return [name for name in extras.__struct_fields__ if getattr(extras, name) != getattr(usual, name)]


def _encode_for_go(instance: Instance) -> bytes:
    # Go sorts them so.
    metadata: dict[str, object] = dict(sorted(instance.metadata.items()))
    extras = _extras(instance)
    if _set_in(extras):
        metadata = dict(sorted({**metadata, _EXTRAS: extras}.items()))
    value = msgspec.json.encode(_GoEndpoint(addr=instance.endpoint, metadata=metadata or None))
    for written, by_go in _ESCAPED_BY_GO:
        value = value.replace(written, by_go)
    return value


def decode_instance(value: bytes) -> Instance:
    """
    The instance in a value: our own JSON, that of Go's ``naming/endpoints``, or a bare ``host:port``.

    :raises InvalidSettings: where it is none of them. The error does not show the value.
    """
    if not value.lstrip().startswith(b"{"):
        return _at(value.strip(), {})
    try:
        return msgspec.json.decode(value, type=Instance)
    except msgspec.ValidationError as error:
        not_ours = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        not_ours = "it begins as JSON, and is not"
    try:
        endpoint = msgspec.json.decode(value, type=_GoEndpoint)
    except (msgspec.DecodeError, UnicodeDecodeError):
        msg = f"the value is no instance: {not_ours}"
        raise InvalidSettings(msg) from None
    metadata, extras = _told_by_go(endpoint.metadata)
    instance = _at(endpoint.addr.encode(), metadata)
    named = extras.id or instance.id
    return msgspec.structs.replace(instance, tags=extras.tags, weight=extras.weight, id=named, status=extras.status)


def _at(service_address: bytes, metadata: dict[str, str]) -> Instance:
    try:
        return make_instance(service_address.decode(), (), metadata)
    except (InvalidSettings, UnicodeDecodeError):
        msg = "the value is no instance: it is neither JSON nor HOST:PORT, or its address is not HOST:PORT"
        raise InvalidSettings(msg) from None


def _told_by_go(metadata: object) -> tuple[dict[str, str], _Extras]:
    if not isinstance(metadata, dict):
        return {}, _Extras()
    extras = _Extras()
    with suppress(msgspec.ValidationError):
        extras = msgspec.convert(metadata.get(_EXTRAS, {}), _Extras)
        metadata = {name: value for name, value in metadata.items() if name != _EXTRAS}
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in metadata.items()
    }
    return texts, extras
