"""The constant scripts that a host runs, and what runs them: a process here, or a channel of SSH.

What a person wrote (workdir, interpreter) reaches a script as lines of its input, so no shell ever
reads it. The login shell of a host sees one line in single quotes that holds no quote, `!` or
backslash of its own: sh, bash, zsh, csh, tcsh and fish read that alike.
"""

import contextlib
import os
import shlex
import socket
import subprocess
import tempfile
import time

from common import background, texts
from frontend.connection import pip_output
from frontend.errors import LOST, HostError

PROGRAM = 'run_experiment_mm_raw.py'
WHEELHOUSE = '.wheelhouse'
CONNECT_SECS = 10
# The longest that pip may take to install TensorFlow over a slow line.
INSTALL_SECS = 3600

_ENTER = (
  'IFS= read -r workdir; IFS= read -r python; '
  'case $workdir in "~") workdir=$HOME;; "~/"*) workdir=$HOME/${workdir#"~/"};; esac; '
  'case $python in "~/"*) python=$HOME/${python#"~/"};; esac; '
  'CDPATH= cd -- "$workdir" 2>/dev/null || exit 91; '
)
# Becomes the frontend on that host; exit codes 91 to 94 say what is missing.
RUN_AGENT = (
  _ENTER
  + 'test -f run_experiment_mm_raw.py || exit 93; '
  + 'command -v "$python" >/dev/null 2>&1 || exit 92; '
  + 'exec "$python" run_experiment_mm_raw.py --action=on_host'
)
# Makes the interpreter that an empty `python` cell means; the second line of input is `online`,
# or the folder that --wheelhouse was copied to, the third the file that pip is given. pip ends with
# the script's input: a person who presses Ctrl-C does not leave it behind.
MAKE_VENV = (
  _ENTER
  + 'exec 2>&1; IFS= read -r requirements; '
  + 'test -x .venv/bin/python || python3 -m venv .venv || exit 94; '
  + 'if test "$python" = online; then set --; else set -- --no-index --find-links "$python"; fi; '
  + 'case $requirements in *.lock) set -- "$@" --require-hashes;; esac; '
  + 'exec 3<&0; '
  + '.venv/bin/python -m pip install --no-input -q "$@" -r "$requirements" </dev/null 3<&- & '
  + 'pip=$!; '
  + '( while read -r line; do :; done; kill $pip ) <&3 >/dev/null 2>&1 & '
  + 'watch=$!; wait $pip; code=$?; kill $watch 2>/dev/null; exit $code'
)
# The SFTP server where distributions put it, for hosts whose login scripts print before sshd's own.
SFTP = (
  'for folder in /usr/lib/openssh /usr/libexec/openssh /usr/libexec /usr/lib/ssh /usr/lib; '
  'do test -x $folder/sftp-server && exec $folder/sftp-server; done; exit 95'
)
# What a login shell that came as far as the script says first; what is printed before is noise.
_READY = b'@impala-ready'
# Login scripts may wait for a slow file server.
LOGIN_SECS = 60
NOISE_BYTES = 1 << 20
ERRORS_BYTES = 64 << 10


# ---- Ways to run a script: both give an object whose channel has the methods of a socket. -------


