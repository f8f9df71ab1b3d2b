"""`pull`: fetches a run's records and checkpoints from the chief's host, if they changed."""

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from common import texts
from frontend.connection import fetching, hosts
from frontend.console import AnyHost, Console
from frontend.errors import HostError, UserError

RECORD = 'run.json'
# Always fetched; run.json first, since it identifies the run.
RECORDS = (
  RECORD, 'metrics.csv', 'episodes.csv', 'learning_curve.png', 'evaluation.json', 'evaluations.csv',
  'population.jsonl',
)  # fmt: skip
# TensorFlow's list of checkpoints, with the newest.
INDEX = 'checkpoint'
# The best checkpoint, and the return of each; missing in runs of earlier versions.
LIST = 'checkpoints.json'
# The chief may remove an old checkpoint between the listing and the copy.
ATTEMPTS = 5


def run(console: Console) -> int:
  """Fetches what changed since the last pull; returns the exit code.

  Raises:
    UserError: --to cannot be used or holds another run, or the session has no run.
    HostError: the host does not answer, or a file cannot be read or written.
  """
  target = console.options.to
  if not target:
    raise UserError('--action=pull needs a folder to fetch to, for example --to=results/')
  if os.path.exists(target) and not os.path.isdir(target):
    raise UserError(f'--to={target} is a file, not a folder')
  chief = console.host_of('learner-0')
  logdir = run_folder(console, chief)
  if isinstance(chief, hosts.LocalHost) and os.path.realpath(logdir) == os.path.realpath(target):
    raise UserError(f"--to={target} is the run's own folder; name another")
  with chief.files() as files:
    fetched = RunCopy(files, logdir, target, console.say)
    fetched.fetch_records()
    fetched.fetch_checkpoints(console.options.checkpoints)
  what = f'{fetched.count} files' if fetched.count else 'nothing new'
  console.say(f'{what} from {chief.name}, {texts.printable(logdir)}, in {target}')
  return 0


def run_folder(console: Console, chief: AnyHost) -> str:
  """Returns the run's folder on the chief's host; raises UserError if the session has no run."""
  logdir = chief.ask('logdir', **console.session()).get('logdir')
  if not logdir or not isinstance(logdir, str):
    raise UserError(
      f'no run of session {console.options.tmux_sess} is known on {chief.name}: '
      'it was not launched there, or its chief did not come to choose a logdir'
    )
  return logdir


