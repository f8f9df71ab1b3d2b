"""The runs that a host's runner has started: their start, their end, and what became of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Set

from common import processor_shares
from frontend.host_side import processes, supervisor, sweep_folder, task_record


class Children:
  """Runs of one folder that are processes of this host.

  Args:
    folder: of the sweep, absolute.
    host: name of this host.
    say: prints a line.
  """

  def __init__(self, folder: str, host: str, say: Callable[[str], None]) -> None:
    self._folder, self._host, self._say = folder, host, say
    # {run: (its process, number of its claim, slot)}.
    self._own: dict[str, tuple[subprocess.Popen[bytes], int, int]] = {}
    self._asked_to_end: set[int] = set()  # Process ids.

  def __len__(self) -> int:
    return len(self._own)

  def __contains__(self, name: str) -> bool:
    return name in self._own

  def here(self, states: dict[str, str]) -> set[str]:
    """Returns the runs on this host, those included that an earlier runner has started."""
    return set(self._own) | self._adopted(states)

  def _adopted(self, states: dict[str, str]) -> set[str]:
    found = set()
    for name, state in states.items():
      if state == 'running' and name not in self._own:
        _, claim = sweep_folder.last_claim(self._tasks(name))
        if claim and claim.host == self._host and claim.realm == processes.realm():
          found.add(name)
    return found

  def _tasks(self, name: str) -> str:
    return sweep_folder.tasks_folder(self._folder, name)

  def _record(self, name: str) -> dict[str, object]:
    path = supervisor.path_of(self._tasks(name), sweep_folder.TASK, 'supervisor.json')
    return task_record.read(path) or {}

  # ---- Starting. -------------------------------------------------------------------------------

  def start(
    self, name: str, claim: int, devices: str | None, processors: Set[int] = frozenset()
  ) -> None:
    """Starts a run that this process has claimed.

    Args:
      name: of the run.
      claim: number of the claim.
      devices: GPUs with commas, of which its slot gets one; None leaves the environment alone.
      processors: numbers of those that it may use; empty for all.
    """
    slot = self._free_slot()
    environment = dict(os.environ)
    if devices is not None:
      names = devices.split(',')
      environment['CUDA_VISIBLE_DEVICES'] = names[slot % len(names)]
    program = [sys.executable, '-m', 'frontend.host_side.sweep_run']
    child = subprocess.Popen(
      [*program, self._folder, name, str(claim)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      env=environment,
      start_new_session=True,
    )
    self._own[name] = (child, claim, slot)
    processor_shares.pin(child.pid, processors)
    self._say(f'started {name}' + (f' (start {claim})' if claim > 1 else ''))

  def processors(self, others: Iterable[str], at_a_time: int) -> Set[int]:
    """Returns the processors for the next run.

    Args:
      others: the runs that run here already.
      at_a_time: how many runs will run here together.
    """
    pids = [pid for pid in map(self._pid, others) if pid is not None]
    return processor_shares.least_used(at_a_time, pids)

  def _pid(self, name: str) -> int | None:
    """Returns the process id of a run's supervisor, if it is known."""
    if name in self._own:
      return self._own[name][0].pid
    pid = self._record(name).get('supervisor_pid')
    return pid if isinstance(pid, int) else None

  def _free_slot(self) -> int:
    taken = {slot for _, _, slot in self._own.values()}
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)

  # ---- Ending. ---------------------------------------------------------------------------------

  def reap(self) -> dict[str, str]:
    """Returns {run that has ended: its state now}, and forgets these.

    Raises:
      OSError: the end of a run whose supervisor was killed cannot be recorded.
    """
    ended = {}
    for name, (child, number, _) in list(self._own.items()):
      if child.poll() is None:
        continue
      outcome = sweep_folder.outcome(self._tasks(name))
      if outcome is None or outcome.claim < number:
        # A run that was asked to end while it imported ends by SIGTERM, and was not killed.
        is_asked = child.pid in self._asked_to_end
        outcome = self._outcome_of_killed(name, number, child.returncode, is_asked)
      if outcome is None:
        continue
      del self._own[name]
      ended[name] = outcome.state
      said = 'ended before it was done' if outcome.state == 'waiting' else f'is {outcome.state}'
      self._say(f'{name} {said} ({supervisor.describe_exit(outcome.exit_code)})')
    return ended

  def _outcome_of_killed(
    self, name: str, number: int, code: int, is_asked: bool = False
  ) -> sweep_folder.Outcome | None:
    """Records the end of a run whose supervisor was killed; None while its training still ends."""
    record = self._record(name)
    if record and task_record.is_of_this_host(record):
      if processes.is_running(record['pid'], record['mark']):  # type: ignore[arg-type]
        return None
    before = sweep_folder.outcome(self._tasks(name))
    kills = (before.kills if before else 0) + (not is_asked)
    state = 'failed' if kills >= sweep_folder.MOST_KILLS else 'waiting'
    outcome = sweep_folder.Outcome(number, state, code, time.time(), kills)
    sweep_folder.write_outcome(self._tasks(name), outcome)
    return outcome

  def end(self, names: Iterable[str]) -> None:
    """Asks runs on this host to end, each once: a second signal would cost its checkpoint."""
    for name in names:
      if name in self._own:
        child = self._own[name][0]
        if child.poll() is None and child.pid not in self._asked_to_end:
          self._asked_to_end.add(child.pid)
          child.send_signal(signal.SIGTERM)
        continue
      record = self._record(name)
      pid, mark = record.get('supervisor_pid'), record.get('supervisor_mark')
      if isinstance(pid, int) and isinstance(mark, str) and pid not in self._asked_to_end:
        self._asked_to_end.add(pid)
        processes.send(pid, mark, signal.SIGTERM)

  def end_what_others_have(self) -> None:
    """Ends runs that another host has taken over, because this one seemed dead for a minute."""
    for name, (child, number, _) in list(self._own.items()):
      latest, _ = sweep_folder.last_claim(self._tasks(name))
      if latest > number and child.pid not in self._asked_to_end:
        self._say(f'{name} was taken over by another host, and ends here')
        self.end([name])
