"""`check`: whether the cluster can run, as a table of hosts and a sentence for each failure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common import background, ports
from common.texts import layout
from frontend import checkout
from frontend import cluster as cluster_lib
from frontend.connection import hosts
from frontend.console import AnyHost, Console
from frontend.errors import STAGES, HostError
from frontend.host_side import host_check

# The columns of the table, in the order in which they are checked.
CHECK_ITEMS = STAGES + (
  'code',
  'packages',
  'flags',
  'gpus',
  'disk',
  'tmux',
  'session',
  'ports',
  'firewall',
  'peers',
)
# A host imports TensorFlow and plays a step of the environment to check the flags.
REPLY_SECS = 300

# {item of CHECK_ITEMS: (whether it passed, details)} of one host.
Items = dict[str, tuple[bool, str]]
# {package: version, or None if it is not installed} of one host.
Versions = dict[str, str | None]


def run(console: Console) -> int:
  """Checks every host and prints the table; returns the exit code."""
  return 0 if all_pass(console) else 1


def all_pass(console: Console) -> bool:
  """Checks every host and prints the table; returns whether all passed."""
  hashes = host_check.file_hashes(hosts.CODE, checkout.source_files(hosts.CODE))
  pinned = checkout.pinned_versions(hosts.CODE)
  outcomes = background.on_each(
    lambda host: (host, _check_host(console, host, hashes, pinned)), console.hosts
  )
  results = {host: items for host, (items, _) in outcomes}
  compare_versions(results, {host: versions for host, (_, versions) in outcomes}, pinned)
  open_here = _check_peers(console, results)
  table, problems = check_report(
    [(host.name, len(host.host.tasks), results[host]) for host in console.hosts]
  )
  console.say(table)
  for problem in problems:
    console.say(problem)
  for host, (_, versions) in outcomes:
    others = checkout.other_versions(versions, pinned)
    if others:
      console.say(f'warning: {host.name}: not the versions of {checkout.LOCK}: {", ".join(others)}')
  if open_here:
    console.say(
      f'warning: this machine is no host of the cluster and reaches {", ".join(open_here)}, so '
      'others may as well, and run programs there; --action=firewall prints what closes the ports'
    )
  return not problems


# ---- Flags. ------------------------------------------------------------------------------------


def flags_problem(console: Console) -> str | None:
  """Returns why experiment.py refuses the training flags, a sentence, or None.

  Runs it on this machine; prints a warning if it cannot run here.
  """
  for arguments in _flag_lists(console, console.cluster.tasks):
    code, _, error = checkout.run_experiment(hosts.CODE, ['--only_check_args', *arguments])
    if code == 2:
      return error or 'experiment.py refuses the flags'
    if code:
      reason = error or f'exit {code}'
      console.say(f'warning: the flags could not be checked on this machine ({reason})')
      return None
  return None


def _flag_lists(console: Console, tasks: Iterable[cluster_lib.Task]) -> list[list[str]]:
  """One list of training flags for each different `flags` cell; hosts of a sweep have none."""
  cells = dict.fromkeys(tuple(task.flags) for task in tasks) or {(): None}
  return [console.training_flags + list(cell) for cell in cells]


# ---- Hosts. ------------------------------------------------------------------------------------


def _check_host(
  console: Console, host: AnyHost, hashes: Mapping[str, str | None], pinned: Mapping[str, set[str]]
) -> tuple[Items, Versions]:
  """Runs all checks of one host that involve no other host."""
  items: Items = {}
  try:
    items['address'] = _check_address(console, host)
    if not items['address'][0]:
      return items, {}
    hello = host.ask('hello')
    for stage in STAGES[1:]:
      items[stage] = (True, hello.get(stage, 'ok'))
    reply = host.ask(
      'check',
      timeout_secs=REPLY_SECS,
      hashes=hashes,
      packages=sorted(pinned),
      ports=_ports(host),
      devices=[task.cuda_visible_devices for task in host.host.tasks],
      argument_lists=_flag_lists(console, host.host.tasks),
      own=host.host.address,
      **console.session_and_socket(),
    )
  except HostError as error:
    stage = error.stage or 'python'
    for passed in STAGES[: STAGES.index(stage)]:
      items[passed] = (True, 'ok')
    items[stage] = (False, str(error))
    return items, {}
  items.update((item, tuple(result)) for item, result in reply['items'].items())
  return items, reply['versions']


def _check_address(console: Console, host: AnyHost) -> tuple[bool, str]:
  allow_public = console.options.allow_public_addresses
  passed, text = host_check.check_address(host.host.address, allow_public)
  if passed is None:
    # An alias of ~/.ssh/config may lead to a host whose name only the other hosts can resolve.
    return isinstance(host, hosts.SshHost), text
  return passed, text


def _ports(host: AnyHost) -> list[int]:
  return [task.tf_port for task in host.host.tasks]


def _servers(host: AnyHost) -> list[cluster_lib.Task]:
  """The tasks of a host to which others connect; nobody connects to an actor."""
  return [task for task in host.host.tasks if task.job != 'actor']


def _check_peers(console: Console, results: dict[AnyHost, Items]) -> list[str]:
  """Each host listens on its tasks' ports for a moment, and all others connect.

  Returns:
    Each `address:port` that this machine reaches though it is no host of the cluster.
  """
  able = [host for host in console.hosts if results[host].get('ports', (False,))[0]]
  console.on_all(lambda host: host.ask('listen', ports=_ports(host)), able)
  outcomes = console.on_all(
    lambda host: host.ask(
      'reach',
      timeout_secs=REPLY_SECS,
      allow_public=console.options.allow_public_addresses,
      addresses=[
        [task.ip, task.tf_port] for other in able if other is not host for task in _servers(other)
      ],
    ),
    able,
  )
  open_here = _reached_from_outside(console, able)
  # If this fails, the ports are closed when the conversation ends.
  console.on_all(lambda host: host.ask('unlisten'), able)
  for host, result in outcomes:
    problems = [str(result)] if isinstance(result, HostError) else result['problems']
    missing = len(console.hosts) - len(able)
    results[host]['peers'] = (
      not problems,
      '; '.join(problems)
      or (f'all but {missing} that failed before' if missing else 'all reached'),
    )
  return open_here


def _reached_from_outside(console: Console, listening: Iterable[AnyHost]) -> list[str]:
  """Each `address:port` that this machine reaches; [] if it is a host of the cluster."""
  if any(isinstance(host, hosts.LocalHost) for host in console.hosts):
    return []
  tasks = [task for host in listening for task in _servers(host)]
  reached = background.on_each(lambda task: ports.accepts(task.ip, task.tf_port), tasks)
  return [cluster_lib.host_port(task) for task, is_open in zip(tasks, reached) if is_open]


def compare_versions(
  results: dict[Any, Items],
  versions: Mapping[Any, Versions],
  pinned: Mapping[str, set[str]] | None = None,
) -> None:
  """Fails `packages` of each host whose packages differ from the first host's.

  Hosts with different Pythons may differ where the lock has a version for each Python.

  Args:
    results: {host: its items}, changed in place.
    versions: {host: its versions}.
    pinned: {package: versions in the lock}, or None without a lock.
  """
  able = [host for host in results if results[host].get('packages', (False,))[0]]
  for host in able[1:]:
    different = []
    for package, version in versions[host].items():
      first = versions[able[0]].get(package)
      as_locked = {first, version} <= (pinned or {}).get(package, set())
      if None not in (first, version) and version != first and not as_locked:
        different.append(f'{package} {version}, but {first} on {able[0].name}')
    if different:
      results[host]['packages'] = (False, '; '.join(different) + '; install the same on all')


def check_report(rows: Sequence[tuple[str, int, Items]]) -> tuple[str, list[str]]:
  """Returns the table of `check`, and a sentence for each failure.

  Args:
    rows: a list of (host name, number of tasks, items).
  """
  cells = [['host', 'tasks', *CHECK_ITEMS]]
  problems = []
  for name, tasks, items in rows:
    words = []
    for item in CHECK_ITEMS:
      passed, detail = items.get(item, (None, ''))
      words.append('-' if passed is None else 'ok' if passed else 'FAIL')
      if passed is False:
        problems.append(f'{name}, {item}: {detail}')
    cells.append([name, str(tasks), *words])
  return layout(cells), problems
