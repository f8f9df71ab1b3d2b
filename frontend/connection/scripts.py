"""The constant shell scripts that a host runs, as a local process or over SSH.

Cells of the CSV (workdir, interpreter) reach a script as lines of its input, so no shell parses
them. The login shell of a host gets one line in single quotes that contains no quote, `!` or
backslash, which sh, bash, zsh, csh, tcsh and fish parse alike.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from common import background, texts
from frontend.errors import LOST, HostError

if TYPE_CHECKING:
  import paramiko


PROGRAM = 'run_experiment_mm_raw.py'
WHEELHOUSE = '.wheelhouse'
CONNECT_SECS = 10
# Limit for installing TensorFlow over a slow line.
INSTALL_SECS = 3600

_ENTER = (
  'IFS= read -r workdir; IFS= read -r python; '
  'case $workdir in "~") workdir=$HOME;; "~/"*) workdir=$HOME/${workdir#"~/"};; esac; '
  'case $python in "~/"*) python=$HOME/${python#"~/"};; esac; '
  'CDPATH= cd -- "$workdir" 2>/dev/null || exit 91; '
)
# Becomes the agent on the host; exit codes 91 to 93 say what is missing.
RUN_AGENT = (
  _ENTER
  + 'test -f run_experiment_mm_raw.py || exit 93; '
  + 'command -v "$python" >/dev/null 2>&1 || exit 92; '
  + 'exec "$python" run_experiment_mm_raw.py --action=on_host'
)
# Makes the virtual environment for hosts with an empty `python` cell. The second line of input is
# `online` or the folder that --wheelhouse was copied to, the third is the requirements file. pip is
# killed when the script's input ends, so Ctrl-C does not leave it running.
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
# Starts the SFTP server where distributions install it. For hosts whose login scripts print before
# the one that sshd starts.
SFTP = (
  'for folder in /usr/lib/openssh /usr/libexec/openssh /usr/libexec /usr/lib/ssh /usr/lib; '
  'do test -x $folder/sftp-server && exec $folder/sftp-server; done; exit 95'
)
# The script's first line of output; what login scripts print before it is ignored.
_READY = b'@impala-ready'
# Login scripts may have to wait for a slow file server.
LOGIN_SECS = 60
NOISE_BYTES = 1 << 20
ERRORS_BYTES = 64 << 10


# ---- Running scripts. Each class has a `channel` with the methods of a socket. -------------------


class LocalScript:
  """Runs a script as a process on this machine.

  Attributes:
    channel: socket to the input and output of the script.
  """

  def __init__(self, script: str) -> None:
    self._errors = tempfile.TemporaryFile()
    self.channel, theirs = socket.socketpair()
    self._process = subprocess.Popen(
      ['/bin/sh', '-c', script], stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._errors
    )
    theirs.close()

  def exit_code(self) -> int | None:
    """Waits for the script to end; returns its exit code, or None if it goes on."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      return self._process.wait(timeout=CONNECT_SECS)
    return None

  def errors(self) -> str:
    """Returns the end of the script's standard error."""
    size = self._errors.seek(0, os.SEEK_END)
    self._errors.seek(max(0, size - ERRORS_BYTES))
    return self._errors.read().decode(errors='replace')

  def close(self, wait_secs: float | None = CONNECT_SECS) -> None:
    """Closes the script's input, which ends it.

    Args:
      wait_secs: it is killed if it still runs after this; None does not wait, and it ends when it
        next reads its input.
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
  """Runs a script over SSH; the login shell gets it as one quoted word.

  Attributes:
    channel: paramiko Channel to the input and output of the script.

  Raises:
    HostError: the login shell of the host did not run it.
  """

  def __init__(self, transport: paramiko.Transport, script: str) -> None:
    self.channel = transport.open_session(timeout=CONNECT_SECS)
    line = 'exec /bin/sh -c ' + shlex.quote(f'echo; echo {_READY.decode()}; {script}')
    try:
      background.within(CONNECT_SECS, self.channel.exec_command, line)
      self._await_shell()
    except BaseException:
      self.close()
      raise

  def _await_shell(self) -> None:
    """Waits for the script's first line. Input sent earlier might be read by a login script."""
    said, deadline = b'', time.monotonic() + LOGIN_SECS
    while _READY + b'\n' not in said:
      try:
        self.channel.settimeout(max(0.01, deadline - time.monotonic()))
        data = self.channel.recv(65536)
      except TimeoutError:
        raise _no_shell(f'did not run a command within {LOGIN_SECS} s', said) from None
      if not data:
        code = self.exit_code()
        if code in (None, -1):
          raise EOFError
        raise _no_shell(f'ran no command (exit {code})', said + self.errors().encode())
      said += data
      if len(said) > NOISE_BYTES:
        raise _no_shell('prints without end', said)

  def exit_code(self) -> int | None:
    """Waits for the script to end; returns its exit code, or None or -1 if it is unknown."""
    self.channel.status_event.wait(CONNECT_SECS)
    return self.channel.exit_status if self.channel.exit_status_ready() else None

  def errors(self) -> str:
    """Returns the end of the script's standard error."""
    data, deadline = b'', time.monotonic() + 2
    with contextlib.suppress(OSError):
      while time.monotonic() < deadline:
        self.channel.settimeout(1.0)
        more = self.channel.recv_stderr(65536)
        if not more:
          break
        data = (data + more)[-ERRORS_BYTES:]
    return data.decode(errors='replace')

  def close(self, wait_secs: float | None = CONNECT_SECS) -> None:
    """Closes the script's input, which ends it; does not wait."""
    with contextlib.suppress(*LOST):  # The connection is gone.
      self.channel.close()


