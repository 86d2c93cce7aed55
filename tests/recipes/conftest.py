"""Clients of real etcds, as the client's own tests have them."""

from __future__ import annotations

from tests.client.conftest import client, make_client, proxy

__all__ = ["client", "make_client", "proxy"]
