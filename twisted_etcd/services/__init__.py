"""The messages of ``EtcdService``, and what answers them."""
