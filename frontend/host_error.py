"""The earlier place of `HostError`, for scripts that import it from here."""

from frontend.errors import HostError

__all__ = ['HostError']
