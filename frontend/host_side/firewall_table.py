"""What closes a cluster's ports to strangers on one host: the text of an nftables table.

TensorFlow's server listens on every interface and asks nobody for a password, so the kernel has to
ask who comes. Pure: nothing is looked up or set here.
"""

import ipaddress


def table_name(session):
  """The name of a session's table; its family is inet."""
  return f'impala-{session}'


def trial_name(session):
  """The name of the table that is on trial; no session's own, which has no dot."""
  return f'{table_name(session)}.trial'


def removal(*names):
  """What `nft -f` reads to take tables away, whether they are there or not."""
  return ''.join(f'table inet {name}\ndelete table inet {name}\n' for name in names)


def table(
  session, ports, addresses, interface='', user_id=None, all_ports=(), closed=(), trial_secs=0
):
  """What `nft -f` reads to close the ports of one host, in one step; it replaces itself.

  A drop is final in nftables whatever other tables accept, and an accept here ends this chain
  alone: the host's other rules keep their say. Packets of connections made before are looked at
  as well, so that whoever had come in is out again.

  Args:
    session: name of the session.
    ports: list of int, the `tf_port`s of this host.
    addresses: list of str, IPv4 and IPv6 addresses that may reach them. Those of loopback need no
      rule: what a host sends to itself, to whichever of its addresses, comes over `lo`.
    interface: name of the only interface over which those addresses may come; '' for any.
    user_id: the only user of this host, beside root, whose programs may reach the cluster's ports
      from here, over loopback too; None for all users.
    all_ports: list of int, the `tf_port`s of all hosts: no container or virtual machine behind
      this host reaches them, though it would come with this host's address.
    closed: list of int, those of `ports` that no other host needs, those of actors.
    trial_secs: if not 0, the table is one beside the session's that closes nothing any more after
      so many seconds, by the kernel's clock.

  Returns:
    The text, whose lines a person can read.
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


def _forwarded(addresses, ports, every_port, over, drop):
  """Rules about packets of others that pass through this host.

  Those of the cluster's hosts may pass: this host may be their way to each other. A container that
  is reached at a port of this host has the port of its own in such packets, so the port that was
  asked for is looked up.
  """
  return [
    *(f'{over}{some} accept' for some in _selections('saddr', addresses)),
    *(f'{some} tcp dport {_braces(every_port)} {drop}' for some in _selections('daddr', addresses)),
    'meta l4proto tcp ct status dnat ct direction original ct original proto-dst '
    f'{_braces(sorted({*ports}))} {drop}',
  ]


def _sent(addresses, every_port, user_id, drop):
  """Rules that keep other users of this host from the cluster's ports."""
  users = _braces(sorted({0, user_id}))
  return [
    f'{place} tcp dport {_braces(every_port)} meta skuid != {users} {drop}'
    for place in ('oif "lo"', *_selections('daddr', addresses))
  ]


def _timer(secs):
  """A set whose only element goes after some seconds, and with it whatever asks for it."""
  return [
    '  set trial {',
    '    type inet_proto; flags timeout;',
    f'    elements = {{ tcp timeout {secs}s }}',
    '  }',
  ]


def _chain(hook, rules):
  return [
    f'  chain {hook} {{',
    f'    type filter hook {hook} priority -10; policy accept;',
    *(f'    {rule}' for rule in rules),
    '  }',
  ]


def _selections(field, addresses):
  """How packets from (saddr) or to (daddr) some addresses are told, for each family there is."""
  families = {4: 'ip', 6: 'ip6'}
  return [
    f'{families[version]} {field} {_braces(some)}'
    for version in families
    if (some := [ip for ip in addresses if ip.version == version])
  ]


def _order(ip):
  return ip.version, int(ip)


def _braces(values):
  return '{ ' + ', '.join(map(str, values)) + ' }'
