"""Settings files in YAML: read, checked, and what they say of etcd."""
