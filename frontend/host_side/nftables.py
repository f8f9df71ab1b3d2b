"""On a host: the table of `firewall_table` is set and taken away, as root or with sudo.

A note beside the run's files says that it was this cluster that set it; a table without such a note
is somebody else's and is left alone. A table is first on trial: the kernel lets everybody in again
unless it is confirmed in time, so that whoever cuts himself off is back soon.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess

from common import files
from frontend.host_side import firewall_table, supervisor, task_record

NFT_SECS = 30


class NotAllowed(Exception):
  """The firewall cannot be changed from this login; the text is the reason."""


# ---- Requests of the frontend, by name as in `agent`. ------------------------------


def addresses(names):
  """What a host knows that the text of its table needs.

  Args:
    names: `ip` cells of the CSV.

  Returns:
    {'found': {name: list of str, IPv4 and IPv6 addresses, or a sentence}, 'own': those of this
    host, 'user_id': of this login, 'ssh_port': to which it is connected, None without SSH}.
  """
  found = {}
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


def try_table(session, own, text):
  """Puts a table on trial.

  Args:
    session: name of the session.
    own: the `ip` cell of this host; hosts may share the folder of the session.
    text: of `firewall.table`, with `trial_secs`.

  Returns:
    {'reason': why this login could not, or None}.

  Raises:
    ValueError: a table of that name that is not this cluster's, or nft's own words.
  """
  try:
    _run(['list', 'tables'])  # Fails where this login may not, or nft does not work.
    _refuse_a_strangers_table(session, supervisor.run_folder(session), own)
    _run(['-f', '-'], text)
  except NotAllowed as error:
    return {'reason': str(error)}
  return {'reason': None}


def keep_table(session, own, text, ports):
  """Sets a table in place of the one on trial, and notes it; arguments as for `try_table`."""
  folder = supervisor.private_run_folder(session)
  try:
    _run(['-f', '-'], firewall_table.removal(firewall_table.trial_name(session)) + text)
  except NotAllowed as error:
    raise ValueError(str(error)) from None
  with files.replacing(_note(folder, own), mode=0o600) as file:
    file.write(json.dumps({'ports': ports, 'boot': _boot()}).encode())
  return {}


def end_trial(session):
  """Takes away the table on trial; the one before it, if any, has been there all the time."""
  try:
    _run(['-f', '-'], firewall_table.removal(firewall_table.trial_name(session)))
  except NotAllowed as error:
    raise ValueError(str(error)) from None
  return {}


def open_ports(session, own):
  """Takes away the table, if this cluster set it.

  Returns:
    {'removed': bool, 'reason': why this login could not, or None}.

  Raises:
    ValueError: nft's own words.
  """
  folder = supervisor.run_folder(session)
  try:
    if not os.path.exists(_note(folder, own)):
      with contextlib.suppress(
        NotAllowed, ValueError
      ):  # What a broken off trial left closes nothing.
        end_trial(session)
      return {'removed': False, 'reason': _left_by_another(session)}
    names = firewall_table.table_name(session), firewall_table.trial_name(session)
    _run(['-f', '-'], firewall_table.removal(*names))
  except NotAllowed as error:
    return {'removed': False, 'reason': str(error)}
  with contextlib.suppress(FileNotFoundError):
    os.remove(_note(folder, own))
  return {'removed': True, 'reason': None}


# ---- Whether what was set is still there. --------------------------------------------------------


def is_set(folder):
  """Whether this cluster set a table, here or on a host that shares the folder."""
  return os.path.isdir(folder) and any(
    name.startswith('firewall-') and name.endswith('.set') for name in os.listdir(folder)
  )


def firewall_state(session, own, ports):
  """A request: {'good': bool, 'text': str}; see `still_set`."""
  good, text = still_set(session, own, ports)
  return {'good': good, 'text': text}


def still_set(session, own, ports):
  """Whether the table that this cluster set closes the ports now.

  Returns:
    (True, what is there) or (False, a sentence).
  """
  path = _note(supervisor.run_folder(session), own)
  if not os.path.exists(path):
    return True, 'none was set from here'
  note = task_record.read_json(path)
  again = 'set it again: --action=firewall --apply'
  note = note if isinstance(note, dict) else {}
  closed = note.get('ports') if isinstance(note.get('ports'), list) else []
  booted = note.get('boot') != _boot()
  try:
    _run(['list', 'tables'])  # Fails where this login may not look.
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


def _boot():
  """What is another at each start of this host; None where the kernel does not tell."""
  try:
    with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
      return file.read().strip()
  except OSError:
    return None


def _note(folder, own):
  return os.path.join(folder, f'firewall-{own.lower()}.set')


# ---- Addresses. ----------------------------------------------------------------------------------


def _own_addresses():
  """Addresses of this host's interfaces, as `ip` tells; [] where it does not."""
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


def _ssh_port(connection):
  """The port of this host in sshd's SSH_CONNECTION, 'address port address port'; else None."""
  words = connection.split()
  return int(words[3]) if len(words) == 4 and words[3].isdigit() else None


def _lookup(name):
  try:
    return sorted({info[4][0].partition('%')[0] for info in socket.getaddrinfo(name, None, type=1)})
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'{name} does not resolve on this host: {reason}') from None


# ---- nft. ----------------------------------------------------------------------------------------


def _is_there(session):
  result = _nft(['list', 'table', 'inet', firewall_table.table_name(session)])
  return result.returncode == 0


def _refuse_a_strangers_table(session, folder, own):
  if not os.path.exists(_note(folder, own)) and _is_there(session):
    name = firewall_table.table_name(session)
    raise ValueError(
      f'a table inet {name} is there already and was not set by this cluster; choose another '
      f'--tmux_sess, or take it away: sudo nft delete table inet {name}'
    )


def _left_by_another(session):
  """A sentence if a table of that name is there, as far as this login may look; else None."""
  with contextlib.suppress(NotAllowed, ValueError):
    _run(['list', 'tables'])
    if _is_there(session):
      return f'the table inet {firewall_table.table_name(session)} was not set by this cluster'
  return None


def _search_path():
  return os.environ.get('PATH', '') + ':/usr/local/sbin:/usr/sbin:/sbin'


def _nft(words, text=''):
  """Runs nft as root; raises NotAllowed, also where there is none."""
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


def _run(words, text=''):
  result = _nft(words, text)
  if result.returncode:
    lines = result.stderr.strip().splitlines() or [f'exit {result.returncode}']
    if 'not permitted' in result.stderr:
      raise NotAllowed(f'nft may not change the firewall here: {lines[0]}')
    raise ValueError(f'nft failed: {lines[0]}')
