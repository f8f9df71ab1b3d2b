"""`firewall`: closes each host's TensorFlow ports to all but the cluster's hosts, or opens them."""

import contextlib
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from common import texts
from frontend import cluster as cluster_lib
from frontend.actions import firewall_table
from frontend.connection import hosts
from frontend.console import AnyHost, Console
from frontend.errors import HostError, UserError
from frontend.host_side import nftables

# A new table drops packets for so long only, unless this machine can still connect and confirms it.
TRIAL_SECS = 60
# How long after that this machine goes on trying to connect, to report how the trial ended.
LATE_SECS = 30
RETRY_SECS = 2

# Returns the text of a host's table; the argument is the length of its trial, 0 for none.
MakeTable = Callable[[int], str]


def run(console: Console) -> int:
  """Prints each host's nftables table; sets it with --apply, removes it with --remove.

  Returns:
    The exit code: 2 where a login may not do it (no nft, no root), 1 where a host failed otherwise.

  Raises:
    UserError: contradicting flags, or a task's port is that of SSH.
  """
  options = console.options
  if options.apply and options.remove:
    raise UserError('--apply sets the firewall and --remove takes it away; give one of them')
  if not re.fullmatch(r'[A-Za-z0-9_.-]{0,15}', options.interface):
    raise UserError(
      f'--interface={options.interface!r} is not the name of a network interface, such as wg0'
    )
  if options.remove:
    return remove(console, console.hosts)
  tables, failed = _tables(console)
  if not options.apply:
    for host, make in tables.items():
      console.say(f'# {host.name}: {_task_names(host)}\n{make(0)}')
    return 1 if failed else 0
  tried = console.on_all(lambda host: _try(console, host, tables[host]), list(tables))
  failed += console.failures(tried)
  replies = {host: reply for host, reply in tried if not isinstance(reply, HostError)}
  refused = {host: reply['reason'] for host, reply in replies.items() if reply['reason']}
  for host, reason in refused.items():
    console.say(
      f'{host.name}: the firewall was not set: {reason}; an '
      f"administrator runs there:\nsudo nft -f - <<'END'\n{tables[host](0)}END"
    )
  failed += _confirm(console, {host: tables[host] for host in replies if host not in refused})
  return _exit_code(failed, len(refused))


def remove(console: Console, targets: list[AnyHost]) -> int:
  """Removes the table from the hosts where this cluster set it; returns the exit code as `run`."""
  session = console.options.tmux_sess
  outcomes = console.on_all(
    lambda host: host.ask('open_ports', own=host.host.address, **console.session()), targets
  )
  failed, refused = console.failures(outcomes), 0
  for host, result in outcomes:
    if isinstance(result, HostError):
      continue
    if result['reason']:
      refused += 1
      console.say(
        f'{host.name}: the firewall was not removed: '
        f'{result["reason"]}; an administrator runs there: '
        f'sudo nft delete table inet {nftables.table_name(session)}'
      )
    elif result['removed']:
      console.say(f'{host.name}: the firewall of session {session} is removed')
    else:
      console.say(f'{host.name}: no firewall of session {session} was set from here')
  return _exit_code(failed, refused)


def warn_of_missing(console: Console) -> None:
  """Prints a warning for each host whose firewall was set and is no longer in force."""

  def look(host: AnyHost) -> dict[str, Any]:
    return host.ask(
      'firewall_state', own=host.host.address, ports=_ports(host), **console.session()
    )

  for host, result in console.on_all(look):
    if not isinstance(result, HostError) and not result['good']:
      console.say(f'warning: {host.name}: {result["text"]}')


def _exit_code(failed: int, refused: int) -> int:
  return 1 if failed else 2 if refused else 0


def _task_names(host: AnyHost) -> str:
  return ', '.join(map(cluster_lib.task_name, host.host.tasks))


def _ports(host: AnyHost) -> list[int]:
  return [task.tf_port for task in host.host.tasks]


# ---- The table of each host. ---------------------------------------------------------------------


