"""
Services of your own in the daemon: it hosts what its settings file names, here ``etcdservice.yaml`` beside this module.

Run them, with an etcd of the daemon's own::

    twistd -n etcdservice --embedded --config etcdservice.yaml

Then change the configuration key ``app/greeting``, at the address of etcd that the daemon has printed::

    etcdctl --endpoints http://127.0.0.1:PORT put /config/app/greeting Ahoy

The log says what was read and what came of it. Services are found by their class, so this module has to be importable:
the daemon looks in the directory of the settings file, too.
"""

from __future__ import annotations

import msgspec
from twisted.logger import Logger

from twisted_etcd import (
    ConfigWatch,
    EtcdApi,
    EtcdConfigChangedMsg,
    Message,
    MessageService,
    Request,
    handles,
)


class Greeting(Message, frozen=True):
    """Answers :class:`Greet`."""

    text: str


class Greet(Request[Greeting], frozen=True):
    """Asks for a greeting."""

    name: str


class GreetingChanged(Message, frozen=True):
    """Tells guests that greetings are different now."""


class Greeter(MessageService):
    """Greets with the words that the configuration has."""

    class Settings(msgspec.Struct, frozen=True):
        """
        What the settings file may say; the daemon checks it against the types.

        :ivar config_key: where the words are.
        :ivar otherwise: the words where the configuration has none.
        :ivar guests: the services that are told when the words change.
        """

        config_key: str
        otherwise: str = "Hello"
        guests: tuple[str, ...] = ()

    _log = Logger()
    _words: ConfigWatch

    def __init__(self, name: str | None = None, *, settings: Settings) -> None:
        super().__init__(name)
        self._settings = settings

    async def on_start(self) -> None:
        """Follow the configuration; while etcd is away, wait for it."""
        etcd = EtcdApi(self)
        self._words = await etcd.watch_config(self._settings.config_key, self._changed, patient=True)
        self._log.info("the greeter begins with {words!r}", words=self._current())

    def _current(self) -> str:
        return self._settings.otherwise if self._words.value is None else self._words.value.decode()

    def _changed(self, change: EtcdConfigChangedMsg) -> None:
        self._log.info("the greeting was {how}: {words!r}", how=change.change_type.value, words=self._current())
        for guest in self._settings.guests:
            self.send(guest, GreetingChanged())

    @handles(Greet)
    def on_greet(self, message: Greet) -> Greeting:
        """See the message."""
        return Greeting(f"{self._current()}, {message.name}!")


class Guest(MessageService):
    """Asks the greeter for a greeting, and again whenever it is told to."""

    class Settings(msgspec.Struct, frozen=True):
        """
        What the settings file may say.

        :ivar greeter: the name of the greeter in the node.
        """

        name: str
        greeter: str = "Greeter"

    _log = Logger()

    def __init__(self, name: str | None = None, *, settings: Settings) -> None:
        super().__init__(name)
        self._settings = settings

    async def on_start(self) -> None:
        """Services start in the order of the settings file: the one before this runs already."""
        await self._ask()

    @handles(GreetingChanged)
    async def on_greeting_changed(self, _: GreetingChanged) -> None:
        """Ask again."""
        await self._ask()

    async def _ask(self) -> None:
        greeting = await self.call(self._settings.greeter, Greet(self._settings.name))
        self._log.info("the guest was greeted: {text}", text=greeting.text)
