"""Verifies host keys with known_hosts files, in the way of OpenSSH.

Names may be hashed, contain `*` and `?`, or be negated with `!`. Keys of `@revoked` lines are
refused; keys of `@cert-authority` lines sign certificates of hosts.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from frontend.connection import host_certificates
from frontend.errors import HostError


class Entry(NamedTuple):
  """A line of a known_hosts file.

  Attributes:
    marker: '', '@revoked' or '@cert-authority'.
    names: the field with the names of hosts.
    kind: type of the key, such as 'ssh-ed25519'.
    key: the public key.
    place: file and line.
  """

  marker: str
  names: str
  kind: str
  key: bytes
  place: str


def read(paths: Iterable[str]) -> list[Entry]:
  """Returns the entries of the files that exist; raises HostError if one cannot be read."""
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


def name_of(host: str, port: int, alias: str) -> str:
  """Returns the name of a host in known_hosts files; `alias` is its HostKeyAlias or ''."""
  if alias:
    return alias.lower()
  return host.lower() if port == 22 else f'[{host.lower()}]:{port}'


def entries_of(entries: Sequence[Entry], host: str, port: int, alias: str) -> list[Entry]:
  """Returns the entries of a host with this port, or else those of the host without a port."""
  found = [entry for entry in entries if _names(entry.names, name_of(host, port, alias))]
  trusted = any(not entry.marker for entry in found)
  if not trusted and not alias and port != 22:  # As ssh does.
    found += [entry for entry in entries if _names(entry.names, host.lower())]
  return found


def _names(field: str, name: str) -> bool:
  """Returns whether a field of names matches a name."""
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


def preferred_algorithms(entries: Sequence[Entry], kinds: Sequence[str]) -> list[str]:
  """Returns the host key algorithms, first those for which the entries hold a key."""
  if any(entry.marker == '@cert-authority' for entry in entries):
    kinds = (*host_certificates.KINDS, *kinds)
    return sorted(kinds, key=lambda kind: kind not in host_certificates.KINDS)
  known = {entry.kind for entry in entries if not entry.marker}
  if 'ssh-rsa' in known:
    known |= {'rsa-sha2-512', 'rsa-sha2-256'}
  return sorted(kinds, key=lambda kind: kind not in known)


def fingerprint(key: bytes) -> str:
  """Returns the fingerprint of a host key as ssh prints it."""
  digest = hashlib.sha256(key).digest()
  return 'SHA256:' + base64.b64encode(digest).decode().rstrip('=')


def verify(
  entries: Sequence[Entry],
  revoked: Sequence[str],
  key: bytes,
  kind: str,
  commands: tuple[str, str],
  name: str = '',
  certificate: bytes | None = None,
) -> None:
  """Verifies a host key, or its certificate.

  Args:
    entries: of the host, see `entries_of`.
    revoked: paths of `RevokedHostKeys` files.
    key: the key that the host has sent.
    kind: its type.
    commands: commands for messages: one that forgets the host's key, one that shows and adds it.
    name: of the host in certificates.
    certificate: that the host has sent with its key, or None.

  Raises:
    HostError: the key is unknown, wrong or revoked; says what to do.
  """
  _refuse_revoked(entries, revoked, key)
  problem: str | None = 'it shows no certificate'
  if certificate:
    problem = _certificate_problem(entries, revoked, name, certificate)
    if problem is None:
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
      f'its host key is not known, and {problem}, though {authority[0].place} trusts an authority '
      f'(@cert-authority); or compare the key itself and add it with: {add}',
    )
  raise HostError('host key', f'its host key is not known; compare and add it with: {add}')


def _certificate_problem(
  entries: Sequence[Entry], revoked: Sequence[str], name: str, blob: bytes
) -> str | None:
  """Returns why a certificate is not valid for the host, or None.

  Raises:
    HostError: the key of its authority is revoked.
  """
  try:
    certificate = host_certificates.read(blob)
  except ValueError as error:
    return f'it shows {error}'
  _refuse_revoked(entries, revoked, certificate.authority)
  keys = [entry.key for entry in entries if entry.marker == '@cert-authority']
  return host_certificates.problem(certificate, keys, name)


def _refuse_revoked(entries: Sequence[Entry], paths: Sequence[str], key: bytes) -> None:
  """Raises HostError for a revoked key, and for a `RevokedHostKeys` file that cannot be read."""
  for entry in entries:
    if entry.marker == '@revoked' and entry.key == key:
      raise HostError('host key', f'its host key {fingerprint(key)} is revoked ({entry.place})')
  text = base64.b64encode(key)
  for path in paths:
    try:
      with open(path, 'rb') as file:
        data = file.read()
    except OSError as error:
      reason = error.strerror or os.strerror(error.errno or 0)
      raise HostError('host key', f'RevokedHostKeys {path} cannot be read: {reason}') from None
    if data.startswith(b'SSHKRL'):
      raise HostError(
        'host key',
        f'RevokedHostKeys {path} is a key revocation list, which is not read here; name a file of '
        'public keys, one a line',
      )
    if text in data.split():
      raise HostError('host key', f'its host key {fingerprint(key)} is revoked ({path})')
