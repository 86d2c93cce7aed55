"""Messages between services in one process: it knows no etcd."""
