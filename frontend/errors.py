"""The two failures that the frontend reports as a sentence; any other exception is a bug."""

from common import texts

# Stages of reaching a host, up to its first reply, in the table of `check`.
STAGES = ('address', 'reachable', 'host key', 'login', 'workdir', 'python')

# What sending on a broken connection raises; EOFError comes from paramiko.
LOST = (OSError, EOFError)


class UserError(Exception):
  """A flag, file or command of the user that cannot be used; the program ends with exit code 2."""


class HostError(Exception):
  """A host that cannot be used; the program ends with exit code 1.

  Attributes:
    stage: the one of STAGES that failed, or '' after the first reply.
  """

  def __init__(self, stage: str, text: str):
    super().__init__(texts.printable(text))  # The text may quote a host, or the name of a file.
    self.stage = stage
