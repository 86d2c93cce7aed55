"""One instance of a service, and how it stands in etcd."""

from __future__ import annotations

import msgspec

from twisted_etcd.errors import InvalidSettings

_HIGHEST_PORT = 65535


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a service can be reached.

    :ivar address: the host, a name or an IP address.
    :ivar weight: its share of the calls, against the other instances' weights.
    :ivar id: what tells it from the others; ``address:port`` unless it has a name of its own.
    """

    address: str
    port: int
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    id: str = ""

    @property
    def endpoint(self) -> str:
        """``address:port``; an IPv6 address in brackets."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class _GoEndpoint(msgspec.Struct):
    """What etcd's Go package ``naming/endpoints`` writes."""

    addr: str = msgspec.field(name="Addr")
    metadata: object = msgspec.field(name="Metadata", default=None)


def split_address(text: str) -> tuple[str, int]:
    """
    Host and port of ``host:port``.

    :raises InvalidSettings: for anything else; the error names the text.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _HIGHEST_PORT:
        msg = f"service address {text!r} is not HOST:PORT"
        raise InvalidSettings(msg)
    if "/" in host or any(character.isspace() for character in host):
        msg = f"service address {text!r} has a character that no host name has"
        raise InvalidSettings(msg)
    return host, int(port)


def make_instance(service_address: str, tags: tuple[str, ...], metadata: dict[str, str]) -> Instance:
    """
    The instance at ``host:port``.

    :raises InvalidSettings: where that is not what the address is.
    """
    address, port = split_address(service_address)
    return Instance(address=address, port=port, tags=tags, metadata=metadata, id=service_address)


def encode_instance(instance: Instance) -> bytes:
    """Its value in etcd."""
    return msgspec.json.encode(instance)


def decode_instance(value: bytes) -> Instance:
    """
    The instance in a value: our own JSON, that of Go's ``naming/endpoints``, or a bare ``host:port``.

    :raises InvalidSettings: where it is none of them.
    """
    if not value.lstrip().startswith(b"{"):
        text = value.decode("utf-8", "replace").strip()
        return make_instance(text, (), {})
    try:
        return msgspec.json.decode(value, type=Instance)
    except msgspec.ValidationError as not_ours:
        try:
            endpoint = msgspec.json.decode(value, type=_GoEndpoint)
        except msgspec.ValidationError:
            msg = f"the value is no instance: {not_ours}"
            raise InvalidSettings(msg) from not_ours
    except msgspec.DecodeError as error:
        msg = f"the value is no instance: {error}"
        raise InvalidSettings(msg) from error
    return make_instance(endpoint.addr, (), _texts(endpoint.metadata))


def _texts(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        return {}
    return {str(name): value if isinstance(value, str) else str(value) for name, value in metadata.items()}
