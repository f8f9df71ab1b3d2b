"""One tmux session per cluster and host, with one window per task, through libtmux.

Targets are exact (`=name:`): without the `=`, tmux accepts a session whose name only begins with
ours. Other sessions of the same tmux server are never touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import libtmux


def leave_own_server() -> None:
  """Makes this process use the default tmux server, also if it runs in a window of another one.

  Otherwise the place of the session would depend on the terminal that `launch` was typed in.
  """
  os.environ.pop('TMUX', None)


def _server(socket: str) -> libtmux.Server:
  import libtmux

  if '/' in socket:
    return libtmux.Server(socket_path=socket)
  return libtmux.Server(socket_name=socket or None)


def socket_arguments(socket: str) -> list[str]:
  """Returns tmux's arguments for a socket's name or path; '' stands for tmux's default."""
  if not socket:
    return []
  return ['-S', socket] if '/' in socket else ['-L', socket]


def attach_arguments(socket: str, session: str, window: str) -> list[str]:
  """Returns the command line that attaches a terminal to one window."""
  return ['tmux', *socket_arguments(socket), 'attach-session', '-t', f'={session}:={window}']


def version() -> str | None:
  """Returns the output of `tmux -V`; None if tmux is not installed."""
  if not shutil.which('tmux'):
    return None
  return subprocess.run(['tmux', '-V'], capture_output=True, text=True, check=False).stdout.strip()


def has_session(socket: str, session: str) -> bool:
  """Returns whether a session of exactly this name exists."""
  return _server(socket).cmd('has-session', '-t', f'={session}').returncode == 0


def is_used(socket: str, session: str) -> bool:
  """Returns whether a process runs in a window of the session of exactly this name."""
  result = _server(socket).cmd('list-panes', '-s', '-t', f'={session}:', '-F', '#{pane_dead}')
  return result.returncode == 0 and any(line.strip() != '1' for line in result.stdout)


def _literal(argument: str) -> str:
  """Escapes a last `;`, which tmux would read as the end of its command."""
  return argument[:-1] + '\\;' if argument.endswith(';') else argument


def _run(server: libtmux.Server, *arguments: str) -> None:
  result = server.cmd(*arguments)
  if result.returncode:
    raise RuntimeError('tmux: ' + (' '.join(result.stderr) or f'exit {result.returncode}'))


def start_windows(socket: str, session: str, commands: Sequence[tuple[str, Sequence[str]]]) -> None:
  """Starts a session with one window per command; a window stays when its command has ended.

  Args:
    socket: name or path of the tmux socket, '' for the default.
    session: name of the new session.
    commands: (window name, arguments) pairs. tmux runs two arguments or more without a shell, in
      the current directory.

  Raises:
    RuntimeError: tmux failed, for example because the session exists.
  """
  server = _server(socket)
  if has_session(socket, session):
    raise RuntimeError(f'tmux: duplicate session: {session}')
  try:
    for number, (window, arguments) in enumerate(commands):
      _start_window(server, session, window, arguments, first=number == 0)
  except BaseException:  # The session may exist although its first window's command failed.
    with contextlib.suppress(RuntimeError):
      end_session(socket, session)
    raise


def _start_window(
  server: libtmux.Server, session: str, window: str, arguments: Sequence[str], first: bool
) -> None:
  if first:
    start = ['new-session', '-d', '-s', session, '-x', '200', '-y', '50']
  else:
    start = ['new-window', '-d', '-t', f'={session}:']
  words = [_literal(word) for word in arguments]
  stay = ['set-option', '-w', '-t', f'={session}:={window}', 'remain-on-exit', 'on']
  # In one tmux command, so that the window of a program that ends at once stays, too.
  _run(server, *start, '-n', window, '--', *words, ';', *stay)
  if first:
    _run(server, 'set-option', '-t', f'={session}:', 'destroy-unattached', 'off')


def end_session(socket: str, session: str) -> None:
  """Ends the session of exactly this name, if it exists."""
  if has_session(socket, session):
    _run(_server(socket), 'kill-session', '-t', f'={session}')
