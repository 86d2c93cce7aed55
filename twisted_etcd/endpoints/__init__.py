"""Twisted's endpoints by the name of a service: `etcd:` strings for clients and servers, and `http://name.etcd/`."""
