"""What a person asks for: check, push, launch, status, attach, logs, stop, plan.

Every action talks to all hosts at once, keeps each host's outcome, and reports all of them.
"""

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

from frontend import cluster as cluster_lib
from frontend import host_check, hosts, on_host, processes, tmux

# The columns of `check`, in the order in which they are found out.
CHECK_ITEMS = hosts.STAGES + (
  'code',
  'packages',
  'flags',
  'gpus',
  'disk',
  'tmux',
  'session',
  'ports',
  'peers',
)
STATUS_KEYS = (
  'task',
  'host',
  'state',
  'uptime_secs',
  'restarts',
  'frames_per_sec',
  'last_seen_secs',
  'last_line',
)
# TensorFlow's import and the first sign of life take seconds; on a crowded machine, minutes.
START_SECS = 120
# How long the chief may take for its checkpoint, and all others to follow it (30 s are promised).
CHIEF_SECS = 120
FOLLOW_SECS = 35
# What absl puts before a message: level, date, time, thread, file and line.
_LOG_PREFIX = r'^[IWEF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] '
POLL_SECS = 0.5
WATCH_SECS = 2.0
# A request that ends tasks waits for them, at most twice on_host.END_SECS.
END_REPLY_SECS = 120


class Frontend:
  """The actions on one cluster.

  Args:
    cluster: a Cluster of frontend/cluster.py.
    options: the frontend's own flags, as attributes.
    training_flags: list of arguments for every task.
    out: where to print.
  """

  def __init__(self, cluster, options, training_flags, out=None):
    self._cluster = cluster
    self._options = options
    self._training_flags = training_flags
    self._out = out or sys.stdout
    self._hosts = [hosts.open_host(host) for host in cluster.hosts]

  def close(self):
    """Ends all connections."""
    for host in self._hosts:
      host.close()

  def say(self, text=''):
    """Prints a line."""
    print(text, file=self._out, flush=True)

  # ---- All hosts at once. ----------------------------------------------------------------------

  def on_all(self, function, targets=None):
    """Calls `function(host)` for every host in threads.

    Returns:
      List of (host, result or the HostError).
    """
    targets = self._hosts if targets is None else targets

    def outcome(host):
      try:
        return function(host)
      except hosts.HostError as error:
        return error

    if not targets:
      return []
    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
      return list(zip(targets, pool.map(outcome, targets)))

  def _failures(self, outcomes):
    """Prints one line for each host that failed; returns how many did."""
    failed = [(host, result) for host, result in outcomes if isinstance(result, hosts.HostError)]
    for host, error in failed:
      self.say(f'{host.name}: {error}')
    return len(failed)

  def _host_of(self, name):
    for host in self._hosts:
      if name in map(cluster_lib.task_name, host.host.tasks):
        return host
    count = {job: sum(task.job == job for task in self._cluster.tasks) for job in cluster_lib.JOBS}
    raise ValueError(
      f'--task={name.replace("-", ":")}: the cluster has '
      + ', '.join(f'{number} {job}' for job, number in count.items())
    )

  def _names(self, host):
    return [cluster_lib.task_name(task) for task in host.host.tasks]

  def _session(self):
    return {'session': self._options.tmux_sess}

  def _session_and_socket(self):
    return {'session': self._options.tmux_sess, 'tmux_socket': self._options.tmux_socket}

  def command(self, action, *extra):
    """The command line of another action on this cluster, ready to paste."""
    program = 'python' if shutil.which('python') == sys.executable else sys.executable
    path = hosts.PROGRAM if os.getcwd() == hosts.CODE else os.path.join(hosts.CODE, hosts.PROGRAM)
    words = [program, path, f'--cluster_csv_path={self._options.cluster_csv_path}']
    if self._options.tmux_sess != 'impala':
      words.append(f'--tmux_sess={self._options.tmux_sess}')
    if self._options.tmux_socket:
      words.append(f'--tmux_socket={self._options.tmux_socket}')
    return shlex.join(words + [f'--action={action}', *extra])

  # ---- check -----------------------------------------------------------------------------------

  def _flag_lists(self, tasks):
    """One list of training flags for each different `flags` cell."""
    cells = dict.fromkeys(tuple(task.flags) for task in tasks)
    return [self._training_flags + list(cell) for cell in cells]

  def flags_problem(self):
    """What experiment.py has against the flags, as one sentence, or None; asked on this machine."""
    for arguments in self._flag_lists(self._cluster.tasks):
      result = subprocess.run(
        [sys.executable, 'experiment.py', '--only_check_args', *arguments],
        cwd=hosts.CODE,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
      )
      lines = result.stderr.strip().splitlines()
      if result.returncode == 2:
        return lines[-1] if lines else 'experiment.py refuses the flags'
      if result.returncode:
        reason = lines[-1] if lines else f'exit {result.returncode}'
        self.say(f'warning: the flags could not be checked on this machine ({reason})')
        return None
    return None

  def _check_host(self, host, hashes):
    """Items of one host that need no other: ({item: (passed, detail)}, versions)."""
    items = {}
    try:
      items['address'] = self._check_address(host)
      if not items['address'][0]:
        return items, {}
      hello = host.ask('hello')
      for stage in hosts.STAGES[1:]:
        items[stage] = (True, hello.get(stage, 'ok'))
      reply = host.ask(
        'check',
        timeout_secs=300,
        hashes=hashes,
        ports=[task.tf_port for task in host.host.tasks],
        devices=[task.cuda_visible_devices for task in host.host.tasks],
        argument_lists=self._flag_lists(host.host.tasks),
        **self._session_and_socket(),
      )
    except hosts.HostError as error:
      stage = error.stage or 'python'
      for passed in hosts.STAGES[: hosts.STAGES.index(stage)]:
        items[passed] = (True, 'ok')
      items[stage] = (False, str(error))
      return items, {}
    items.update((item, tuple(result)) for item, result in reply['items'].items())
    return items, reply['versions']

  def _check_address(self, host):
    passed, text = host_check.check_address(host.host.address, self._options.allow_public_addresses)
    if passed is None:
      # A name that only the hosts know is reached by an alias of ~/.ssh/config; they look it up.
      return isinstance(host, hosts.SshHost), text
    return passed, text

  def check(self):
    """Checks every host; prints the table; returns whether all passed."""
    hashes = host_check.file_hashes(hosts.CODE, source_files(hosts.CODE))
    outcomes = self.on_all(lambda host: self._check_host(host, hashes))
    results = {host: items for host, (items, _) in outcomes}
    compare_versions(results, {host: versions for host, (_, versions) in outcomes})
    self._check_peers(results)
    table, problems = check_report(
      [(host.name, len(host.host.tasks), results[host]) for host in self._hosts]
    )
    self.say(table)
    for problem in problems:
      self.say(problem)
    return not problems

  def _check_peers(self, results):
    """Each host listens on its tasks' ports for a moment; all others connect."""
    able = [host for host in self._hosts if results[host].get('ports', (False,))[0]]
    try:
      self.on_all(
        lambda host: host.ask('listen', ports=[task.tf_port for task in host.host.tasks]), able
      )
      outcomes = self.on_all(
        lambda host: host.ask(
          'reach',
          timeout_secs=300,
          allow_public=self._options.allow_public_addresses,
          addresses=[
            [task.ip, task.tf_port]
            for other in able
            if other is not host
            for task in other.host.tasks
          ],
        ),
        able,
      )
    finally:
      self.on_all(lambda host: host.ask('unlisten'), able)
    for host, result in outcomes:
      problems = [str(result)] if isinstance(result, hosts.HostError) else result['problems']
      missing = len(self._hosts) - len(able)
      results[host]['peers'] = (
        not problems,
        '; '.join(problems)
        or (f'all but {missing} that failed before' if missing else 'all reached'),
      )

  # ---- push ------------------------------------------------------------------------------------

  def push(self):
    """Copies the code to every host; returns the exit code."""
    names = tracked_files(hosts.CODE)
    wheels = wheel_files(self._options.wheelhouse)

    def push_to(host):
      done = [f'{count} files' if (count := host.put(hosts.CODE, names)) else 'the code is here']
      if hosts.makes_venv(host.host):
        if wheels:
          host.put(self._options.wheelhouse, wheels, hosts.WHEELHOUSE)
        host.make_venv(offline=bool(wheels))
        done.append(f'{hosts.VENV_PYTHON} with requirements.txt')
      return f'{", ".join(done)} in {host.workdir}'

    if any(hosts.makes_venv(host.host) for host in self._hosts):
      self.say('installing requirements.txt on the hosts; this takes minutes the first time')
    outcomes = self.on_all(push_to)
    for host, result in outcomes:
      if not isinstance(result, hosts.HostError):
        self.say(f'{host.name}: {result}')
    return 1 if self._failures(outcomes) else 0

  # ---- launch ----------------------------------------------------------------------------------

  def launch(self):
    """Checks, starts every task, waits for their first signs of life; returns the exit code."""
    taken = self.on_all(lambda host: host.ask('has_session', **self._session_and_socket()))
    there = [
      host.name
      for host, result in taken
      if not isinstance(result, hosts.HostError) and result['there']
    ]
    if there:
      self.say(
        f'session {self._options.tmux_sess!r} already exists on {", ".join(there)}; nothing was '
        f'started.\n  see it:    {self.command("status")}\n'
        f'  attach:    {self.command("attach", "--task=learner:0")}\n'
        f'  stop it:   {self.command("stop")}'
      )
      return 1
    if not self._options.skip_check and not self.check():
      self.say('nothing was started (--skip_check starts all the same)')
      return 1
    outcomes = self.on_all(self._launch_on)
    failed = self._failures(outcomes)
    launched = [host for host, result in outcomes if not isinstance(result, hosts.HostError)]
    try:
      failed += self._wait_for_life(launched)
    except KeyboardInterrupt:
      self.say('\nno longer waiting; the tasks go on')
      self._print_commands()
      raise
    if failed and not self._options.keep_going:
      self.say('stopping what was started (--keep_going leaves it)')
      self._end(True, launched)
      return 1
    self._print_commands()
    return 1 if failed else 0

  def _launch_on(self, host):
    return host.ask(
      'launch',
      tasks=[
        {
          'task': cluster_lib.task_name(task),
          'arguments': cluster_lib.task_arguments(self._cluster, task, self._training_flags),
          'environment': cluster_lib.task_environment(task),
        }
        for task in host.host.tasks
      ],
      restart=self._options.restart,
      max_restarts=self._options.max_restarts,
      **self._session_and_socket(),
    )

  def _wait_for_life(self, launched):
    """Waits until every task has written its state file or failed; returns how many failed."""
    waiting = {name for host in launched for name in self._names(host)}
    failed = 0
    deadline = time.monotonic() + START_SECS
    while waiting and time.monotonic() < deadline:
      for host, result in self.on_all(self._status_of, launched):
        if isinstance(result, hosts.HostError):
          lost = waiting & set(self._names(host))
          waiting -= lost
          failed += len(lost)
          self.say(f'{host.name}: {result}')
          launched = [other for other in launched if other is not host]
        else:
          failed += self._note_life(host, result['tasks'], waiting)
      time.sleep(POLL_SECS if waiting else 0)
    for name in sorted(waiting):
      self.say(f'{name}: started, but gave no sign of life within {START_SECS} s')
    return failed

  def _note_life(self, host, rows, waiting):
    failed = 0
    for row in rows:
      if row['task'] not in waiting:
        continue
      bad = row['restarts'] or row['exit_code'] or row['state'] == 'restarting'
      if bad:
        failed += 1
        self.say(f'{row["task"]} on {host.name} failed to start: {row["last_line"]}')
        self._print_log(host, row['task'], 15)
      elif row['seen'] or row['state'] == 'exited 0':
        self.say(f'{row["task"]} runs on {host.name}')
      else:
        continue
      waiting.discard(row['task'])
    return failed

  def _print_commands(self):
    self.say(
      f'\nattach:  {self.command("attach", "--task=learner:0")}\n'
      f'status:  {self.command("status", "--watch")}\n'
      f'stop:    {self.command("stop")}'
    )

  # ---- status ----------------------------------------------------------------------------------

  def _status_of(self, host):
    return host.ask('status', tasks=self._names(host), **self._session())

  def rows(self):
    """One dict with STATUS_KEYS for each task, in the order of the CSV."""
    rows = {}
    for host, result in self.on_all(self._status_of):
      if isinstance(result, hosts.HostError):
        host.close_script()
        result = {
          'tasks': [
            dict.fromkeys(STATUS_KEYS)
            | {'task': name, 'state': 'no answer', 'restarts': 0, 'last_line': str(result)}
            for name in self._names(host)
          ]
        }
      for row in result['tasks']:
        row['host'] = host.name
        rows[row['task']] = {key: row[key] for key in STATUS_KEYS}
    return [rows[cluster_lib.task_name(task)] for task in self._cluster.tasks]

  def status(self):
    """Prints the table, once or again and again; returns the exit code."""
    while True:
      rows = self.rows()
      if self._options.json:
        text = json.dumps(rows, indent=2)
      else:
        text = status_table(rows, shutil.get_terminal_size((160, 24)).columns)
      if self._options.watch and self._out.isatty():
        text = '\x1b[H\x1b[2J' + text
      self.say(text)
      if not self._options.watch:
        return 1 if any(row['state'] == 'no answer' for row in rows) else 0
      time.sleep(WATCH_SECS)

  # ---- attach, logs ----------------------------------------------------------------------------

  def attach(self):
    """Replaces this process by tmux on the task's host."""
    name = self._options.task or 'learner-0'
    host = self._host_of(name)
    words = host.attach_arguments(
      tmux.attach_arguments(self._options.tmux_socket, self._options.tmux_sess, name)
    )
    self.close()
    environment = {key: value for key, value in os.environ.items() if key != 'TMUX'}
    try:
      os.execvpe(words[0], words, environment)
    except FileNotFoundError:
      raise ValueError(f'--action=attach needs the program {words[0]} on this machine') from None

  def _print_log(self, host, name, lines, offset=None):
    reply = host.ask('logs', task=name, lines=lines, offset=offset, **self._session())
    for line in reply['lines']:
      self.say(f'{name}: {line}')
    if offset is None and not reply['lines']:
      self.say(f'{name}: nothing logged so far')
    return reply['offset']

  def logs(self):
    """Prints the last lines of one task or of all; with --follow, those that come."""
    names = (
      [self._options.task]
      if self._options.task
      else [cluster_lib.task_name(task) for task in self._cluster.tasks]
    )
    lines = self._options.lines or (50 if self._options.task else 5)
    offsets, failed = {}, 0
    for name in names:
      try:
        offsets[name] = self._print_log(self._host_of(name), name, lines)
      except hosts.HostError as error:
        failed += 1
        self.say(f'{name}: no answer from {self._host_of(name).name}: {error}')
    while self._options.follow and offsets:
      time.sleep(POLL_SECS)
      for name, offset in offsets.items():
        offsets[name] = self._print_log(self._host_of(name), name, 0, offset)
    return 1 if failed else 0

  # ---- stop ------------------------------------------------------------------------------------

  def stop(self):
    """Ends the cluster, gently unless --now; reports every task's exit; returns the exit code."""
    outcomes = self.on_all(lambda host: host.ask('hold', **self._session()))
    silent = {host for host, result in outcomes if isinstance(result, hosts.HostError)}
    launched = silent or any(result['launched'] for _, result in outcomes)
    if launched and not self._options.now:
      self._ask_chief(silent)
    failed = self._end(self._options.now)
    if launched:
      for row in self.rows():
        self.say(f'{row["task"]:<12} {row["host"]:<20} {row["state"]:<12} {row["last_line"]}')
    else:
      self.say(f'nothing was launched as session {self._options.tmux_sess}')
    return 1 if failed else 0

  def _ask_chief(self, silent):
    """Asks the chief to end the run, and waits until all tasks that answer have ended."""
    chief = self._host_of('learner-0')
    try:
      asked = chief not in silent and chief.ask('ask', task='learner-0', **self._session())['asked']
    except hosts.HostError:
      asked = False
    if not asked:
      self.say('the chief (learner-0) does not run; ending the rest')
      return
    self.say('asked the chief to save a checkpoint and end the run')
    if not processes.wait_until(lambda: 'learner-0' not in self._running(), CHIEF_SECS, POLL_SECS):
      self.say(f'the chief did not end within {CHIEF_SECS} s')
    elif not processes.wait_until(lambda: not self._running(), FOLLOW_SECS, POLL_SECS):
      self.say(
        f'{", ".join(self._running())} did not follow within {FOLLOW_SECS} s; ending the rest'
      )

  def _running(self):
    return [row['task'] for row in self.rows() if row['state'] == 'running']

  def _end(self, now, targets=None):
    """Ends what is left of the session on the hosts; returns how many of them failed."""
    request = {'timeout_secs': END_REPLY_SECS, 'now': now, **self._session_and_socket()}
    return self._failures(self.on_all(lambda host: host.ask('end', **request), targets))

  # ---- plan ------------------------------------------------------------------------------------

  def plan(self):
    """Prints what launch would run where; touches no host. For reading: no shell runs it."""
    for host in self._hosts:
      over = 'here' if isinstance(host, hosts.LocalHost) else 'over SSH'
      self.say(f'{host.name} ({over}), in {on_host.printable(host.workdir)}:')
      for task in host.host.tasks:
        arguments = cluster_lib.task_arguments(self._cluster, task, self._training_flags)
        devices = task.cuda_visible_devices
        setting = [] if devices is None else [f'CUDA_VISIBLE_DEVICES={devices}']
        words = setting + [host.python, 'experiment.py', *arguments]
        self.say(f'  {cluster_lib.task_name(task)}: {shlex.join(words)}')
    return 0


