"""TensorBoard on a host, at its loopback address, until the frontend stops asking for it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from frontend.errors import UserError
from frontend.host_side import processes

ADDRESS = '127.0.0.1'
# A frontend that has not asked for this long is gone, even if its connection looks alive.
ASK_SECS = 60.0
# How long TensorBoard may take to end by itself.
END_SECS = 10.0


class TensorBoard:
  """A TensorBoard process that shows one run. It ends with this process.

  Args:
    logdir: the run's folder, an absolute path.
    ask_secs: it ends when nobody has asked for its `state` for this long.

  Attributes:
    pid: int, its process id.
    mark: its start mark, see `processes.start_mark`.

  Raises:
    UserError: TensorBoard is not installed.
  """

  def __init__(self, logdir: str, ask_secs: float = ASK_SECS) -> None:
    if importlib.util.find_spec('tensorboard') is None:
      raise UserError(
        f'TensorBoard is not installed for {sys.executable}; '
        f'{sys.executable} -m pip install -r requirements.txt'
      )
    self._output = tempfile.TemporaryFile()
    # Its fast loader would be another process, which this one does not know.
    words = [f'--logdir={logdir}', f'--host={ADDRESS}', '--port=0', '--load_fast=false']
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tensorboard.main', *words],
      stdin=subprocess.DEVNULL,
      stdout=self._output,
      stderr=subprocess.STDOUT,
      cwd='/',
      start_new_session=True,  # Ctrl-C in a terminal does not reach it.
      preexec_fn=processes.end_with_parent,
    )
    self.pid, self.mark = self._process.pid, processes.start_mark(self._process.pid)
    self._ask_secs, self._asked = ask_secs, time.monotonic()
    threading.Thread(target=self._watch, daemon=True).start()

  def state(self) -> dict[str, Any]:
    """Returns {'port': int or None, 'running': bool, 'last_line': the last line of its output}."""
    self._asked = time.monotonic()
    output = os.pread(self._output.fileno(), 1 << 20, 0).decode(errors='replace')
    at = re.search(rf'TensorBoard \S+ at http://{re.escape(ADDRESS)}:(\d+)/', output)
    return {
      'port': int(at[1]) if at else None,
      'running': self._process.poll() is None,
      'last_line': (output.strip().splitlines() or [''])[-1],
    }

  def _watch(self) -> None:
    while self._process.poll() is None:
      if time.monotonic() - self._asked > self._ask_secs:
        end(self.pid, self.mark)
      time.sleep(0.5)


def end(pid: int, mark: str | None) -> bool:
  """Ends a TensorBoard process, whoever started it; returns whether it has ended."""
  processes.send(pid, mark, signal.SIGTERM)
  if not processes.wait_until(lambda: not processes.is_running(pid, mark), END_SECS):
    processes.send(pid, mark, signal.SIGKILL)
  return processes.wait_until(lambda: not processes.is_running(pid, mark), END_SECS)