# These run before every command over SSH; their output, or an `exec` in them, gets in the way.
STARTUP_FILES = '~/.bashrc, ~/.zshenv, ~/.cshrc, ~/.tcshrc or ~/.config/fish/config.fish'


def _no_shell(what: str, said: bytes) -> HostError:
  """Returns the error for a login shell that does not run the script."""
  lines = said[-4000:].decode(errors='replace').split()
  words = texts.printable(' '.join(lines))[-200:]
  printed = f', and printed {words!r}' if words else ''
  return HostError(
    'login',
    f'its login shell {what}{printed}; see its start-up file ({STARTUP_FILES}), and the shell of '
    'this user there',
  )


# ---- Using scripts. ----------------------------------------------------------------------------

Script = LocalScript | RemoteScript


def start(run: Callable[[str], Script], script: str, workdir: str, *lines: str) -> Script:
  """Starts a script and sends it its first lines of input.

  Args:
    run: starts a script, given its text, on the host.
    script: RUN_AGENT or MAKE_VENV.
    workdir: the folder to enter.
    *lines: for RUN_AGENT the interpreter; for MAKE_VENV WHEELHOUSE or 'online', and the name of
      the requirements file.

  Returns:
    The result of `run`.
  """
  started = run(script)
  with contextlib.suppress(*LOST):
    started.channel.sendall(''.join(f'{line}\n' for line in (workdir, *lines)).encode())
  return started


def make_venv(run: Callable[[str], Script], workdir: str, offline: bool, requirements: str) -> None:
  """Makes the virtual environment on the host and installs packages into it.

  Args:
    run: as for `start`.
    workdir: the folder on the host.
    offline: whether pip uses only the packages in the folder WHEELHOUSE.
    requirements: name of the requirements file; hashes are compared if it ends in .lock.

  Raises:
    HostError: with the error lines of pip.
  """
  place = WHEELHOUSE if offline else 'online'
  script = start(run, MAKE_VENV, workdir, place, requirements)
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
    why = pip_failure(output.decode(errors='replace')) or f'exit {code}'
    raise HostError('python', f'the virtual environment could not be made: {why}')


# ---- The output of pip. ------------------------------------------------------------------------

# Lines of pip and venv that are not the reason of a failure.
_NOISE = re.compile(
  r'\[notice\]|WARNING|DEPRECATION|Looking in |Collecting |Using cached |Requirement already|note: '
  r'|hint: |Failing command:|You should consider upgrading|  *[-|]{4}|╰|$',
  re.IGNORECASE,
)
# The lines after a wrong hash say which hash was expected, and which came.
_ERROR = re.compile(
  r'(ERROR|error|fatal|\w*Error|OSError)\b[^:]*: |Expected sha\d+ |Got +[0-9a-f]{32}'
)
_MOST_LINES = 3
_MOST_LETTERS = 1000


def pip_failure(output: str) -> str:
  """Returns why pip, or the making of a virtual environment, failed.

  Args:
    output: its output; the beginning may be cut off.

  Returns:
    The last error lines without repetitions, or the last lines that are not notices.
  """
  lines = [line.rstrip() for line in output.splitlines() if not _NOISE.match(line.strip())]
  errors = [line for line in lines if _ERROR.match(line.strip())]
  found = list(dict.fromkeys(line.strip() for line in errors or lines))[-_MOST_LINES:]
  return ' / '.join(found)[:_MOST_LETTERS]
