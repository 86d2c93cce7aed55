"""Configuration kept in etcd: loaded, set and followed."""
