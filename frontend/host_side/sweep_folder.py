"""The folder of a sweep on a host: its list of runs, who has claimed each, and how each has ended.

  sweep.json                    the list (`Sweep`), written by the frontend, read by runners
  runner-<host>.json            the record of a host's runner (`sweep_runner.py`)
  seen.json                     {time, states, guarded}: what a frontend has seen last of all hosts
  stopping                      exists while the sweep is stopped: no run is started
  <run>/                        a run's --logdir: run.json, metrics.csv, checkpoints ...
  <run>/tasks/claim-<n>.json    the n-th claim on the run (`Claim`)
  <run>/tasks/outcome.json      how the run ended under the latest claim (`Outcome`)
  <run>/tasks/local-0.*         log, state file and supervisor's record (`supervisor.py`)

sweep.json is an object:
  version     1
  swept       names of the settings that differ between runs, in their order
  arguments   flags of experiment.py that all runs share
  max_restarts  of a run that fails, within an hour
  population  number of members if the runs are those of a population, else 0
  epoch       grows with each dealing of the runs
  lost_secs   see `sweep_contact.py`
  hosts       [{name, place, slots, devices, ssh_port, is_lost}]: `name` is the address, `place` the
              host whose disk holds the folder, one for all hosts that share a file system. slots 0
              is that host's default; devices are the GPUs that its slots take in turn. is_lost: its
              runs were given to others without its consent, and it counts no more.
  runs        [{name, settings, place}]: `name` is the folder, `settings` {setting: value as typed},
              `place` where it is run ('' anywhere).

A run is started only by who has created its next claim. A claim is created once, in one step, by a
link, which is atomic on NFS, too. So a run never starts twice from one folder, nor after it was
moved to another place, which is a claim as well.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from common import files
from frontend.host_side import processes, task_record

LIST = 'sweep.json'
STOPPING = 'stopping'
TASK = 'local-0'  # The name of a local training's state file.
VERSION = 1
# Of a run on this host. `moved`: another place has it.
STATES = ('waiting', 'running', 'done', 'failed', 'moved')
FINAL_STATES = ('done', 'failed', 'moved')
# Errors of file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
# A run whose supervisor was killed this often is given up.
MOST_KILLS = 20


class Run(NamedTuple):
  """A run of a sweep, see the module."""

  name: str
  settings: dict[str, str]
  place: str = ''


class HostEntry(NamedTuple):
  """A host of a sweep, see the module."""

  name: str
  place: str
  slots: int = 0
  devices: str | None = None
  ssh_port: int = 22
  is_lost: bool = False


class Sweep(NamedTuple):
  """What sweep.json holds, see the module."""

  swept: list[str]
  arguments: list[str]
  runs: list[Run]
  hosts: list[HostEntry] = []
  epoch: int = 1
  max_restarts: int = 3
  lost_secs: float = 1800.0
  population: int = 0


class Claim(NamedTuple):
  """Who has claimed a run.

  Attributes:
    host: name of the host.
    realm: where the process id is valid, see `processes.realm`.
    pid, mark: of the runner.
    epoch: of the sweep.json that the claim follows.
    time: Unix seconds.
    moved_to: the place that has the run now; '' for a start.
  """

  host: str
  realm: str
  pid: int
  mark: str | None
  epoch: int
  time: float
  moved_to: str = ''


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    claim: number of the claim.
    state: `done`, `failed`, or `waiting` if it was asked to stop or only a round has ended.
    exit_code: of its last process.
    time: Unix seconds.
    kills: how often in a row its supervisor was killed.
  """

  claim: int
  state: str
  exit_code: int
  time: float
  kills: int = 0


# ---- sweep.json. -------------------------------------------------------------------------------


def to_json(sweep: Sweep) -> dict[str, Any]:
  """Returns a sweep as an object of JSON."""
  value = {'version': VERSION, **sweep._asdict()}
  value['runs'] = [run._asdict() for run in sweep.runs]
  value['hosts'] = [host._asdict() for host in sweep.hosts]
  return value


