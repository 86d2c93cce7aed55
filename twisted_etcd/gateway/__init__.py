"""Everything that knows HTTP: requests and streams to an etcd cluster."""
