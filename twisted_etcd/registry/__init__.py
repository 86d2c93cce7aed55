"""Services in etcd: registered, found and followed."""
