"""How fast twisted-etcd is, next to other clients of etcd: ``python -m benchmarks``."""
