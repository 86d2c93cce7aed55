"""An etcd in memory: the real client, over a server that is no process."""

from twisted_etcd.testing.memory.etcd import MemoryEtcd

__all__ = ["MemoryEtcd"]
