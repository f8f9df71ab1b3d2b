"""Sets and removes a cluster's nftables table on a host, as root or with sudo.

A note beside the run's files says that this cluster set the table; a table without such a note is
left alone. A new table is on trial first: unless it is confirmed in time, the kernel stops applying
it, so that users who lock themselves out get back in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
from typing import Any

from common import files
from frontend.host_side import supervisor, task_record

NFT_SECS = 30


class NotAllowed(Exception):
  """This login may not change the firewall; the message is the reason."""


def table_name(session: str) -> str:
  """Returns the name of a session's table, whose family is inet."""
  return f'impala-{session}'


def trial_name(session: str) -> str:
  """Returns the name of a session's table on trial; names of sessions have no dot."""
  return f'{table_name(session)}.trial'


def removal(*names: str) -> str:
  """Returns the input of `nft -f` that removes tables, whether they exist or not."""
  return ''.join(f'table inet {name}\ndelete table inet {name}\n' for name in names)


# ---- Requests of the frontend, under the same names in `agent`. --------------------------------


def addresses(names: list[str]) -> dict[str, Any]:
  """Returns what only the host knows and its table needs.

  Args:
    names: `ip` cells of the CSV.

  Returns:
    {'found': {name: list of its IPv4 and IPv6 addresses, or an error message}, 'own': list of the
    host's own addresses, 'user_id': of this login, 'ssh_port': to which the frontend is connected,
    None without SSH}.
  """
  found: dict[str, list[str] | str] = {}
  for name in names:
    try:
      found[name] = _lookup(name)
    except ValueError as error:
      found[name] = str(error)
  return {
    'found': found,
    'own': _own_addresses(),
    'user_id': os.geteuid(),
    'ssh_port': _ssh_port(os.environ.get('SSH_CONNECTION', '')),
  }


def try_table(session: str, own: str, text: str) -> dict[str, str | None]:
  """Sets a table on trial.

  Args:
    session: name of the session.
    own: the `ip` cell of this host; hosts may share the folder of the session.
    text: input of `nft -f`, a table with `trial_secs` (frontend/actions/firewall_table.py).

  Returns:
    {'reason': why this login may not set it, or None}.

  Raises:
    ValueError: somebody else set a table of that name, or nft failed.
  """
  try:
    _run(['list', 'tables'])  # Fails if this login may not use nft, or nft does not work.
    _refuse_a_strangers_table(session, supervisor.run_folder(session), own)
    _run(['-f', '-'], text)
  except NotAllowed as error:
    return {'reason': str(error)}
  return {'reason': None}


def keep_table(session: str, own: str, text: str, ports: list[int]) -> dict[str, Any]:
  """Replaces the table on trial by a permanent one, and notes it.

  Args:
    session: as for `try_table`.
    own: as for `try_table`.
    text: input of `nft -f`, a table without `trial_secs`.
    ports: that the table closes.

  Raises:
    ValueError: nft failed, or this login may not use it.
  """
  folder = supervisor.private_run_folder(session)
  try:
    _run(['-f', '-'], removal(trial_name(session)) + text)
  except NotAllowed as error:
    raise ValueError(str(error)) from None
  with files.replacing(_note(folder, own), mode=0o600) as file:
    file.write(json.dumps({'ports': ports, 'boot': _boot()}).encode())
  return {}


def end_trial(session: str) -> dict[str, Any]:
  """Removes the table on trial; an earlier permanent table was never touched.

  Raises:
    ValueError: nft failed, or this login may not use it.
  """
  try:
    _run(['-f', '-'], removal(trial_name(session)))
  except NotAllowed as error:
    raise ValueError(str(error)) from None
  return {}


def open_ports(session: str, own: str) -> dict[str, Any]:
  """Removes the table if this cluster set it.

  Returns:
    {'removed': bool, 'reason': why it could not be removed, or None}.

  Raises:
    ValueError: nft failed.
  """
  folder = supervisor.run_folder(session)
  try:
    if not os.path.exists(_note(folder, own)):
      with contextlib.suppress(ValueError):  # A trial that was not finished no longer filters.
        end_trial(session)
      return {'removed': False, 'reason': _left_by_another(session)}
    names = table_name(session), trial_name(session)
    _run(['-f', '-'], removal(*names))
  except NotAllowed as error:
    return {'removed': False, 'reason': str(error)}
  with contextlib.suppress(FileNotFoundError):
    os.remove(_note(folder, own))
  return {'removed': True, 'reason': None}


# ---- Is the table still set? -------------------------------------------------------------------


def is_set(folder: str) -> bool:
  """Returns whether this cluster set a table, here or on a host that shares its run folder."""
  return os.path.isdir(folder) and any(
    name.startswith('firewall-') and name.endswith('.set') for name in os.listdir(folder)
  )


def firewall_state(session: str, own: str, ports: list[int]) -> dict[str, Any]:
  """A request: `still_set` as {'good': bool, 'text': str}."""
  good, text = still_set(session, own, ports)
  return {'good': good, 'text': text}