# ---- Plain functions. --------------------------------------------------------------------------


def git_files(code, *patterns):
  """Files that git tracks below `code`, or None where that cannot be told."""
  try:
    result = subprocess.run(
      ['git', '-C', code, 'ls-files', '-z', '--', *patterns],
      capture_output=True,
      text=True,
      check=False,
    )
  except FileNotFoundError:
    return None
  if result.returncode:
    return None
  names = [name for name in result.stdout.split('\0') if name]
  return [name for name in names if os.path.isfile(os.path.join(code, name))]


def tracked_files(code):
  """The files that `push` copies; ValueError when git does not know them."""
  names = git_files(code)
  if not names:
    raise ValueError(
      f'--action=push copies the files that git tracks, and {code} is no git checkout '
      'with committed files'
    )
  return names


def source_files(code):
  """The programs whose contents make up the version of the code."""
  names = git_files(code, '*.py')
  if names is None:
    names = [name for name in os.listdir(code) if name.endswith('.py')]
    names += [
      f'frontend/{name}'
      for name in os.listdir(os.path.join(code, 'frontend'))
      if name.endswith('.py')
    ]
  return sorted(name for name in names if os.path.dirname(name) in ('', 'frontend'))


def wheel_files(folder):
  """The files in a --wheelhouse folder; [] without one."""
  if not folder:
    return []
  if not os.path.isdir(folder):
    raise ValueError(
      f'--wheelhouse={folder} is not a folder; fill one with: pip download -r '
      f'requirements.txt -d {shlex.quote(folder)}'
    )
  names = sorted(name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name)))
  if not names:
    raise ValueError(
      f'--wheelhouse={folder} is empty; fill it with: pip download -r requirements.txt '
      f'-d {shlex.quote(folder)}'
    )
  return names


