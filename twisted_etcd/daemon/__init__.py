"""``twistd etcdservice``: the services as a daemon, from a YAML file."""
