"""One tmux session per cluster and host, one window per task, through libtmux.

Targets are exact (`=name:`): without `=`, tmux takes a session whose name merely starts like ours
for ours. Other sessions of the same tmux server are never touched.
"""

import contextlib
import os
import shutil
import subprocess


def _server(socket):
  import libtmux

  # A frontend started inside tmux would otherwise talk to that server, and the host's supervisor
  # would be somewhere else than after a launch from a plain terminal.
  os.environ.pop('TMUX', None)
  if '/' in socket:
    return libtmux.Server(socket_path=socket)
  return libtmux.Server(socket_name=socket or None)


def socket_arguments(socket):
  """The words that follow `tmux` for a socket's name or path; '' is tmux's own default."""
  if not socket:
    return []
  return ['-S', socket] if '/' in socket else ['-L', socket]


def attach_arguments(socket, session, window):
  """The command line that attaches a terminal to one window."""
  return ['tmux', *socket_arguments(socket), 'attach-session', '-t', f'={session}:={window}']


def version():
  """What `tmux -V` says, or None when there is no tmux here."""
  if not shutil.which('tmux'):
    return None
  return subprocess.run(['tmux', '-V'], capture_output=True, text=True, check=False).stdout.strip()


def has_session(socket, session):
  """Whether a session of exactly this name is there."""
  return _server(socket).cmd('has-session', '-t', f'={session}').returncode == 0


def is_used(socket, session):
  """Whether a session of exactly this name is there, and something runs in one of its windows."""
  result = _server(socket).cmd('list-panes', '-s', '-t', f'={session}:', '-F', '#{pane_dead}')
  return result.returncode == 0 and any(line.strip() != '1' for line in result.stdout)


def _literal(argument):
  """tmux reads an argument's last `;` as the end of its command."""
  return argument[:-1] + '\\;' if argument.endswith(';') else argument


def _run(server, *arguments):
  result = server.cmd(*arguments)
  if result.returncode:
    raise RuntimeError('tmux: ' + (' '.join(result.stderr) or f'exit {result.returncode}'))


def start_windows(socket, session, commands):
  """Starts a session with one window for each command; windows stay after their command ends.

  Args:
    socket: name or path of the tmux socket, '' for the default.
    session: name of the new session.
    commands: list of (window name, arguments), at least two arguments each: tmux runs those
      without a shell. They start in the current directory.

  Raises:
    RuntimeError: tmux refused, for example because the session exists.
  """
  server = _server(socket)
  if has_session(socket, session):
    raise RuntimeError(f'tmux: duplicate session: {session}')
  try:
    for number, (window, arguments) in enumerate(commands):
      _start_window(server, session, window, arguments, first=number == 0)
  except BaseException:  # The first window's command may fail when its session is there already.
    with contextlib.suppress(RuntimeError):
      end_session(socket, session)
    raise


def _start_window(server, session, window, arguments, first):
  if first:
    start = ['new-session', '-d', '-s', session, '-x', '200', '-y', '50']
  else:
    start = ['new-window', '-d', '-t', f'={session}:']
  words = [_literal(word) for word in arguments]
  stay = ['set-option', '-w', '-t', f'={session}:={window}', 'remain-on-exit', 'on']
  # One tmux command, so that a program that ends at once still leaves its window.
  _run(server, *start, '-n', window, '--', *words, ';', *stay)
  if first:
    _run(server, 'set-option', '-t', f'={session}:', 'destroy-unattached', 'off')


def end_session(socket, session):
  """Ends the session of exactly this name, if there is one."""
  if has_session(socket, session):
    _run(_server(socket), 'kill-session', '-t', f'={session}')
