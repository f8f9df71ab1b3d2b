"""Which addresses a cluster's hosts have: names must mean the same on every host, and be theirs.

Each host looks the names up by itself. One that takes a name for another address would let a
stranger in, and a cluster's own host not.
"""

import ipaddress

from frontend.cluster import is_loopback


def agree(replies):
  """Addresses of all hosts as each of them knows them.

  Args:
    replies: {`ip` cell: the host's reply to `addresses` of
      frontend/host_side/nftables.py, or None where it gave none}, of all hosts.

  Returns:
    ({cell: list of str, the addresses of all hosts} of the hosts that know them, {cell: a sentence}
    of the others that replied).
  """
  found, problems = {}, {}
  for cell, reply in replies.items():
    if reply is not None:
      try:
        found[cell] = {name: _on(reply, name, name == cell) for name in replies}
      except ValueError as error:
        problems[cell] = str(error)
  for name in replies:
    _compare(name, found, replies[name], problems)
  agreed = {
    cell: list(dict.fromkeys(address for some in names.values() for address in some))
    for cell, names in found.items()
    if cell not in problems
  }
  return agreed, problems


def literal(cell):
  """Whether an `ip` cell is an address, which means the same everywhere."""
  try:
    return bool(ipaddress.ip_address(cell))
  except ValueError:
    return False


def _on(reply, name, is_own):
  """Addresses of a name on one host; ValueError with a sentence where it cannot be used."""
  if literal(name):
    return [name]
  found = reply['found'].get(name)
  if isinstance(found, str):
    raise ValueError(found)
  addresses = sorted(str(ipaddress.ip_address(one)) for one in found or ())
  if not addresses:
    raise ValueError(f'{name} does not resolve on this host')
  if not is_own and any(map(is_loopback, addresses)):
    raise ValueError(
      f'{name} is {", ".join(addresses)} on this host, which means this host itself; give its '
      'address in the CSV, or correct /etc/hosts here'
    )
  return addresses


def _compare(name, found, own_reply, problems):
  """Adds a sentence for each host that takes a name for something else than the others do.

  Where the host of that name says which addresses it has, its word counts; else the first host's.
  """
  own = {str(ipaddress.ip_address(one)) for one in own_reply['own']} if own_reply else set()
  first = None
  for cell, names in found.items():
    if cell == name or literal(name):
      continue
    first = first or cell
    here, there = ', '.join(names[name]), ', '.join(found[first][name])
    if own and not own.issuperset(names[name]):
      problems.setdefault(cell, f'{name} is {here} here, which that host does not have; {_REMEDY}')
    elif not own and here != there:
      problems.setdefault(cell, f'{name} is {here} here, but {there} on {first}; {_REMEDY}')


_REMEDY = 'give its address in the CSV, or correct /etc/hosts here'
