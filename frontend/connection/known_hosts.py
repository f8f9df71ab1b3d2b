"""Whether a host's key is the one that known_hosts files name, as OpenSSH reads them.

Names may be hashed, hold `*` and `?`, or be denied by `!`. Keys of `@revoked` lines are refused;
keys of `@cert-authority` lines vouch for hosts by certificates.
"""

import base64
import binascii
import collections
import fnmatch
import hashlib
import hmac
import os
import re

from frontend.connection import host_certificates
from frontend.errors import HostError

# marker: '', '@revoked' or '@cert-authority'; names: the field; kind: such as ssh-ed25519; key:
# bytes; place: file and line.
Entry = collections.namedtuple('Entry', 'marker names kind key place')


def read(paths):
  """The entries of the files that are there; HostError where one cannot be read."""
  found = []
  for path in paths:
    try:
      with open(path, encoding='utf-8', errors='replace') as file:
        lines = file.read().splitlines()
    except FileNotFoundError:
      continue
    except OSError as error:
      raise HostError('host key', f'{path} cannot be read: {error.strerror}') from None
    for number, line in enumerate(lines, 1):
      fields = line.split()
      marker = fields.pop(0) if fields and fields[0].startswith('@') else ''
      if len(fields) < 3 or fields[0].startswith('#'):
        continue
      try:
        key = base64.b64decode(fields[2], validate=True)
      except (binascii.Error, ValueError):
        continue
      found.append(Entry(marker, fields[0], fields[1], key, f'{path} line {number}'))
  return found


def place_of(host, port, alias):
  """The name under which a host's key is kept."""
  if alias:
    return alias.lower()
  return host.lower() if port == 22 else f'[{host.lower()}]:{port}'


def entries_of(entries, host, port, alias):
  """Those entries that are about this host: by its port or, where there are none, by its name."""
  found = [entry for entry in entries if _names(entry.names, place_of(host, port, alias))]
  trusted = any(not entry.marker for entry in found)
  if not trusted and not alias and port != 22:  # As ssh does.
    found += [entry for entry in entries if _names(entry.names, host.lower())]
  return found


def _names(field, name):
  """Whether a names field means this name."""
  if field.startswith('|1|'):
    _, _, salt, digest = (field.split('|') + ['', ''])[:4]
    try:
      wanted = base64.b64decode(digest)
      return hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest() == wanted
    except (binascii.Error, ValueError):
      return False
  matched = False
  for pattern in field.lower().split(','):
    denied, pattern = pattern.startswith('!'), pattern.removeprefix('!')
    if re.fullmatch(fnmatch.translate(pattern.replace('[', '[[]')), name):
      if denied:
        return False
      matched = True
  return matched


def preferred_algorithms(entries, kinds):
  """The algorithms for host keys, those first by which this host is known."""
  if any(entry.marker == '@cert-authority' for entry in entries):
    kinds = (*host_certificates.KINDS, *kinds)
    return sorted(kinds, key=lambda kind: kind not in host_certificates.KINDS)
  known = {entry.kind for entry in entries if not entry.marker}
  if 'ssh-rsa' in known:
    known |= {'rsa-sha2-512', 'rsa-sha2-256'}
  return sorted(kinds, key=lambda kind: kind not in known)


def fingerprint(key):
  """A host key's fingerprint as ssh prints it."""
  digest = hashlib.sha256(key).digest()
  return 'SHA256:' + base64.b64encode(digest).decode().rstrip('=')


def verify(entries, revoked, key, kind, commands, name='', certificate=None):
  """Raises HostError unless the key is the known one, or one that a known authority vouches for.

  Args:
    entries: of `entries_of`.
    revoked: paths of `RevokedHostKeys`.
    key: bytes of the key that the host shows.
    kind: its type.
    commands: (what forgets the host's key, what shows it and adds it), for a person to type.
    name: of the host, as a certificate has it.
    certificate: bytes of the certificate that came with the key, or None.
  """
  _refuse_revoked(entries, revoked, key)
  doubt = 'it shows no certificate'
  if certificate:
    doubt = _doubt(entries, revoked, name, certificate)
    if doubt is None:
      return
  trusted = [entry for entry in entries if not entry.marker]
  if any(entry.key == key for entry in trusted):
    return
  forget, add = commands
  if trusted:
    known = next((entry for entry in trusted if entry.kind == kind), trusted[0])
    raise HostError(
      'host key',
      f'its host key is now {fingerprint(key)} and not the known {fingerprint(known.key)}: either '
      f'the machine was set up anew or somebody is in between. Once you know why: {forget} and '
      f'then {add}',
    )
  authority = [entry for entry in entries if entry.marker == '@cert-authority']
  if authority:
    raise HostError(
      'host key',
      f'its host key is not known, and {doubt}, though {authority[0].place} trusts an authority '
      f'(@cert-authority); or compare the key itself and add it with: {add}',
    )
  raise HostError('host key', f'its host key is not known; compare and add it with: {add}')


def _doubt(entries, revoked, name, blob):
  """Why a certificate does not vouch for the host, or None; refuses one of a revoked authority."""
  try:
    certificate = host_certificates.read(blob)
  except ValueError as error:
    return f'it shows {error}'
  _refuse_revoked(entries, revoked, certificate.authority)
  keys = [entry.key for entry in entries if entry.marker == '@cert-authority']
  return host_certificates.problem(certificate, keys, name)


def _refuse_revoked(entries, paths, key):
  """Refuses a key of a `@revoked` line or a `RevokedHostKeys` file, and an unreadable file."""
  for entry in entries:
    if entry.marker == '@revoked' and entry.key == key:
      raise HostError('host key', f'its host key {fingerprint(key)} is revoked ({entry.place})')
  text = base64.b64encode(key)
  for path in paths:
    try:
      with open(path, 'rb') as file:
        data = file.read()
    except OSError as error:
      reason = error.strerror or os.strerror(error.errno)
      raise HostError('host key', f'RevokedHostKeys {path} cannot be read: {reason}') from None
    if data.startswith(b'SSHKRL'):
      raise HostError(
        'host key',
        f'RevokedHostKeys {path} is a key revocation list, which is not read here; name a file of '
        'public keys, one a line',
      )
    if text in data.split():
      raise HostError('host key', f'its host key {fingerprint(key)} is revoked ({path})')
