"""Health: whether an instance serves, and so whether it stands in etcd."""
