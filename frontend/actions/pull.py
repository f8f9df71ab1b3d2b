"""`pull`: what a run has written comes from the chief's host to a folder of this machine."""

import json
import os
import re
import time

from common import texts
from frontend.connection import fetching, hosts
from frontend.errors import HostError

RECORD = 'run.json'
# What is always fetched, the record first: it tells whose folder it is.
RECORDS = (
  RECORD, 'metrics.csv', 'episodes.csv', 'learning_curve.png', 'evaluation.json', 'evaluations.csv'
)  # fmt: skip
# Which checkpoints there are; TensorFlow looks here for the newest.
INDEX = 'checkpoint'
# Which of them is best, and what each is worth; a run of an earlier version has none.
LIST = 'checkpoints.json'
# The chief removes old checkpoints, perhaps between the look at its folder and the copy.
ATTEMPTS = 5


def pull(console):
  """Fetches what changed since the last time; returns the exit code.

  Raises:
    ValueError: a --to that cannot be used or holds another run, or no run is known.
    HostError: the host does not answer, or a file cannot be read or written.
  """
  target = console.options.to
  if not target:
    raise ValueError('--action=pull needs a folder to fetch to, for example --to=results/')
  if os.path.exists(target) and not os.path.isdir(target):
    raise ValueError(f'--to={target} is a file, not a folder')
  chief = console.host_of('learner-0')
  logdir = run_folder(console, chief)
  if isinstance(chief, hosts.LocalHost) and os.path.realpath(logdir) == os.path.realpath(target):
    raise ValueError(f"--to={target} is the run's own folder; name another")
  with chief.files() as files:
    run = _Run(files, logdir, target, console.say)
    run.fetch_records()
    run.fetch_checkpoints(console.options.checkpoints)
  what = f'{run.fetched} files' if run.fetched else 'nothing new'
  console.say(f'{what} from {chief.name}, {texts.printable(logdir)}, in {target}')
  return 0


def run_folder(console, chief):
  """The run's folder on the chief's host; ValueError where none is known."""
  logdir = chief.ask('logdir', **console.session()).get('logdir')
  if not logdir or not isinstance(logdir, str):
    raise ValueError(
      f'no run of session {console.options.tmux_sess} is known on {chief.name}: '
      'it was not launched there, or its chief did not come to choose a logdir'
    )
  return logdir


class _Run:
  """A run's folder on its host, and the folder here that follows it.

  Attributes:
    fetched: how many files were fetched so far.
  """

  def __init__(self, files, logdir, target, say):
    self._files, self._logdir, self._target, self._say = files, logdir, target, say
    self.fetched = 0

  def fetch_records(self):
    """Fetches all but checkpoints; ValueError where the folder here is that of another run."""
    try:
      record = fetching.read(self._files, self._there(RECORD))
    except fetching.Missing:
      raise HostError('', f'{self._logdir} has no {RECORD}: the run has not begun') from None
    if os.path.isdir(self._target):
      refuse_other_run(self._target, record)
    try:
      os.makedirs(self._target, exist_ok=True)
    except OSError as error:
      raise ValueError(f'--to={self._target} cannot be made: {error.strerror}') from None
    fetching.remove_leftovers(self._target, time.time())
    listing = self._files.listing(self._logdir)
    self._fetch([name for name in RECORDS if name in listing], listing)

  def fetch_checkpoints(self, which):
    """Fetches checkpoints: `none`, the `last`, the `best` or `all`."""
    for _ in range(0 if which == 'none' else ATTEMPTS):
      try:
        index = fetching.read(self._files, self._there(INDEX))
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

  def _best(self):
    """The name of the best checkpoint; HostError where it is not known."""
    try:
      best = json.loads(fetching.read(self._files, self._there(LIST)))['best']
    except (fetching.Missing, ValueError, TypeError, KeyError, RecursionError):
      best = None
    if not best or not isinstance(best, str):
      raise HostError(
        '', f'{self._logdir} has no best checkpoint so far: none was saved after 100 games'
      )
    return os.path.basename(best)

  def _put_index(self, index):
    """After the files that it names, and as it was before they were read."""
    if INDEX in os.listdir(self._target):
      with open(self._here(INDEX), 'rb') as file:
        if file.read() == index:
          return
    fetching.write(index, self._here(INDEX))
    self._count(INDEX, len(index))

  def _fetch(self, names, listing):
    here = fetching.LocalFiles().listing(self._target)
    for name in names:
      if here.get(name) != listing[name]:
        self._count(name, fetching.fetch(self._files, self._there(name), self._here(name)))

  def _count(self, name, size):
    self.fetched += 1
    self._say(f'{name}  {size:,} bytes')

  def _there(self, name):
    return os.path.join(self._logdir, name)

  def _here(self, name):
    return os.path.join(self._target, name)


def refuse_other_run(target, record):
  """Raises ValueError unless a folder here may take the run whose run.json is `record` (bytes)."""
  path = os.path.join(target, RECORD)
  if not os.path.exists(path):
    strange = [name for name in (*RECORDS, INDEX) if os.path.exists(os.path.join(target, name))]
    if strange:
      raise ValueError(
        f'--to={target} holds {strange[0]} of a run that is not known (no {RECORD}); name another'
      )
    return
  with open(path, 'rb') as file:
    ours = _first_start(file.read())
  if ours is None or ours != _first_start(record):
    raise ValueError(f'--to={target} holds another run; give each run a folder of its own')


def _first_start(record):
  """What a run.json says of the run's first start, which later starts leave as it is."""
  try:
    start = json.loads(record)
    starts = start.pop('starts', [])
    return starts[0] if starts else start
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
    return None


def checkpoint_files(index, listing, which, best=None):
  """Names of the files of whole checkpoints, each one's own `.index` last.

  Args:
    index: text of the file INDEX.
    listing: names in the folder.
    which: `last`, `best` or `all`.
    best: name of the best.

  Raises:
    fetching.Missing: the one that is asked for is not there (any more).
  """
  # TensorFlow gives a checkpoint its .index at last.
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
