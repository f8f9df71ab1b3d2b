"""`firewall`: each host's ports are closed to all but the cluster's hosts, or opened again."""

import ipaddress
import re

from frontend import cluster as cluster_lib
from frontend import firewall, plain_text
from frontend.host_error import HostError


def close_ports(console):
  """Prints each host's nftables table; sets it with --apply, removes it with --remove.

  Returns:
    The exit code: 2 where a login cannot do it (no nft, no root), 1 where a host failed otherwise.

  Raises:
    ValueError: flags that contradict each other.
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
  outcomes = console.on_all(lambda host: _table_of(console, host))
  failed, refused = console.failures(outcomes), 0
  for host, result in outcomes:
    if not isinstance(result, HostError):
      refused += _say_closed(console, host, result)
  return _exit_code(failed, refused)


def open_ports(console, targets):
  """Takes the table away on hosts where this cluster set it; returns the exit code."""
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
        f'{host.name}: the firewall was not removed: {plain_text.printable(result["reason"])}; an '
        f'administrator runs there: {plain_text.printable(result["command"])}'
      )
    elif result['removed']:
      console.say(f'{host.name}: the firewall of session {console.options.tmux_sess} is removed')
    else:
      console.say(
        f'{host.name}: no firewall of session {console.options.tmux_sess} was set from here'
      )
  return _exit_code(failed, refused)


def _exit_code(failed, refused):
  return 1 if failed else 2 if refused else 0


def _table_of(console, host):
  """The host's table: {'text', 'set', 'reason', 'command'}; asks the host only where it must."""
  cells = [other.host.address for other in console.hosts]
  ports = [task.tf_port for task in host.host.tasks]
  only_me = console.options.only_this_user  # Whose number the host alone knows.
  if not console.options.apply and not only_me and all(map(_needs_no_lookup, cells)):
    text = firewall.table(console.options.tmux_sess, ports, cells, console.options.interface)
    return {'text': text, 'set': False, 'reason': None, 'command': None}
  return host.ask(
    'close_ports',
    ports=ports,
    own=host.host.address,
    others=[cell for cell in cells if cell != host.host.address],
    interface=console.options.interface,
    all_ports=sorted({task.tf_port for task in console.cluster.tasks}) if only_me else [],
    apply=console.options.apply,
    **console.session(),
  )


def _needs_no_lookup(cell):
  try:
    return bool(ipaddress.ip_address(cell))
  except ValueError:
    return False


def _say_closed(console, host, result):
  """Says what was done on a host, and what an administrator has to do; returns 1 for a refusal."""
  if result['set']:
    ports = ', '.join(str(task.tf_port) for task in host.host.tasks)
    console.say(f'{host.name}: only hosts of this cluster reach {ports}')
    return 0
  names = ', '.join(map(cluster_lib.task_name, host.host.tasks))
  console.say(f'# {host.name}: {names}\n{result["text"]}')
  if not result['reason']:
    return 0
  console.say(
    f'{host.name}: the firewall was not set: {plain_text.printable(result["reason"])}; an '
    f'administrator runs there: {plain_text.printable(result["command"])}'
  )
  return 1
