"""Makes ``twistd webapp`` known to Twisted. There must be no ``__init__.py`` beside this file, nor above it."""

from twisted.application.service import ServiceMaker

webapp = ServiceMaker("A web application with etcd inside", "webapp_tap", "Answers from etcd.", "webapp")