class RunCopy:
  """A run's folder on its host, and its copy on this machine.

  Args:
    files: reads files of the host.
    logdir: the run's folder there.
    target: the copy's folder here.
    say: prints a line.

  Attributes:
    count: number of files fetched so far.
  """

  def __init__(
    self, files: fetching.LocalFiles, logdir: str, target: str, say: Callable[[str], Any]
  ):
    self._files, self._logdir, self._target, self._say = files, logdir, target, say
    self.count = 0

  def fetch_records(self) -> None:
    """Fetches all but checkpoints; raises UserError if the copy is of another run."""
    try:
      record = fetching.read(self._files, self._on_host(RECORD))
    except fetching.Missing:
      raise HostError('', f'{self._logdir} has no {RECORD}: the run has not begun') from None
    if os.path.isdir(self._target):
      refuse_other_run(self._target, record)
    try:
      os.makedirs(self._target, exist_ok=True)
    except OSError as error:
      raise UserError(f'--to={self._target} cannot be made: {error.strerror}') from None
    fetching.remove_leftovers(self._target, time.time())
    listing = self._files.listing(self._logdir)
    self._fetch([name for name in RECORDS if name in listing], listing)

  def fetch_checkpoints(self, which: str) -> None:
    """Fetches checkpoints: `none`, the `last`, the `best` or `all`."""
    for _ in range(0 if which == 'none' else ATTEMPTS):
      try:
        index = fetching.read(self._files, self._on_host(INDEX))
      except fetching.Missing:
        raise HostError('', f'{self._logdir} has no checkpoint so far') from None
      try:
        listing = self._files.listing(self._logdir)
        best = self._best() if which == 'best' else None
        text = index.decode(errors='replace')
        names = checkpoint_files(text, listing, which, best)
        self._fetch([*names, LIST] if LIST in listing else names, listing)
      except fetching.Missing:
        continue
      self._put_index(index)
      return
    if which != 'none':
      raise HostError('', f'the checkpoints in {self._logdir} change while they are read')

  def _best(self) -> str:
    """The name of the best checkpoint; HostError if there is none."""
    try:
      best = json.loads(fetching.read(self._files, self._on_host(LIST)))['best']
    except (fetching.Missing, ValueError, TypeError, KeyError, RecursionError):
      best = None
    if not best or not isinstance(best, str):
      raise HostError(
        '', f'{self._logdir} has no best checkpoint so far: none was saved after 100 games'
      )
    return os.path.basename(best)

  def _put_index(self, index: bytes) -> None:
    """Writes INDEX last, as read before the listing, so that it names checkpoints that are here."""
    if INDEX in os.listdir(self._target):
      with open(self._copy_of(INDEX), 'rb') as file:
        if file.read() == index:
          return
    fetching.write(index, self._copy_of(INDEX))
    self._count(INDEX, len(index))

  def _fetch(self, names: Iterable[str], listing: Mapping[str, fetching.Version]) -> None:
    here = fetching.LocalFiles().listing(self._target)
    for name in names:
      if here.get(name) != listing[name]:
        self._count(name, fetching.fetch(self._files, self._on_host(name), self._copy_of(name)))

  def _count(self, name: str, size: int) -> None:
    self.count += 1
    self._say(f'{name}  {size:,} bytes')

  def _on_host(self, name: str) -> str:
    return os.path.join(self._logdir, name)

  def _copy_of(self, name: str) -> str:
    return os.path.join(self._target, name)


def refuse_other_run(target: str, record: bytes) -> None:
  """Raises UserError if the folder holds another run.

  Args:
    target: a folder of this machine.
    record: the run.json of the run to be fetched.
  """
  path = os.path.join(target, RECORD)
  if not os.path.exists(path):
    strange = [name for name in (*RECORDS, INDEX) if os.path.exists(os.path.join(target, name))]
    if strange:
      raise UserError(
        f'--to={target} holds {strange[0]} of a run that is not known (no {RECORD}); name another'
      )
    return
  with open(path, 'rb') as file:
    ours = _first_start(file.read())
  if ours is None or ours != _first_start(record):
    raise UserError(f'--to={target} holds another run; give each run a folder of its own')


def _first_start(record: bytes) -> Any:
  """The first start in a run.json, which identifies the run; None if it is unreadable."""
  try:
    start = json.loads(record)
    starts = start.pop('starts', [])
    return starts[0] if starts else start
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
    return None


def checkpoint_files(
  index: str, listing: Collection[str], which: str, best: str | None = None
) -> list[str]:
  """Returns the names of the files of complete checkpoints, each one's `.index` last.

  Args:
    index: text of the file INDEX.
    listing: names in the folder.
    which: `last`, `best` or `all`.
    best: name of the best checkpoint.

  Raises:
    fetching.Missing: the checkpoint has been removed.
  """
  # TensorFlow writes a checkpoint's .index last.
  whole = [name.removesuffix('.index') for name in listing if name.endswith('.index')]
  if which != 'all':
    named = re.search(r'^model_checkpoint_path: "(.*)"$', index, re.MULTILINE)
    last = os.path.basename(named[1]) if named else ''
    asked = best if which == 'best' else last
    if asked not in whole:
      raise fetching.Missing('', f'there is no checkpoint {asked}')
    whole = [asked]
  parts = re.compile(r'(.+)\.(data-\d+-of-\d+|index)')
  whole = set(whole)
  return sorted(name for name in listing if (part := parts.fullmatch(name)) and part[1] in whole)
