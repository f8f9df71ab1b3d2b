"""The earlier place of `frontend.connection.hosts`, for scripts that import it from here."""

from frontend.connection.hosts import SshHost

__all__ = ['SshHost']
