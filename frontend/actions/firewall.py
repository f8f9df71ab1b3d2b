"""`firewall`: each host's ports are closed to all but the cluster's hosts, or opened again."""

import contextlib
import re
import time

from common import texts
from frontend import cluster as cluster_lib
from frontend.actions import agreed_addresses, firewall_table
from frontend.connection import hosts
from frontend.errors import HostError

# How long a table is on trial: after that the host lets everybody in as before.
TRIAL_SECS = 60
# How much longer this machine tries to connect again, to say how it ended.
LATE_SECS = 30
RETRY_SECS = 2


def close_ports(console):
  """Prints each host's nftables table; sets it with --apply, removes it with --remove.

  Returns:
    The exit code: 2 where a login cannot do it (no nft, no root), 1 where a host failed otherwise.

  Raises:
    ValueError: flags that contradict each other, or a task at the port of SSH.
  """
  options = console.options
  if options.apply and options.remove:
    raise ValueError('--apply sets the firewall and --remove takes it away; give one of them')
  if not re.fullmatch(r'[A-Za-z0-9_.-]{0,15}', options.interface):
    raise ValueError(
      f'--interface={options.interface!r} is not the name of a network interface, such as wg0'
    )
  if options.remove:
    return open_ports(console, console.hosts)
  tables, failed = _tables(console)
  if not options.apply:
    for host, make in tables.items():
      console.say(f'# {host.name}: {_names(host)}\n{make(0)}')
    return 1 if failed else 0
  tried = console.on_all(lambda host: _try(console, host, tables[host]), list(tables))
  failed += console.failures(tried)
  refused = {host: result['reason'] for host, result in tried if _is_refusal(result)}
  for host, reason in refused.items():
    console.say(
      f'{host.name}: the firewall was not set: {reason}; an '
      f"administrator runs there:\nsudo nft -f - <<'END'\n{tables[host](0)}END"
    )
  on_trial = [h for h, result in tried if h not in refused and not isinstance(result, HostError)]
  failed += _confirm(console, {host: tables[host] for host in on_trial})
  return _exit_code(failed, refused)


def open_ports(console, targets):
  """Takes the table away on hosts where this cluster set it; returns the exit code."""
  session = console.options.tmux_sess
  outcomes = console.on_all(
    lambda host: host.ask('open_ports', own=host.host.address, **console.session()), targets
  )
  failed, refused = console.failures(outcomes), 0
  for host, result in outcomes:
    if isinstance(result, HostError):
      continue
    if _is_refusal(result):
      refused += 1
      console.say(
        f'{host.name}: the firewall was not removed: '
        f'{result["reason"]}; an administrator runs there: '
        f'sudo nft delete table inet {firewall_table.table_name(session)}'
      )
    elif result['removed']:
      console.say(f'{host.name}: the firewall of session {session} is removed')
    else:
      console.say(f'{host.name}: no firewall of session {session} was set from here')
  return _exit_code(failed, refused)


def say_what_is_gone(console):
  """Prints a warning for each host that no longer has the firewall that was set there."""

  def look(host):
    ports = [task.tf_port for task in host.host.tasks]
    return host.ask('firewall_state', own=host.host.address, ports=ports, **console.session())

  for host, result in console.on_all(look):
    if not isinstance(result, HostError) and not result['good']:
      console.say(f'warning: {host.name}: {result["text"]}')


def _exit_code(failed, refused):
  return 1 if failed else 2 if refused else 0


def _is_refusal(result):
  return not isinstance(result, HostError) and bool(result['reason'])


def _names(host):
  return ', '.join(map(cluster_lib.task_name, host.host.tasks))


# ---- What a host's table says. -------------------------------------------------------------------


