"""TensorBoard on a host, bound to its loopback address, for as long as somebody asks for it."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from frontend.host_side import processes

ADDRESS = '127.0.0.1'
# Who has not asked for so long is gone, whatever the connection looks like from here.
ASK_SECS = 60.0
# How long TensorBoard may take to end by itself.
END_SECS = 10.0


class TensorBoard:
  """A process that shows one run; it ends with this process, too.

  Args:
    logdir: the run's folder, an absolute path.
    ask_secs: how long it goes on when nobody asks for its `state`.

  Attributes:
    pid, mark: of the process, see `processes.start_mark`.

  Raises:
    ValueError: it is not installed here.
  """

  def __init__(self, logdir, ask_secs=ASK_SECS):
    if importlib.util.find_spec('tensorboard') is None:
      raise ValueError(
        f'TensorBoard is not installed for {sys.executable}; '
        f'{sys.executable} -m pip install -r requirements.txt'
      )
    self._output = tempfile.TemporaryFile()
    # Without its fast loader, a process of its own that nobody here would know.
    words = [f'--logdir={logdir}', f'--host={ADDRESS}', '--port=0', '--load_fast=false']
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tensorboard.main', *words],
      stdin=subprocess.DEVNULL,
      stdout=self._output,
      stderr=subprocess.STDOUT,
      cwd='/',
      start_new_session=True,  # Ctrl-C in a terminal is not for it.
      preexec_fn=processes.end_with_parent,
    )
    self.pid, self.mark = self._process.pid, processes.start_mark(self._process.pid)
    self._ask_secs, self._asked = ask_secs, time.monotonic()
    threading.Thread(target=self._watch, daemon=True).start()

  def state(self):
    """{'port': int or None so far, 'running': bool, 'last_line': the end of its output}."""
    self._asked = time.monotonic()
    output = os.pread(self._output.fileno(), 1 << 20, 0).decode(errors='replace')
    at = re.search(rf'TensorBoard \S+ at http://{re.escape(ADDRESS)}:(\d+)/', output)
    return {
      'port': int(at[1]) if at else None,
      'running': self._process.poll() is None,
      'last_line': (output.strip().splitlines() or [''])[-1],
    }

  def _watch(self):
    while self._process.poll() is None:
      if time.monotonic() - self._asked > self._ask_secs:
        end(self.pid, self.mark)
      time.sleep(0.5)


def end(pid, mark):
  """Ends a TensorBoard, wherever it was started on this host; returns whether it is gone."""
  processes.send(pid, mark, signal.SIGTERM)
  if not processes.wait_until(lambda: not processes.is_running(pid, mark), END_SECS):
    processes.send(pid, mark, signal.SIGKILL)
  return processes.wait_until(lambda: not processes.is_running(pid, mark), END_SECS)
