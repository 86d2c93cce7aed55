"""Makes ``twistd etcdservice`` known to Twisted; names its module as a string so that listing plugins stays cheap."""

from twisted.application.service import ServiceMaker

etcdservice = ServiceMaker(
    "twisted-etcd service daemon",
    "twisted_etcd.daemon.tap",
    "etcd v3 behind messages: key-values, configuration, service registration and discovery.",
    "etcdservice",
)