def _tables(console):
  """({host: function of `trial_secs` that gives the text of its table}, number of failed hosts).

  Hosts are asked only where they know what this machine does not.
  """
  options = console.options
  cells = [host.host.address for host in console.hosts]
  needed = options.apply or options.only_this_user
  if not needed and all(map(agreed_addresses.literal, cells)):
    return {host: _text(console, host, cells, None) for host in console.hosts}, 0
  outcomes = console.on_all(lambda host: _ask_addresses(host, cells))
  failed = console.failures(outcomes)
  replies = {
    host.host.address: None if isinstance(reply, HostError) else reply for host, reply in outcomes
  }
  agreed, problems = agreed_addresses.agree(replies)
  for cell, problem in problems.items():
    console.say(f'{cell}: {texts.printable(problem)}')
  if options.apply and problems:
    console.say('nothing was set, on no host')
    return {}, failed + len(problems)
  tables = {}
  for host, reply in outcomes:
    if host.host.address in agreed:
      user_id = reply['user_id'] if options.only_this_user else None
      tables[host] = _text(console, host, agreed[host.host.address], user_id)
  return tables, failed + len(problems)


def _ask_addresses(host, cells):
  """The host's reply; ValueError for a port that cannot be."""
  reply = host.ask('addresses', names=[c for c in cells if not agreed_addresses.literal(c)])
  ssh_port = reply['ssh_port']
  if ssh_port in [task.tf_port for task in host.host.tasks]:
    raise ValueError(
      f'tf_port {ssh_port} of {host.name} is the port of SSH there, and would be closed; give the '
      'task another one'
    )
  return reply


def _text(console, host, addresses, user_id):
  ports = [task.tf_port for task in host.host.tasks]
  closed = [task.tf_port for task in host.host.tasks if task.job == 'actor']
  all_ports = sorted({task.tf_port for task in console.cluster.tasks})

  def make(trial_secs):
    options = console.options
    return firewall_table.table(
      options.tmux_sess, ports, addresses, options.interface, user_id, all_ports, closed, trial_secs
    )

  return make


# ---- It is set, if this machine still gets in. ---------------------------------------------------


def _try(console, host, make):
  return host.ask('try_table', own=host.host.address, text=make(TRIAL_SECS), **console.session())


def _confirm(console, tables):
  """Sets the tables for good if this machine can connect to all of their hosts again.

  Returns:
    The number of hosts where that failed.
  """
  with contextlib.ExitStack() as stack:
    fresh = {host: _fresh(stack, host) for host in tables}
    outcomes = console.on_all(lambda host: fresh[host].ask('hello'), list(tables))
    lost = {host: error for host, error in outcomes if isinstance(error, HostError)}
    if not lost:
      outcomes = console.on_all(
        lambda host: _keep(console, fresh[host], tables[host]), list(tables)
      )
      for host, result in outcomes:
        if not isinstance(result, HostError):
          console.say(f'{host.name}: {result}')
      return console.failures(outcomes)
  for host, error in lost.items():
    console.say(f'{host.name}: with the firewall this machine cannot connect any more: {error}')
  # One host's table may be in the way to another, so none stays.
  for host, error in console.on_all(lambda host: _take_back(console, host), list(tables)):
    how = f'after {TRIAL_SECS} s; since then {error}' if isinstance(error, HostError) else 'now'
    console.say(f'{host.name}: what was set before is in force again {how}')
  return len(lost)


def _keep(console, host, make):
  """Confirms a host's table; returns what to say of it."""
  tasks = host.host.tasks
  host.ask(
    'keep_table',
    own=host.host.address,
    text=make(0),
    ports=[task.tf_port for task in tasks],
    **console.session(),
  )
  needed = ', '.join(str(task.tf_port) for task in tasks if task.job != 'actor')
  closed = ', '.join(str(task.tf_port) for task in tasks if task.job == 'actor')
  said = [f'only hosts of this cluster reach {needed}'] if needed else []
  said += [f'no other host reaches {closed}'] if closed else []
  return ', '.join(said)


def _fresh(stack, host):
  """The host with a connection of its own, until `stack` closes it."""
  return stack.enter_context(contextlib.closing(hosts.open_host(host.host)))


def _take_back(console, host):
  """Ends the trial on a host; HostError where it could not be reached until after its end."""
  deadline = time.monotonic() + TRIAL_SECS + LATE_SECS
  while True:
    try:
      with contextlib.ExitStack() as stack:
        return _fresh(stack, host).ask('end_trial', **console.session())
    except HostError:
      if time.monotonic() > deadline:
        raise
    time.sleep(RETRY_SECS)
