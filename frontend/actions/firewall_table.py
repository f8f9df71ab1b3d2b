"""The text of the nftables table that closes a cluster's ports on one host to strangers.

TensorFlow's server listens on every interface and has no authentication, so the kernel has to
decide who may connect. Nothing is looked up or set here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from frontend.host_side.nftables import removal, table_name, trial_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def table(
  session: str,
  ports: Sequence[int],
  addresses: Iterable[str],
  interface: str = '',
  user_id: int | None = None,
  all_ports: Sequence[int] = (),
  closed: Sequence[int] = (),
  trial_secs: int = 0,
) -> str:
  """Returns the input of `nft -f` that closes the ports of one host, replacing an earlier table.

  In nftables a drop is final, and an accept ends only the chains of this table, so the host's other
  rules still apply. Packets of existing connections are filtered as well, which cuts off strangers
  who have already connected.

  Args:
    session: name of the session.
    ports: `tf_port`s of this host.
    addresses: IPv4 and IPv6 addresses that may connect. Loopback addresses need no rule: what a
      host sends to itself, at any of its addresses, arrives over `lo`.
    interface: the only interface over which these addresses may connect; '' for any.
    user_id: the only user of this host, beside root, whose programs may connect to the cluster's
      ports, also over loopback; None for all users.
    all_ports: `tf_port`s of all hosts. Containers and virtual machines on this host, which use its
      address, may not connect to them.
    closed: those of `ports` that no other host needs (of actors).
    trial_secs: if not 0, the table is a second one that stops filtering after this many seconds, by
      the kernel's clock.
  """
  found = sorted({ipaddress.ip_address(address) for address in addresses}, key=_order)
  found = [ip for ip in found if not ip.is_loopback]
  open_to_cluster = sorted({*ports} - {*closed})
  drop = 'meta l4proto @trial drop' if trial_secs else 'drop'
  over = f'iifname "{interface}" ' if interface else ''
  rules = ['iif "lo" accept']
  if open_to_cluster:
    for some in _selections('saddr', found):
      rules.append(f'{over}{some} tcp dport {_braces(open_to_cluster)} accept')
  rules.append(f'tcp dport {_braces(sorted({*ports}))} {drop}')
  every_port = sorted({*ports, *all_ports})
  chains = [('input', rules), ('forward', _forwarded(found, ports, every_port, over, drop))]
  if user_id is not None:
    chains.append(('output', _sent(found, every_port, user_id, drop)))
  name = trial_name(session) if trial_secs else table_name(session)
  return '\n'.join([
    removal(name) + f'table inet {name} {{',
    *(_timer(trial_secs) if trial_secs else ()),
    *(line for hook, rules in chains for line in _chain(hook, rules)),
    '}',
  ]) + '\n'  # fmt: skip


def _forwarded(
  addresses: Sequence[Address],
  ports: Sequence[int],
  every_port: Sequence[int],
  over: str,
  drop: str,
) -> list[str]:
  """Returns rules for packets that this host forwards.

  Packets of the cluster's hosts may pass, as this host may route between them. A packet for a
  container that is published at a port of this host already has the container's own port, so the
  rule compares the original one.
  """
  return [
    *(f'{over}{some} accept' for some in _selections('saddr', addresses)),
    *(f'{some} tcp dport {_braces(every_port)} {drop}' for some in _selections('daddr', addresses)),
    'meta l4proto tcp ct status dnat ct direction original ct original proto-dst '
    f'{_braces(sorted({*ports}))} {drop}',
  ]


def _sent(
  addresses: Sequence[Address], every_port: Sequence[int], user_id: int, drop: str
) -> list[str]:
  """Returns rules that keep other users of this host from the cluster's ports."""
  users = _braces(sorted({0, user_id}))
  return [
    f'{place} tcp dport {_braces(every_port)} meta skuid != {users} {drop}'
    for place in ('oif "lo"', *_selections('daddr', addresses))
  ]


def _timer(secs: int) -> list[str]:
  """Returns a set whose only element expires; rules that refer to it stop matching then."""
  return [
    '  set trial {',
    '    type inet_proto; flags timeout;',
    f'    elements = {{ tcp timeout {secs}s }}',
    '  }',
  ]


def _chain(hook: str, rules: Iterable[str]) -> list[str]:
  return [
    f'  chain {hook} {{',
    f'    type filter hook {hook} priority -10; policy accept;',
    *(f'    {rule}' for rule in rules),
    '  }',
  ]


def _selections(field: str, addresses: Sequence[Address]) -> list[str]:
  """Returns an expression per address family that matches packets from or to the addresses.

  Args:
    field: 'saddr' or 'daddr'.
    addresses: of both families.
  """
  families = {4: 'ip', 6: 'ip6'}
  return [
    f'{families[version]} {field} {_braces(some)}'
    for version in families
    if (some := [ip for ip in addresses if ip.version == version])
  ]


def _order(ip: Address) -> tuple[int, int]:
  return ip.version, int(ip)


def _braces(values: Iterable[object]) -> str:
  return '{ ' + ', '.join(map(str, values)) + ' }'
