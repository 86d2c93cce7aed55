r"""
What ``etcd:`` means to ``clientFromString`` and ``serverFromString``.

A client is ``etcd:SERVICE`` with ``NAME=VALUE`` behind it. A server is ``etcd:name=SERVICE`` with an endpoint in it,
``tcp:8080``, which is written in one of two ways:

- plainly: what has no ``NAME=`` before it is the endpoint's, in its order; a ``NAME=VALUE`` that is one of ours is ours
  wherever it stands, and every other one is the endpoint's;
- quoted, as one argument with each colon as ``\:``: then it is taken whole, and every ``NAME=VALUE`` beside it must be
  one of ours.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint

from twisted_etcd.endpoints.arguments import Arguments, refuse
from twisted_etcd.endpoints.client import TIMEOUT, EtcdClientEndpoint, Secure
from twisted_etcd.endpoints.following import IDLE
from twisted_etcd.endpoints.server import EtcdServerEndpoint, split_host
from twisted_etcd.endpoints.sharing import Sharing
from twisted_etcd.endpoints.whereabouts import whereabouts
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.choice import CHOICES, ROUND_ROBIN, choice_of
from twisted_etcd.registry.instance import InstanceFormat
from twisted_etcd.registry.registry import TTL, checked_name

#: etcd's own limit.
_LONGEST_TTL = 9_000_000_000
_HEAVIEST = 1_000_000
#: Whether TLS is spoken, and whose certificate is wanted.
_TLS = {"no": "no", "yes": "yes", "address": "address"}


class Strings:
    """
    Makes endpoints of strings. Those that mean the same etcd share a client.

    :param environ: says where etcd is, where a string does not.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, random: Callable[[], float] = random.random) -> None:
        self.sharing = Sharing()
        self._environ = environ
        self._random = random

    def stop(self) -> Deferred[None]:
        """
        Take all registrations back, stop the ports, and follow nothing any more, as at the end of the reactor.

        :return: fires when nothing of it is under way. The endpoints can be used again.
        """
        return self.sharing.stop()

    def client(self, reactor: IReactorTime, args: Sequence[str], kwargs: Mapping[str, str]) -> EtcdClientEndpoint:
        """
        The endpoint of ``etcd:SERVICE:…``.

        :raises InvalidSettings: where an argument cannot be used; it is named.
        """
        arguments = Arguments(kwargs)
        named = arguments.text("name")
        settings = whereabouts(arguments, self._environ)
        choice = arguments.one_of("choice", {name: name for name in CHOICES}, ROUND_ROBIN)
        key = arguments.text("key")
        tags = arguments.words("tags")
        secure = _secure(arguments)
        timeout = arguments.seconds("timeout", TIMEOUT, above=0)
        wait = arguments.seconds("wait", 0.0)
        idle = arguments.seconds("idle", IDLE)
        arguments.end()
        return EtcdClientEndpoint(
            reactor,
            self.sharing.access(reactor, settings),
            _client_name(named, args),
            choice=choice_of(choice, self._random),
            key=key,
            tags=tags,
            timeout=timeout,
            wait=wait,
            idle=idle,
            secure=None if secure is None else secure(_client_name(named, args)),
            random=self._random,
        )

    def server(self, reactor: IReactorTime, args: Sequence[str], kwargs: Mapping[str, str]) -> EtcdServerEndpoint:
        """
        The endpoint of ``etcd:name=SERVICE:…:tcp:8080``.

        :raises InvalidSettings: where an argument, or the endpoint in it, cannot be used; it is named.
        """
        ours, quoted = _unquoted(args, kwargs)
        arguments = Arguments(ours)
        name = arguments.parsed("name", checked_name, "")
        settings = whereabouts(arguments, self._environ)
        ttl = arguments.whole("ttl", TTL, least=1, most=_LONGEST_TTL, unit="of seconds")
        tags = arguments.words("tags")
        metadata = arguments.pairs("metadata")
        weight = arguments.whole("weight", 1, least=1, most=_HEAVIEST)
        identity = arguments.text("id") or ""
        form = arguments.one_of("format", {each.value: each for each in InstanceFormat}, InstanceFormat.JSON)
        address = arguments.parsed("address", _address, None)
        drain = arguments.seconds("drain", 0.0)
        if not name:
            beside = "".join(f", and {other}= is not it" for other in arguments.rest())
            refuse(f"name= is missing{beside}; write etcd:name=SERVICE:tcp:8080")
        endpoint = _nested(reactor, [] if quoted else args, quoted, arguments)
        try:
            return EtcdServerEndpoint(
                reactor,
                self.sharing.access(reactor, settings),
                endpoint,
                name,
                address=address,
                ttl=ttl,
                tags=tags,
                metadata=metadata,
                weight=weight,
                id=identity,
                form=form,
                drain=drain,
                random=self._random,
            )
        except InvalidSettings as error:
            refuse(str(error), error)