def compare_versions(results, versions):
  """Marks the hosts whose TensorFlow or Gymnasium differ from the first host's.

  Args:
    results: {host: {item: (passed, detail)}}, changed in place.
    versions: {host: {package: version}}.
  """
  able = [host for host in results if results[host].get('packages', (False,))[0]]
  for host in able[1:]:
    for package, version in versions[host].items():
      first = versions[able[0]][package]
      if version != first:
        results[host]['packages'] = (
          False,
          f'{package} {version}, but {first} on {able[0].name}; install the same on all',
        )


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


def layout(rows):
  """Rows of strings as text in columns."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def duration(secs):
  """`9s`, `3m 07s`, `2h 05m`, `3d 02h`; `-` for None."""
  if secs is None:
    return '-'
  secs = int(secs)
  if secs < 60:
    return f'{secs}s'
  if secs < 3600:
    return f'{secs // 60}m {secs % 60:02d}s'
  if secs < 86400:
    return f'{secs // 3600}h {secs // 60 % 60:02d}m'
  return f'{secs // 86400}d {secs // 3600 % 24:02d}h'


def status_table(rows, width):
  """The rows of `status` as text, lines cut to `width`."""
  cells = [['task', 'host', 'state', 'uptime', 'restarts', 'frames/s', 'seen', 'last line']]
  for row in rows:
    speed = row['frames_per_sec']
    seen = row['last_seen_secs']
    cells.append(
      [
        row['task'],
        row['host'],
        row['state'],
        duration(row['uptime_secs']),
        str(row['restarts']),
        '-' if speed is None else f'{speed:,.0f}',
        '-' if seen is None else f'{duration(seen)} ago',
        re.sub(_LOG_PREFIX, '', row['last_line'] or ''),
      ]
    )
  return '\n'.join(line[:width] for line in layout(cells).splitlines())