def from_json(value: Any) -> Sweep:
  """Returns the sweep in an object of JSON; fields of later versions are left out.

  Raises:
    ValueError: it is none.
  """
  try:
    if value['version'] != VERSION:
      raise ValueError(f'it has version {value["version"]}, and this code reads {VERSION}')
    sweep = _fields(Sweep, value)
    made = sweep._replace(
      runs=[_fields(Run, run) for run in sweep.runs],
      hosts=[_fields(HostEntry, host) for host in sweep.hosts],
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'it is not the list of a sweep ({error})') from None
  names = [run.name for run in made.runs]
  if not all(map(_is_name, names)) or len(set(names)) < len(names):
    raise ValueError('the names of its runs are not names of different folders')
  words = [*made.swept, *made.arguments, *(v for run in made.runs for v in run.settings.values())]
  if not all(isinstance(word, str) for word in words):
    raise ValueError('its arguments are not text')
  # Members of a population have a seed as well.
  if any(set(run.settings) - {*made.swept, 'seed'} for run in made.runs):
    raise ValueError('a run of it has other settings than those that are swept')
  return made


def _fields(kind: Any, value: dict[str, Any]) -> Any:
  return kind(**{name: value[name] for name in kind._fields if name in value})


def _is_name(name: object) -> bool:
  return isinstance(name, str) and bool(re.fullmatch(r'[A-Za-z0-9_=,.+~-]+', name)) and (
    name not in ('.', '..')
  )  # fmt: skip


def read(folder: str) -> Sweep | None:
  """Returns the sweep in a folder, or None if there is none.

  Raises:
    ValueError: its sweep.json is not the list of a sweep.
    OSError: it cannot be read.
  """
  try:
    data = files.read(os.path.join(folder, LIST))
  except (FileNotFoundError, NotADirectoryError):
    return None
  try:
    return from_json(json.loads(data))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{os.path.join(folder, LIST)}: {error}') from None


def write(folder: str, sweep: Sweep) -> None:
  """Replaces the sweep of a folder, which it makes if there is none."""
  os.makedirs(folder, exist_ok=True)
  text = json.dumps(to_json(sweep), indent=1)
  files.write_whole(os.path.join(folder, LIST), text + '\n')


def run_arguments(sweep: Sweep, run: Run) -> list[str]:
  """Returns the flags of one run's experiment.py, without its folders."""
  return [*sweep.arguments, *(f'--{key}={value}' for key, value in run.settings.items())]


def place_arguments(sweep: Sweep, folder: str, name: str) -> list[str]:
  """Returns the flags with the folders of one run's experiment.py."""
  own = [f'--logdir={os.path.join(folder, name)}']
  return [*own, f'--population_dir={folder}'] if sweep.population else own


def by_turns(folder: str, sweep: Sweep) -> list[Run]:
  """Returns the runs in the order in which they are started.

  Members of a population train in rounds, each of which is a start: who has had the fewest is next.
  """
  if not sweep.population:
    return sweep.runs
  return sorted(sweep.runs, key=lambda run: last_claim(tasks_folder(folder, run.name))[0])


# ---- Claims and outcomes. ----------------------------------------------------------------------


def tasks_folder(folder: str, name: str) -> str:
  """Returns the folder of a run's log, claims and outcome."""
  return os.path.join(folder, name, 'tasks')


def last_claim(tasks: str) -> tuple[int, Claim | None]:
  """Returns (number, the latest claim on a run); (0, None) if nobody has claimed it."""
  numbers = [int(m[1]) for n in files.names(tasks) if (m := re.fullmatch(r'claim-(\d+)\.json', n))]
  if not numbers:
    return 0, None
  number = max(numbers)
  value = task_record.read_json(os.path.join(tasks, f'claim-{number}.json'))
  try:
    return number, _fields(Claim, value)
  except (TypeError, AttributeError):  # A disk error: whose it was is not known.
    return number, Claim('', '?', 0, None, 0, 0.0)


def claim(tasks: str, number: int, host: str, epoch: int, moved_to: str = '') -> bool:
  """Creates claim `number` on a run for this process; returns whether nobody was faster."""
  os.makedirs(tasks, mode=0o700, exist_ok=True)
  pid = os.getpid()
  made = Claim(
    host, processes.realm(), pid, processes.start_mark(pid), epoch, time.time(), moved_to
  )
  path = os.path.join(tasks, f'claim-{number}.json')
  temporary = os.path.join(tasks, f'.claim.{secrets.token_hex(8)}.new')
  try:
    with open(temporary, 'x', encoding='utf-8') as file:
      json.dump(made._asdict(), file)
      file.flush()
      os.fsync(file.fileno())
    return _linked(temporary, path)
  finally:
    with contextlib.suppress(OSError):
      os.remove(temporary)


