"""Files rendered from templates: over configuration and instances in etcd, checked, replaced, and told of."""