def _tables(console: Console) -> tuple[dict[AnyHost, MakeTable], int]:
  """Returns ({host: its table}, number of failed hosts).

  Asks the hosts only where they know something that this machine does not.
  """
  options = console.options
  cells = [host.host.address for host in console.hosts]
  needed = options.apply or options.only_this_user
  if not needed and all(map(_is_address, cells)):
    return {host: _table(console, host, cells, None) for host in console.hosts}, 0
  outcomes = console.on_all(lambda host: _ask_addresses(host, cells))
  failed = console.failures(outcomes)
  replies = {
    host.host.address: None if isinstance(reply, HostError) else reply for host, reply in outcomes
  }
  agreed, problems = agreed_addresses(replies)
  for cell, problem in problems.items():
    console.say(f'{cell}: {texts.printable(problem)}')
  if options.apply and problems:
    console.say('nothing was set, on no host')
    return {}, failed + len(problems)
  tables = {}
  for host, reply in outcomes:
    if not isinstance(reply, HostError) and host.host.address in agreed:
      user_id = reply['user_id'] if options.only_this_user else None
      tables[host] = _table(console, host, agreed[host.host.address], user_id)
  return tables, failed + len(problems)


def _ask_addresses(host: AnyHost, cells: list[str]) -> dict[str, Any]:
  """The host's reply; UserError where a task has the port of SSH."""
  reply = host.ask('addresses', names=[cell for cell in cells if not _is_address(cell)])
  ssh_port = reply['ssh_port']
  if ssh_port in _ports(host):
    raise UserError(
      f'tf_port {ssh_port} of {host.name} is the port of SSH there, and would be closed; give the '
      'task another one'
    )
  return reply


def _table(console: Console, host: AnyHost, addresses: list[str], user_id: int | None) -> MakeTable:
  closed = [task.tf_port for task in host.host.tasks if task.job == 'actor']
  all_ports = sorted({task.tf_port for task in console.cluster.tasks})

  def make(trial_secs: int) -> str:
    return firewall_table.table(
      console.options.tmux_sess,
      _ports(host),
      addresses,
      console.options.interface,
      user_id,
      all_ports,
      closed,
      trial_secs,
    )

  return make


# ---- A table is confirmed if this machine can still connect. -------------------------------------


def _try(console: Console, host: AnyHost, make: MakeTable) -> dict[str, Any]:
  return host.ask('try_table', own=host.host.address, text=make(TRIAL_SECS), **console.session())


def _confirm(console: Console, tables: dict[AnyHost, MakeTable]) -> int:
  """Makes the tables permanent if this machine can connect to all of their hosts again.

  Returns:
    The number of hosts where that failed.
  """
  with contextlib.ExitStack() as stack:
    fresh = {host: _connect_again(stack, host) for host in tables}
    outcomes = console.on_all(lambda host: fresh[host].ask('hello'), list(tables))
    lost = {host: error for host, error in outcomes if isinstance(error, HostError)}
    if not lost:
      kept = console.on_all(lambda host: _keep(console, fresh[host], tables[host]), list(tables))
      for host, result in kept:
        if not isinstance(result, HostError):
          console.say(f'{host.name}: {result}')
      return console.failures(kept)
  for host, error in lost.items():
    console.say(f'{host.name}: with the firewall this machine cannot connect any more: {error}')
  # The table of one host may block the way to another (a jump host), so all are removed.
  for host, error in console.on_all(lambda host: _end_trial(console, host), list(tables)):
    how = f'after {TRIAL_SECS} s; since then {error}' if isinstance(error, HostError) else 'now'
    console.say(f'{host.name}: what was set before is in force again {how}')
  return len(lost)


def _keep(console: Console, host: AnyHost, make: MakeTable) -> str:
  """Makes a host's table permanent; returns which ports it closes, in words."""
  host.ask(
    'keep_table', own=host.host.address, text=make(0), ports=_ports(host), **console.session()
  )
  tasks = host.host.tasks
  needed = ', '.join(str(task.tf_port) for task in tasks if task.job != 'actor')
  closed = ', '.join(str(task.tf_port) for task in tasks if task.job == 'actor')
  parts = [f'only hosts of this cluster reach {needed}'] if needed else []
  parts += [f'no other host reaches {closed}'] if closed else []
  return ', '.join(parts)


