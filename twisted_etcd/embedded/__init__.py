"""An etcd process of our own: found, started, watched over and stopped inside the reactor."""
