"""For tests of programs that use etcd."""
