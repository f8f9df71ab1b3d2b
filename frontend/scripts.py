"""The constant scripts that a host runs, and what runs them: a process here, or a channel of SSH.

What a person wrote (workdir, interpreter) reaches a script as lines of its input, so no shell ever
reads it.
"""

import contextlib
import shlex
import socket
import subprocess
import tempfile

from frontend import plain_text
from frontend.host_error import LOST, HostError

PROGRAM = 'run_experiment_mm_raw.py'
WHEELHOUSE = '.wheelhouse'
CONNECT_SECS = 10
# Longest silence while pip installs TensorFlow over a slow line.
INSTALL_SECS = 3600

_ENTER = r"""
IFS= read -r workdir; IFS= read -r python
case $workdir in "~") workdir=$HOME;; "~/"*) workdir=$HOME/${workdir#"~/"};; esac
case $python in "~/"*) python=$HOME/${python#"~/"};; esac
CDPATH= cd -- "$workdir" 2>/dev/null || exit 91
"""
# Becomes the frontend on that host; exit codes 91 to 94 say what is missing.
TALK = (
  _ENTER
  + r"""
test -f run_experiment_mm_raw.py || exit 93
command -v "$python" >/dev/null 2>&1 || exit 92
exec "$python" run_experiment_mm_raw.py --action=on_host
"""
)
# Makes the interpreter that an empty `python` cell means; the second line of input is `online`,
# or the folder that --wheelhouse was copied to.
MAKE_VENV = (
  _ENTER
  + r"""
exec 2>&1
test -x .venv/bin/python || python3 -m venv .venv || exit 94
if test "$python" = online; then set --; else set -- --no-index --find-links "$python"; fi
exec .venv/bin/python -m pip install --no-input -q "$@" -r requirements.txt
"""
)


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
    """Waits for the script's end; returns how it ended."""
    return self._process.wait(timeout=CONNECT_SECS)

  def errors(self):
    """What the script wrote to standard error."""
    self._errors.seek(0)
    return self._errors.read().decode(errors='replace')

  def close(self):
    """Ends the script with its input, and kills it if that is not enough."""
    self.channel.close()
    try:
      self._process.wait(timeout=CONNECT_SECS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._errors.close()


class RemoteScript:
  """The script over SSH. The shell that sshd starts gets one constant word-quoted script."""

  def __init__(self, client, script):
    self.channel = client.get_transport().open_session(timeout=CONNECT_SECS)
    self.channel.exec_command('exec /bin/sh -c ' + shlex.quote(script))

  def exit_code(self):
    """Waits for the script's end; returns how it ended, None or -1 if that was not told."""
    self.channel.status_event.wait(CONNECT_SECS)
    return self.channel.exit_status if self.channel.exit_status_ready() else None

  def errors(self):
    """What the script wrote to standard error."""
    self.channel.settimeout(1.0)
    data = b''
    with contextlib.suppress(OSError):
      while more := self.channel.recv_stderr(65536):
        data += more
    return data.decode(errors='replace')

  def close(self):
    """Ends the script with its input."""
    with contextlib.suppress(*LOST):  # Nobody is left to be told.
      self.channel.close()


# ---- What is done with them. -------------------------------------------------------------------


def begin(run, script, workdir, second_line):
  """Starts a script and sends it the two lines that it reads first.

  Args:
    run: function of the script's text that starts it on the host, as LocalScript does.
    script: TALK or MAKE_VENV.
    workdir: the folder to enter.
    second_line: TALK: the interpreter; MAKE_VENV: WHEELHOUSE or `online`.

  Returns:
    What `run` returned.
  """
  begun = run(script)
  with contextlib.suppress(*LOST):
    begun.channel.sendall(f'{workdir}\n{second_line}\n'.encode())
  return begun


def make_venv(run, workdir, offline):
  """Makes the virtual environment on the host and installs requirements.txt into it.

  Args:
    run: as for `begin`.
    workdir: the folder on the host.
    offline: whether pip takes packages from the folder WHEELHOUSE alone.

  Raises:
    HostError: with pip's own words.
  """
  script = begin(run, MAKE_VENV, workdir, WHEELHOUSE if offline else 'online')
  try:
    script.channel.settimeout(INSTALL_SECS)
    output = b''
    while data := script.channel.recv(65536):
      output = (output + data)[-4000:]
    code = script.exit_code()
  finally:
    script.close()
  if code:
    lines = output.decode(errors='replace').strip().splitlines() or [f'exit {code}']
    raise HostError(
      'python',
      'the virtual environment could not be made: ' + plain_text.printable(' / '.join(lines[-3:])),
    )
