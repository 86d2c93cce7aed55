"""
The web application as a command of twistd's.

Run it in this directory, with an etcd at hand::

    PYTHONPATH=. twistd --nodaemon webapp --listen tcp:8080:interface=127.0.0.1 --endpoints http://127.0.0.1:2379

Once the module and the plugin are installed, as the plugin of twisted-etcd is, PYTHONPATH is not needed.
"""

from __future__ import annotations

import os

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.python import usage
from webapp import make_webapp


class Options(usage.Options):
    """What the command line may say."""

    optParameters = (
        ["endpoints", "e", os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379"), "Where etcd is."],
        ["listen", "l", "tcp:8080:interface=127.0.0.1", "Where to listen: a Twisted endpoint string."],
    )


def makeService(options: Options) -> IService:
    """The application, for twistd."""
    return make_webapp(reactor, options["endpoints"], options["listen"])
