"""etcd's messages as msgspec Structs, and the table of its calls. No I/O and nothing of Twisted's in here."""
