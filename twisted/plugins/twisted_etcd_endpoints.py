"""Makes ``etcd:`` known to endpoint strings; what it stands for is loaded with the first string that says it."""

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser)
class EtcdEndpoints:
    """Hands strings on to what makes endpoints of them, which is one for the whole process."""

    prefix = "etcd"

    def __init__(self) -> None:
        self._strings: Any = None

    @property
    def strings(self) -> Any:  # noqa: ANN401 - its class is not loaded yet
        """What makes endpoints of strings."""
        if self._strings is None:
            from twisted_etcd.endpoints.strings import Strings  # noqa: PLC0415 - not for those who only list plugins

            self._strings = Strings()
        return self._strings

    # The reactor by its place alone: what a string says by name comes by name.

    def parseStreamClient(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """``clientFromString(reactor, "etcd:SERVICE")``."""
        return self.strings.client(reactor, args, kwargs)

    def parseStreamServer(self, reactor: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """``serverFromString(reactor, "etcd:name=SERVICE:tcp:8080")``."""
        return self.strings.server(reactor, args, kwargs)


endpoints = EtcdEndpoints()