def _linked(temporary: str, path: str) -> bool:
  """Gives a file its name, unless that is taken; returns whether it has it."""
  try:
    os.link(temporary, path)
    return True
  except FileExistsError:
    # On NFS the answer may be lost, and the request is then repeated.
    return os.stat(temporary).st_nlink == 2
  except OSError as error:
    if error.errno not in _NO_LINKS:
      raise
  try:  # A reader may see half of it, and then takes the run for claimed.
    with open(temporary, 'rb') as file, open(path, 'xb') as copy:
      copy.write(file.read())
    return True
  except FileExistsError:
    return False


def outcome(tasks: str) -> Outcome | None:
  """Returns how a run ended last, or None."""
  value = task_record.read_json(os.path.join(tasks, 'outcome.json'))
  try:
    return _fields(Outcome, value)
  except (TypeError, AttributeError):
    return None


def write_outcome(tasks: str, ended: Outcome) -> None:
  """Records how a run ended."""
  files.write_whole(os.path.join(tasks, 'outcome.json'), json.dumps(ended._asdict()))


def state(folder: str, run: Run, place: str, epoch: int) -> str:
  """Returns the state of a run in this folder, one of STATES.

  Args:
    folder: of the sweep.
    run: one of its runs.
    place: of this folder, see the module.
    epoch: of its sweep.json.
  """
  tasks = tasks_folder(folder, run.name)
  number, latest = last_claim(tasks)
  ended = outcome(tasks)
  is_ours = run.place in ('', place)
  if latest is not None and not latest.moved_to:
    if ended and ended.claim == number and ended.state in ('done', 'failed'):
      return ended.state
    if not (ended and ended.claim == number) and is_alive(tasks, latest):
      return 'running'
  # A dealing that is later than the one that moved it has brought it back.
  if latest is not None and latest.moved_to and latest.epoch >= epoch:
    return 'moved'
  return 'waiting' if is_ours else 'moved'


def is_alive(tasks: str, latest: Claim) -> bool:
  """Returns whether a run's supervisor still runs, or the runner that is about to start it."""
  path = os.path.join(tasks, f'{TASK}.supervisor.json')
  record = task_record.read(path)
  if record is not None:
    if task_record.is_of_this_host(record):
      if processes.is_running(record['supervisor_pid'], record['supervisor_mark']):
        return True
      if processes.is_running(record['pid'], record['mark']):
        return True
    elif task_record.runs_elsewhere(record, path):
      return True
  if latest.realm == processes.realm():
    return processes.is_running(latest.pid, latest.mark)
  is_new = task_record.age_secs(os.path.join(tasks, f'claim-{last_claim(tasks)[0]}.json'))
  return is_new is None or is_new < task_record.DEAD_SECS


def states(folder: str, sweep: Sweep, place: str) -> dict[str, str]:
  """Returns {name of a run: its state} of all runs in this folder."""
  return {run.name: state(folder, run, place, sweep.epoch) for run in sweep.runs}


def read_seen(folder: str) -> dict[str, Any]:
  """Returns {'time': Unix seconds of a frontend, 'states': {run: state}, 'guarded': [hosts]}.

  The time is 0 if there is none. For `guarded` see `sweep_contact.py`.
  """
  value = task_record.read_json(os.path.join(folder, 'seen.json'))
  if isinstance(value, dict) and isinstance(value.get('time'), int | float):
    if isinstance(value.get('states'), dict) and isinstance(value.get('guarded'), list):
      return value
  return {'time': 0.0, 'states': {}, 'guarded': []}


def write_seen(folder: str, seen: dict[str, Any]) -> None:
  """Records what a frontend has seen, for the next one, which may not reach all hosts."""
  if seen['time'] > read_seen(folder)['time']:
    files.write_whole(os.path.join(folder, 'seen.json'), json.dumps(seen), durable=False)


def is_stopping(folder: str) -> bool:
  """Returns whether runners of this folder are to end, and start no run."""
  return os.path.exists(os.path.join(folder, STOPPING))


def set_stopping(folder: str, is_stopping: bool) -> None:
  """Forbids runners of this folder to start runs, or allows it again."""
  path = os.path.join(folder, STOPPING)
  if is_stopping:
    with open(path, 'w', encoding='utf-8'):
      pass
    return
  with contextlib.suppress(FileNotFoundError):
    os.remove(path)


def give_failed_another_try(folder: str, names: Sequence[str]) -> None:
  """Makes failed runs wait again; their checkpoints stay."""
  for name in names:
    tasks = tasks_folder(folder, name)
    ended = outcome(tasks)
    if ended and ended.state == 'failed':
      write_outcome(tasks, ended._replace(state='waiting'))