class LocalScript:
  """The script as a process here."""

  def __init__(self, script):
    self._errors = tempfile.TemporaryFile()
    self.channel, theirs = socket.socketpair()
    self._process = subprocess.Popen(
      ['/bin/sh', '-c', script], stdin=theirs, stdout=theirs, stderr=self._errors
    )
    theirs.close()

  def exit_code(self):
    """Waits for the script's end; returns how it ended, None if it does not."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      return self._process.wait(timeout=CONNECT_SECS)
    return None

  def errors(self):
    """What the script wrote to standard error."""
    size = self._errors.seek(0, os.SEEK_END)
    self._errors.seek(max(0, size - ERRORS_BYTES))
    return self._errors.read().decode(errors='replace')

  def close(self, wait_secs=CONNECT_SECS):
    """Ends the script with its input, and kills it if that is not enough.

    Args:
      wait_secs: how long it may take; None leaves it to itself: it ends when it looks at its input
        again.
    """
    self.channel.close()
    self._errors.close()
    if wait_secs is None:
      self._process.poll()
      return
    try:
      self._process.wait(timeout=wait_secs)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()


class RemoteScript:
  """The script over SSH. The shell that sshd starts gets one constant word-quoted script.

  Raises:
    HostError: the login shell there did not come to run it.
  """

  def __init__(self, client, script):
    self.channel = client.get_transport().open_session(timeout=CONNECT_SECS)
    line = 'exec /bin/sh -c ' + shlex.quote(f'echo; echo {_READY.decode()}; {script}')
    try:
      background.within(CONNECT_SECS, self.channel.exec_command, line)
      self._await_shell()
    except BaseException:
      self.close()
      raise

  def _await_shell(self):
    """Nothing is sent before: a login script may have become a program that would read it."""
    said, deadline = b'', time.monotonic() + LOGIN_SECS
    while _READY + b'\n' not in said:
      try:
        self.channel.settimeout(max(0.01, deadline - time.monotonic()))
        data = self.channel.recv(65536)
      except TimeoutError:
        raise _no_shell(f'came to run no command within {LOGIN_SECS} s', said) from None
      if not data:
        code = self.exit_code()
        if code in (None, -1):
          raise EOFError
        raise _no_shell(f'ran no command (exit {code})', said + self.errors().encode())
      said += data
      if len(said) > NOISE_BYTES:
        raise _no_shell('prints without end', said)

  def exit_code(self):
    """Waits for the script's end; returns how it ended, None or -1 if that was not told."""
    self.channel.status_event.wait(CONNECT_SECS)
    return self.channel.exit_status if self.channel.exit_status_ready() else None

  def errors(self):
    """What the script wrote to standard error."""
    data, deadline = b'', time.monotonic() + 2
    with contextlib.suppress(OSError):
      while time.monotonic() < deadline:
        self.channel.settimeout(1.0)
        more = self.channel.recv_stderr(65536)
        if not more:
          break
        data = (data + more)[-ERRORS_BYTES:]
    return data.decode(errors='replace')

  def close(self, wait_secs=CONNECT_SECS):
    """Ends the script with its input, without waiting."""
    with contextlib.suppress(*LOST):  # Nobody is left to be told.
      self.channel.close()


# Whose output, or whose `exec`, comes before every command that is run over SSH.
STARTUP_FILES = '~/.bashrc, ~/.zshenv, ~/.cshrc, ~/.tcshrc or ~/.config/fish/config.fish'


def _no_shell(what, said):
  """The HostError for a login shell that does not run the script."""
  lines = said[-4000:].decode(errors='replace').split()
  words = texts.printable(' '.join(lines))[-200:]
  printed = f', and printed {words!r}' if words else ''
  return HostError(
    'login',
    f'its login shell {what}{printed}; see its start-up file ({STARTUP_FILES}), and the shell of '
    'this user there',
  )


# ---- What is done with them. -------------------------------------------------------------------


def start(run, script, workdir, second_line):
  """Starts a script and sends it the two lines that it reads first.

  Args:
    run: function of the script's text that starts it on the host, as LocalScript does.
    script: RUN_AGENT or MAKE_VENV.
    workdir: the folder to enter.
    second_line: RUN_AGENT: the interpreter; MAKE_VENV: WHEELHOUSE or `online`, and a
      third line.

  Returns:
    What `run` returned.
  """
  begun = run(script)
  with contextlib.suppress(*LOST):
    begun.channel.sendall(f'{workdir}\n{second_line}\n'.encode())
  return begun


def make_venv(run, workdir, offline, requirements):
  """Makes the virtual environment on the host and installs packages into it.

  Args:
    run: as for `start`.
    workdir: the folder on the host.
    offline: whether pip takes packages from the folder WHEELHOUSE alone.
    requirements: name of the file that says which; of one that ends in .lock, hashes are compared.

  Raises:
    HostError: with pip's own words.
  """
  place = WHEELHOUSE if offline else 'online'
  script = start(run, MAKE_VENV, workdir, f'{place}\n{requirements}')
  output, deadline = b'', time.monotonic() + INSTALL_SECS
  try:
    script.channel.settimeout(INSTALL_SECS)
    while data := script.channel.recv(65536):
      output = (output + data)[-16000:]
      script.channel.settimeout(max(0.01, deadline - time.monotonic()))
    code = script.exit_code()
  except LOST as error:
    silent = isinstance(error, TimeoutError)
    what = f'took longer than {INSTALL_SECS} s' if silent else 'broke off: the connection was lost'
    raise HostError('python', f'installing {requirements} {what}') from None
  finally:
    script.close()
  if code:
    why = pip_output.reason(output.decode(errors='replace')) or f'exit {code}'
    raise HostError('python', f'the virtual environment could not be made: {why}')
