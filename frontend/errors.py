"""How the frontend says that a host cannot be used, and at which stage that showed."""

from common import texts

# What a failure to get as far as the first reply is called in the table of `check`.
STAGES = ('address', 'reachable', 'host key', 'login', 'workdir', 'python')

LOST = (OSError, EOFError)  # What sending on a broken connection raises; the second is paramiko's.


class HostError(Exception):
  """A host that cannot be used; `stage` is one of STAGES, or '' once it had answered."""

  def __init__(self, stage, text):
    super().__init__(texts.printable(text))  # It may quote the host, or a file's name.
    self.stage = stage