def _client_name(named: str | None, args: Sequence[str]) -> str:
    if named is not None and args:
        refuse(f"{args[0]!r} stands beside name={named!r}; name one service, and write a colon within a value as \\:")
    if len(args) > 1:
        refuse(f"unexpected {args[1]!r} behind {args[0]!r}; write NAME=VALUE, and a colon within a value as \\:")
    name = named or "".join(args)
    if not name:
        refuse("no service is named; write etcd:SERVICE")
    try:
        return checked_name(name)
    except InvalidSettings as error:
        refuse(str(error), error)


def _address(text: str) -> str:
    split_host(text)
    return text


def _secure(arguments: Arguments) -> Callable[[str], Secure] | None:
    """Makes, of the service's name, what makes the TLS side of a connection to an instance."""
    mode = arguments.one_of("tls", _TLS, "no")
    host = arguments.text("tlsHostname")
    ca_file, cert_file, key_file = (arguments.text(name) for name in ("tlsCA", "tlsCert", "tlsKey"))
    if mode == "no":
        for name, value in (("tlsHostname", host), ("tlsCA", ca_file), ("tlsCert", cert_file), ("tlsKey", key_file)):
            if value is not None:
                refuse(f"{name}= is given, and TLS is not spoken; add tls=yes")
        return None
    if mode == "address" and host is not None:
        refuse("tlsHostname= is given, and tls=address as well; with tls=yes it is the name that is wanted")
    try:
        trust = TLSTrust(TLSSettings(ca_file=ca_file, cert_file=cert_file, key_file=key_file))
    except InvalidSettings as error:
        text = str(error).replace("cert_file", "tlsCert").replace("key_file", "tlsKey").replace("ca_file", "tlsCA")
        refuse(text, error)
    if mode == "address":
        return lambda _: lambda instance: trust.connections_to(instance.address)
    return lambda service: lambda _: trust.connections_to(host or service)


# --- the endpoint in it ---------------------------------------------------------------------------------------------


def _unquoted(args: Sequence[str], kwargs: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """
    What is not part of a quoted endpoint, and that endpoint; empty where it is written plainly.

    Twisted has taken the backslashes away, so a colon in an argument was a quoted one. A ``=`` in it need not have been
    quoted: then what stands before it came as a name.
    """
    quoted = [each for each in args if ":" in each]
    quoted += [f"{name}={value}" for name, value in kwargs.items() if ":" in name]
    ours = {name: value for name, value in kwargs.items() if ":" not in name}
    if not quoted:
        return ours, ""
    # A plain endpoint may have an argument with colons in it, behind its kind: unix:/tmp/a\:b.
    if len(args) > 1 and ":" not in args[0]:
        return dict(kwargs), ""
    beside = [each for each in args if each not in quoted] + quoted[1:]
    if beside:
        refuse(f"{beside[0]!r} stands beside the quoted endpoint {quoted[0]!r}; quote all of it, or nothing")
    return ours, quoted[0]


def _nested(reactor: object, args: Sequence[str], quoted: str, arguments: Arguments) -> IStreamServerEndpoint:
    """
    What listens.

    :param args: what was written plainly.
    :param quoted: what was quoted, in place of that.
    """
    rest = arguments.rest()
    if quoted:
        for name in rest:
            refuse(
                f"{name}=: {arguments.what_is_unknown(name)}; what belongs to {quoted!r} must be quoted with it, "
                f"as \\:{name}=…"
            )
        description = quoted
    elif any(args):
        parts = [_quoted(each, "\\:=") for each in args]
        parts += [f"{_quoted(name, chr(92) + ':=')}={_quoted(value, chr(92) + ':')}" for name, value in rest.items()]
        description = ":".join(parts)
    else:
        refuse("what listens is missing; write etcd:name=SERVICE:tcp:8080")
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except InvalidSettings:
        # One of ours in one of ours.
        raise
    except TypeError as error:
        kind = description.partition(":")[0]
        for name in rest:
            refuse(f"{name}=: {arguments.what_is_unknown(name)}; or {kind} refuses it: {error}", error)
        refuse(f"the endpoint {description!r} in it cannot be used: {error}", error)
    except Exception as error:  # noqa: BLE001 - its parser may be anybody's
        refuse(f"the endpoint {description!r} in it cannot be used: {error or type(error).__name__}", error)
    return endpoint


def _quoted(text: str, characters: str) -> str:
    for character in characters:
        text = text.replace(character, f"\\{character}")
    return text
