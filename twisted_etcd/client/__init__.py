"""The client: etcd's v3 API as Deferreds."""
