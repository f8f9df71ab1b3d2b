"""`attach`: a task's tmux window in this terminal."""

import os

from frontend.console import Console
from frontend.errors import UserError
from frontend.host_side import tmux


def run(console: Console) -> int:
  """Replaces this process by a tmux client on the task's host, so it returns only by an exception.

  Raises:
    UserError: no such task, or this machine lacks ssh or tmux.
  """
  name = console.options.task or 'learner-0'
  host = console.host_of(name)
  words = host.attach_arguments(
    tmux.attach_arguments(console.options.tmux_socket, console.options.tmux_sess, name)
  )
  console.close()
  # tmux refuses to attach where TMUX says that this terminal is a window of tmux already.
  environment = {key: value for key, value in os.environ.items() if key != 'TMUX'}
  try:
    os.execvpe(words[0], words, environment)
  except FileNotFoundError:
    raise UserError(f'--action=attach needs the program {words[0]} on this machine') from None
