"""`check`: whether the cluster can run, as a table of hosts and a sentence for each failure."""

from common import background, ports
from common.texts import layout
from frontend import asking, code_files, lock_file
from frontend import cluster as cluster_lib
from frontend.connection import hosts
from frontend.errors import STAGES, HostError
from frontend.host_side import host_check

# The columns of `check`, in the order in which they are found out.
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


def check(console):
  """Checks every host; prints the table; returns the exit code."""
  return 0 if all_pass(console) else 1


def all_pass(console):
  """Checks every host; prints the table; returns whether all passed."""
  hashes = host_check.file_hashes(hosts.CODE, code_files.source_files(hosts.CODE))
  pinned = lock_file.pinned(hosts.CODE)
  outcomes = console.on_all(lambda host: _check_host(console, host, hashes, pinned))
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
    others = lock_file.differences(versions, pinned)
    if others:
      console.say(
        f'warning: {host.name}: not the versions of {lock_file.NAME}: {", ".join(others)}'
      )
  if open_here:
    console.say(
      f'warning: this machine is no host of the cluster and reaches {", ".join(open_here)}, so '
      'others may as well, and run programs there; --action=firewall prints what closes the ports'
    )
  return not problems


# ---- Flags. ------------------------------------------------------------------------------------


def flags_problem(console):
  """What experiment.py has against the flags, as one sentence, or None; asked on this machine."""
  for arguments in _flag_lists(console, console.cluster.tasks):
    code, _, said = asking.experiment(['--only_check_args', *arguments])
    if code == 2:
      return said or 'experiment.py refuses the flags'
    if code:
      reason = said or f'exit {code}'
      console.say(f'warning: the flags could not be checked on this machine ({reason})')
      return None
  return None


def _flag_lists(console, tasks):
  """One list of training flags for each different `flags` cell."""
  cells = dict.fromkeys(tuple(task.flags) for task in tasks)
  return [console.training_flags + list(cell) for cell in cells]


# ---- Hosts. ------------------------------------------------------------------------------------


def _check_host(console, host, hashes, pinned):
  """Items of one host that need no other: ({item: (passed, detail)}, versions)."""
  items = {}
  try:
    items['address'] = _check_address(console, host)
    if not items['address'][0]:
      return items, {}
    hello = host.ask('hello')
    for stage in STAGES[1:]:
      items[stage] = (True, hello.get(stage, 'ok'))
    reply = host.ask(
      'check',
      timeout_secs=300,
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


def _check_address(console, host):
  allow_public = console.options.allow_public_addresses
  passed, text = host_check.check_address(host.host.address, allow_public)
  if passed is None:
    # A name that only the hosts know is reached by an alias of ~/.ssh/config; they look it up.
    return isinstance(host, hosts.SshHost), text
  return passed, text


def _ports(host):
  return [task.tf_port for task in host.host.tasks]


def _reached(host):
  """The tasks of a host to which others connect; nobody connects to an actor."""
  return [task for task in host.host.tasks if task.job != 'actor']


def _check_peers(console, results):
  """Each host listens on its tasks' ports for a moment; all others connect.

  Returns:
    The `address:port`s that this machine reaches though it is no host of the cluster.
  """
  able = [host for host in console.hosts if results[host].get('ports', (False,))[0]]
  console.on_all(lambda host: host.ask('listen', ports=_ports(host)), able)
  outcomes = console.on_all(
    lambda host: host.ask(
      'reach',
      timeout_secs=300,
      allow_public=console.options.allow_public_addresses,
      addresses=[
        [task.ip, task.tf_port] for other in able if other is not host for task in _reached(other)
      ],
    ),
    able,
  )
  open_here = _reached_by_a_stranger(console, able)
  # Where it does not come to this, the ports are closed with the conversation.
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


def _reached_by_a_stranger(console, listening):
  """The `address:port`s that this machine reaches, where it is no host of the cluster."""
  if any(isinstance(host, hosts.LocalHost) for host in console.hosts):
    return []
  tasks = [task for host in listening for task in _reached(host)]
  reached = background.on_each(lambda task: ports.accepts(task.ip, task.tf_port), tasks)
  return [cluster_lib.host_port(task) for task, there in zip(tasks, reached) if there]


def compare_versions(results, versions, pinned=None):
  """Marks the hosts whose packages differ from the first host's.

  Where the lock has a version for each Python, hosts with different Pythons may differ by that.

  Args:
    results: {host: {item: (passed, detail)}}, changed in place.
    versions: {host: {package: version or None}}.
    pinned: {package: versions that the lock allows}, or None without one.
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


def check_report(rows):
  """The table of `check`.

  Args:
    rows: list of (host, number of tasks, {item: (passed, detail)}).

  Returns:
    (text, list of one sentence for each failure).
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
