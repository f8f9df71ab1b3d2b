"""The earlier place of `frontend.connection.ssh`, for scripts that import it from here."""

from __future__ import annotations

from typing import Any

from frontend.connection import ssh_config
from frontend.connection.ssh import connect

__all__ = ['connect']


def _ssh_options(address: str) -> dict[str, Any]:
  """Returns the options that OpenSSH's configuration has for a host, by name."""
  return ssh_config.read(address)._asdict()