def still_set(session: str, own: str, ports: list[int]) -> tuple[bool, str]:
  """Returns whether the table that this cluster set closes the ports now.

  Args:
    session: name of the session.
    own: the `ip` cell of this host.
    ports: that should be closed.

  Returns:
    (True, the state) or (False, a sentence with what is wrong and what to do).
  """
  path = _note(supervisor.run_folder(session), own)
  if not os.path.exists(path):
    return True, 'none was set from here'
  note = task_record.read_json(path)
  again = 'set it again: --action=firewall --apply'
  note = note if isinstance(note, dict) else {}
  noted = note.get('ports')
  closed = noted if isinstance(noted, list) else []
  booted = note.get('boot') != _boot()
  try:
    _run(['list', 'tables'])  # Fails if this login may not use nft.
    there, unseen = _is_there(session), ''
  except NotAllowed as error:
    there, unseen = not booted, f', and whether it is there cannot be seen: {error}'
  if not there:
    when = ' before this host was started anew' if booted else ''
    gone = unseen or ', and is gone'
    return False, f'the firewall of session {session} was set here{when}{gone}; {again}'
  new = [port for port in sorted({*ports}) if port not in closed]
  if new:
    return False, (
      f'the firewall of session {session} does not close {", ".join(map(str, new))}; {again}'
    )
  return True, 'set; not looked at' if unseen else 'set'


def _boot() -> str | None:
  """Returns an id of this host's last boot; None if the kernel has none."""
  try:
    with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
      return file.read().strip()
  except OSError:
    return None


def _note(folder: str, own: str) -> str:
  return os.path.join(folder, f'firewall-{own.lower()}.set')


# ---- Addresses. ----------------------------------------------------------------------------------


def _own_addresses() -> list[str]:
  """Returns the addresses of this host's interfaces; [] if the program `ip` is missing or fails."""
  program = shutil.which('ip', path=_search_path())
  if not program:
    return []
  words = [program, '-json', 'address', 'show']
  try:
    listing = subprocess.run(words, capture_output=True, timeout=NFT_SECS, check=True).stdout
    found = [one['local'] for link in json.loads(listing) for one in link.get('addr_info', ())]
    return [str(ipaddress.ip_address(address)) for address in found]
  except (OSError, subprocess.SubprocessError, ValueError, KeyError):
    return []


def _ssh_port(connection: str) -> int | None:
  """Returns this host's port in SSH_CONNECTION ('address port address port'), or None."""
  words = connection.split()
  return int(words[3]) if len(words) == 4 and words[3].isdigit() else None


def _lookup(name: str) -> list[str]:
  """Returns the addresses of a host name; raises ValueError if there are none."""
  try:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return sorted({str(info[4][0]).partition('%')[0] for info in found})
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'{name} does not resolve on this host: {reason}') from None


# ---- nft. ----------------------------------------------------------------------------------------


def _is_there(session: str) -> bool:
  result = _nft(['list', 'table', 'inet', table_name(session)])
  return result.returncode == 0


def _refuse_a_strangers_table(session: str, folder: str, own: str) -> None:
  if not os.path.exists(_note(folder, own)) and _is_there(session):
    name = table_name(session)
    raise ValueError(
      f'a table inet {name} is there already and was not set by this cluster; choose another '
      f'--tmux_sess, or take it away: sudo nft delete table inet {name}'
    )


def _left_by_another(session: str) -> str | None:
  """Returns a sentence if this login can see a table of that name, else None."""
  with contextlib.suppress(NotAllowed, ValueError):
    _run(['list', 'tables'])
    if _is_there(session):
      return f'the table inet {table_name(session)} was not set by this cluster'
  return None


def _search_path() -> str:
  return os.environ.get('PATH', '') + ':/usr/local/sbin:/usr/sbin:/sbin'


def _nft(words: list[str], text: str = '') -> subprocess.CompletedProcess[str]:
  """Runs nft as root; raises NotAllowed if nft is missing or this login may not use it."""
  program = shutil.which('nft', path=_search_path())
  if not program:
    raise NotAllowed('nft is not installed (for example: sudo apt-get install nftables)')
  sudo = []
  if os.geteuid() != 0:
    if not shutil.which('sudo'):
      raise NotAllowed('this login is not root, and there is no sudo')
    sudo = ['sudo', '-n', '--']
    probe = subprocess.run(
      [*sudo, program, '--version'], capture_output=True, text=True, timeout=NFT_SECS, check=False
    )
    if probe.returncode:
      lines = probe.stderr.strip().splitlines() or ['sudo failed']
      raise NotAllowed(f'this login is not root, and may not use sudo for nft: {lines[-1]}')
  return subprocess.run(
    [*sudo, program, *words],
    input=text, capture_output=True, text=True, timeout=NFT_SECS, check=False,
  )  # fmt: skip


def _run(words: list[str], text: str = '') -> None:
  """Runs nft; raises NotAllowed, or ValueError with its error message."""
  result = _nft(words, text)
  if result.returncode:
    lines = result.stderr.strip().splitlines() or [f'exit {result.returncode}']
    if 'not permitted' in result.stderr:
      raise NotAllowed(f'nft may not change the firewall here: {lines[0]}')
    raise ValueError(f'nft failed: {lines[0]}')