def _connect_again(stack: contextlib.ExitStack, host: AnyHost) -> AnyHost:
  """The host over a new connection, which `stack` closes."""
  return stack.enter_context(contextlib.closing(hosts.open_host(host.host)))


def _end_trial(console: Console, host: AnyHost) -> dict[str, Any]:
  """Ends the trial on a host; HostError if it stays unreachable until after the trial's end."""
  deadline = time.monotonic() + TRIAL_SECS + LATE_SECS
  while True:
    try:
      with contextlib.ExitStack() as stack:
        return _connect_again(stack, host).ask('end_trial', **console.session())
    except HostError:
      if time.monotonic() > deadline:
        raise
    time.sleep(RETRY_SECS)


# ---- Addresses on which the hosts agree. ---------------------------------------------------------

_REMEDY = 'give its address in the CSV, or correct /etc/hosts here'


def agreed_addresses(
  replies: Mapping[str, dict[str, Any] | None],
) -> tuple[dict[str, list[str]], dict[str, str]]:
  """Returns the addresses of all hosts as each host resolves them, if the hosts agree.

  Each host resolves the names itself. One that resolves a name to another address than the others
  would let a stranger in and keep a host of the cluster out.

  Args:
    replies: {`ip` cell: the host's reply to `addresses` of host_side/nftables.py, or None if it
      did not reply}, for all hosts.

  Returns:
    ({cell: addresses of all hosts} for hosts that agree, {cell: a sentence} for the others that
    replied).
  """
  found, problems = {}, {}
  for cell, reply in replies.items():
    if reply is not None:
      try:
        found[cell] = {name: _resolved(reply, name, name == cell) for name in replies}
      except ValueError as error:
        problems[cell] = str(error)
  for name, reply in replies.items():
    _compare(name, found, reply, problems)
  agreed = {
    cell: list(dict.fromkeys(address for some in names.values() for address in some))
    for cell, names in found.items()
    if cell not in problems
  }
  return agreed, problems


def _is_address(cell: str) -> bool:
  """Whether an `ip` cell is an IP address, which needs no resolving, rather than a name."""
  try:
    return bool(ipaddress.ip_address(cell))
  except ValueError:
    return False


def _resolved(reply: dict[str, Any], name: str, is_own: bool) -> list[str]:
  """Addresses of `name` as one host resolves it; ValueError with a sentence if they are no use."""
  if _is_address(name):
    return [name]
  found = reply['found'].get(name)
  if isinstance(found, str):
    raise ValueError(found)
  addresses = sorted(str(ipaddress.ip_address(one)) for one in found or ())
  if not addresses:
    raise ValueError(f'{name} does not resolve on this host')
  if not is_own and any(map(cluster_lib.is_loopback, addresses)):
    raise ValueError(
      f'{name} is {", ".join(addresses)} on this host, which means this host itself; {_REMEDY}'
    )
  return addresses


def _compare(
  name: str,
  found: dict[str, dict[str, list[str]]],
  own_reply: dict[str, Any] | None,
  problems: dict[str, str],
) -> None:
  """Adds a problem for each host that resolves `name` differently.

  The reference is the addresses of the host with this name; the first other host if it tells none.
  """
  own = {str(ipaddress.ip_address(one)) for one in own_reply['own']} if own_reply else set()
  first = None
  for cell, names in found.items():
    if cell == name or _is_address(name):
      continue
    first = first or cell
    here, on_first = ', '.join(names[name]), ', '.join(found[first][name])
    if own and not own.issuperset(names[name]):
      problems.setdefault(cell, f'{name} is {here} here, which that host does not have; {_REMEDY}')
    elif not own and here != on_first:
      problems.setdefault(cell, f'{name} is {here} here, but {on_first} on {first}; {_REMEDY}')
