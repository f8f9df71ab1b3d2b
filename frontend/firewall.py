"""What closes a cluster's ports to strangers on one host: the text of an nftables table.

TensorFlow's server listens on every interface and asks nobody for a password, so the kernel has to
ask who comes. Pure: nothing is looked up or set here.
"""

import ipaddress


def table_name(session):
  """The name of a session's table; its family is inet."""
  return f'impala-{session}'


def removal(session):
  """What `nft -f` reads to take the table away, whether it is there or not."""
  name = table_name(session)
  return f'table inet {name}\ndelete table inet {name}\n'


def table(session, ports, addresses, interface='', user_id=None, all_ports=()):
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
    all_ports: list of int, with `user_id`: the `tf_port`s of all hosts.

  Returns:
    The text, whose lines a person can read.
  """
  found = sorted({ipaddress.ip_address(address) for address in addresses}, key=_order)
  closed = 'tcp dport ' + _braces(sorted(set(ports)))
  over = f'iifname "{interface}" ' if interface else ''
  rules = ['iif "lo" accept']
  for version, selector in ((4, 'ip saddr'), (6, 'ip6 saddr')):
    some = [ip for ip in found if ip.version == version and not ip.is_loopback]
    if some:
      rules.append(f'{over}{selector} {_braces(some)} {closed} accept')
  rules.append(f'{closed} drop')
  lines = [
    removal(session) + f'table inet {table_name(session)} {{',
    '  chain input {',
    '    type filter hook input priority -10; policy accept;',
    *(f'    {rule}' for rule in rules),
    '  }',
    *(_output_chain(found, {*ports, *all_ports}, user_id) if user_id is not None else ()),
    '}',
  ]
  return '\n'.join(lines) + '\n'


def _output_chain(addresses, ports, user_id):
  """Lines of the chain that keeps other users of this host from the cluster's ports."""
  to = f'tcp dport {_braces(sorted(ports))} meta skuid != {_braces(sorted({0, user_id}))} drop'
  places = ['oif "lo"']
  for version, selector in ((4, 'ip daddr'), (6, 'ip6 daddr')):
    some = [ip for ip in addresses if ip.version == version and not ip.is_loopback]
    places += [f'{selector} {_braces(some)}'] if some else []
  return [
    '  chain output {',
    '    type filter hook output priority -10; policy accept;',
    *(f'    {place} {to}' for place in places),
    '  }',
  ]


def _order(ip):
  return ip.version, int(ip)


def _braces(values):
  return '{ ' + ', '.join(map(str, values)) + ' }'
