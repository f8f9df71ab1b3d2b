"""Certificates of host keys, which `@cert-authority` lines of known_hosts files vouch for.

The form is that of OpenSSH's PROTOCOL.certkeys. paramiko has verified that the host holds the key
in it; what the certificate is worth is looked at here.
"""

import collections
import struct
import time

# The algorithms for host keys with certificates, as paramiko names them, the modern ones.
KINDS = tuple(
  f'{kind}-cert-v01@openssh.com'
  for kind in (
    'ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521',
    'rsa-sha2-512', 'rsa-sha2-256',
  )
)  # fmt: skip
# How many strings a public key has in it, by the begin of its type.
_KEY_STRINGS = {'ssh-ed25519-': 1, 'ecdsa-sha2-': 2, 'ssh-rsa-': 2}
_HOST = 2

# kind: 2 for that of a host; names: list of str; after, before: Unix seconds; critical: bytes;
# authority: bytes of its key; signed, signature: bytes.
Certificate = collections.namedtuple(
  'Certificate', 'kind names after before critical authority signed signature'
)


def read(blob):
  """The `Certificate` in bytes; ValueError where there is none."""
  at = 0

  def take(form):
    nonlocal at
    (value,) = struct.unpack_from(form, blob, at)
    at += struct.calcsize(form)
    return value

  def string():
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
    for _ in range(1 + strings[0]):  # The first is random.
      string()
    take('>Q')  # Its number.
    kind = take('>I')
    string()  # Its name.
    principals, after, before = string(), take('>Q'), take('>Q')
    critical, _, _, authority = string(), string(), string(), string()
    signed = blob[:at]
    signature = string()
  except (struct.error, UnicodeDecodeError):
    raise ValueError('a certificate that cannot be read') from None
  return Certificate(
    kind, _principals(principals), after, before, critical, authority, signed, signature
  )


def _principals(data):
  names = []
  while data:
    (length,) = struct.unpack_from('>I', data)
    names.append(data[4 : 4 + length].decode(errors='replace').lower())
    data = data[4 + length :]
  return names


def problem(certificate, authorities, name):
  """Why a certificate does not vouch for a host, as a sentence; None if it does.

  Args:
    certificate: a `Certificate`.
    authorities: list of the keys, as bytes, that `@cert-authority` lines name for this host.
    name: of the host, or its HostKeyAlias.
  """
  if certificate.authority not in authorities:
    return 'its certificate is of an authority that known_hosts does not name'
  if certificate.kind != _HOST:
    return 'its certificate is not one of a host'
  if certificate.critical:
    return 'its certificate has options that are not known here'
  if name.lower() not in certificate.names:
    return f'its certificate is for {", ".join(certificate.names) or "no name"} and not for {name}'
  if not certificate.after <= time.time() < certificate.before:
    return 'its certificate is no longer valid, or not yet (or the clock here is wrong)'
  if not _is_signed(certificate):
    return 'the signature of its certificate is wrong'
  return None


def _is_signed(certificate):
  import paramiko

  try:
    signature = paramiko.Message(certificate.signature)
    if signature.get_text() == 'ssh-rsa':  # By SHA-1.
      return False
    signature.rewind()
    kind = paramiko.Message(certificate.authority).get_text()
    key = paramiko.PKey.from_type_string(kind, certificate.authority)
    return bool(key.verify_ssh_sig(certificate.signed, signature))
  except Exception:  # Of a key or a signature of any kind that paramiko does not know.
    return False
