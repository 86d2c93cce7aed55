"""Where etcd is: the addresses of its members, as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from twisted_etcd.errors import InvalidSettings

#: The port that etcd listens on for clients unless told otherwise.
DEFAULT_PORT = 2379
#: So many colons a URL has, with a port and without an IPv6 address.
_COLONS = 2
_SCHEMES = ("http", "https")
_WITH_USER = "has a user in it; give username and password apart from it"


class Endpoint(msgspec.Struct, frozen=True):
    """
    One address of one etcd member.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: a name or an IP address, an IPv6 one without its brackets.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host:port``, as the ``Host`` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_endpoint(text: str, *, default_scheme: str = "http") -> Endpoint:
    """
    An endpoint from ``http://host:2379``, ``https://host``, ``host:2379`` or ``host``.

    :param default_scheme: what a text without a scheme means.
    :raises InvalidSettings: for anything else; the error names the text.
    """
    stripped = text.strip()
    url = stripped if "://" in stripped else f"{default_scheme}://{stripped}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        if "@" in text:
            # The error names parts of it.
            msg = f"an endpoint {_WITH_USER}"
            raise InvalidSettings(msg) from None
        how = "put an IPv6 address in brackets" if text.count(":") > _COLONS else "write it as http://HOST:PORT"
        msg = f"endpoint {text!r} is no URL: {error}; {how}"
        raise InvalidSettings(msg) from error
    if "@" in text:
        msg = f"the endpoint of host {host!r} {_WITH_USER}"
        raise InvalidSettings(msg)
    if parts.scheme not in _SCHEMES:
        msg = f"endpoint {text!r} has the scheme {parts.scheme!r}; etcd is reached by http:// or https://"
        raise InvalidSettings(msg)
    if not host or any(character.isspace() for character in host):
        msg = f"endpoint {text!r} names no host; write it as http://HOST:PORT"
        raise InvalidSettings(msg)
    if parts.path.strip("/") or parts.query or parts.fragment:
        msg = f"endpoint {text!r} has something behind HOST:PORT; etcd's gateway is always at its root"
        raise InvalidSettings(msg)
    if port == 0:
        msg = f"endpoint {text!r} has the port 0; a client needs the port that etcd listens on"
        raise InvalidSettings(msg)
    return Endpoint(parts.scheme, host, DEFAULT_PORT if port is None else port)


def parse_endpoints(given: str | Iterable[str], *, default_scheme: str = "http") -> tuple[Endpoint, ...]:
    """
    All endpoints of one string, of a comma list in a string, or of several strings; each once, in their order.

    :raises InvalidSettings: where one is wrong, or where there is none.
    """
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    for text in texts:
        if not isinstance(text, str):
            msg = f"an endpoint must be a text such as 'http://127.0.0.1:2379', not {type(text).__name__}"
            raise InvalidSettings(msg)
    parts = [part for text in texts for part in text.split(",") if part.strip()]
    if not parts:
        msg = "no endpoint is given; write for example http://127.0.0.1:2379"
        raise InvalidSettings(msg)
    return tuple(dict.fromkeys(parse_endpoint(part, default_scheme=default_scheme) for part in parts))
