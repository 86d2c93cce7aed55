"""
The web application as a file for twistd. Run it in this directory, with an etcd at hand::

    PYTHONPATH=. twistd --nodaemon --python webapp.tac

The environment may say where etcd is, and where to listen: ``ETCD_ENDPOINTS``, ``WEBAPP_LISTEN``.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from webapp import make_webapp

application = Application("webapp")
make_webapp(
    reactor,
    os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379"),
    os.environ.get("WEBAPP_LISTEN", "tcp:8080:interface=127.0.0.1"),
).setServiceParent(application)
