"""Certificates of host keys, signed by the `@cert-authority` keys of known_hosts files.

The format is in OpenSSH's PROTOCOL.certkeys. paramiko has verified that the host has the private
key; here, the certificate itself is verified.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

# Host key algorithms with certificates, under paramiko's names; those with SHA-1 are left out.
KINDS = tuple(
  f'{kind}-cert-v01@openssh.com'
  for kind in (
    'ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521',
    'rsa-sha2-512', 'rsa-sha2-256',
  )
)  # fmt: skip
# Number of strings in the public key of a certificate, by the beginning of its type.
_KEY_STRINGS = {'ssh-ed25519-': 1, 'ecdsa-sha2-': 2, 'ssh-rsa-': 2}
_HOST = 2


class Certificate(NamedTuple):
  """A certificate of a host key.

  Attributes:
    kind: 2 for a certificate of a host.
    names: of the hosts that it is valid for.
    after: Unix seconds from which it is valid.
    before: Unix seconds until which it is valid.
    critical: critical options.
    authority: public key of the authority.
    signed: the bytes that are signed.
    signature: of the authority.
  """

  kind: int
  names: list[str]
  after: int
  before: int
  critical: bytes
  authority: bytes
  signed: bytes
  signature: bytes


def read(blob: bytes) -> Certificate:
  """Parses a certificate; raises ValueError, with the reason, if it is not valid."""
  at = 0

  def take(form: str) -> Any:
    nonlocal at
    (value,) = struct.unpack_from(form, blob, at)
    at += struct.calcsize(form)
    return value

  def string() -> bytes:
    nonlocal at
    length = take('>I')
    if length > len(blob) - at:
      raise ValueError('a certificate that ends early')
    at += length
    return blob[at - length : at]

  try:
    type_name = string().decode()
    strings = [count for begin, count in _KEY_STRINGS.items() if type_name.startswith(begin)]
    if not strings:
      raise ValueError(f'a certificate of the kind {type_name}')
    for _ in range(1 + strings[0]):  # A nonce and the public key.
      string()
    take('>Q')  # Serial number.
    kind = take('>I')
    string()  # Key id.
    principals, after, before = string(), take('>Q'), take('>Q')
    critical, _, _, authority = string(), string(), string(), string()
    signed = blob[:at]
    signature = string()
  except (struct.error, UnicodeDecodeError):
    raise ValueError('a certificate that cannot be read') from None
  return Certificate(
    kind, _principals(principals), after, before, critical, authority, signed, signature
  )


def _principals(data: bytes) -> list[str]:
  names = []
  while data:
    (length,) = struct.unpack_from('>I', data)
    names.append(data[4 : 4 + length].decode(errors='replace').lower())
    data = data[4 + length :]
  return names


def problem(certificate: Certificate, authorities: Sequence[bytes], name: str) -> str | None:
  """Returns why a certificate is not valid for a host, or None.

  Args:
    certificate: that the host has sent.
    authorities: keys of `@cert-authority` lines for this host.
    name: of the host, or its HostKeyAlias.
  """
  if certificate.authority not in authorities:
    return 'its certificate is of an authority that known_hosts does not name'
  if certificate.kind != _HOST:
    return 'its certificate is not for a host'
  if certificate.critical:
    return 'its certificate has options that are not supported'
  if name.lower() not in certificate.names:
    return f'its certificate is for {", ".join(certificate.names) or "no name"} and not for {name}'
  if not certificate.after <= time.time() < certificate.before:
    return 'its certificate is no longer valid, or not yet (or the clock here is wrong)'
  if not _is_signed(certificate):
    return 'the signature of its certificate is wrong'
  return None


def _is_signed(certificate: Certificate) -> bool:
  import paramiko

  try:
    signature = paramiko.Message(certificate.signature)
    if signature.get_text() == 'ssh-rsa':  # With SHA-1.
      return False
    signature.rewind()
    kind = paramiko.Message(certificate.authority).get_text()
    key = paramiko.PKey.from_type_string(kind, certificate.authority)
    return bool(key.verify_ssh_sig(certificate.signed, signature))
  except Exception:  # paramiko raises many types for keys and signatures that it does not know.
    return False
