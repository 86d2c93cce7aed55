"""How the tests of this room get their clients: as those of the client's own."""

from __future__ import annotations

from tests.client.conftest import client, make_client, proxy

__all__ = ["client", "make_client", "proxy"]
