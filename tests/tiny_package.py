"""A package that pip installs at once and without an index."""

import hashlib
import zipfile


def make_wheel(folder, version=1):
  """A wheel of a package `tiny`, made by hand; returns its SHA-256."""
  folder.mkdir(exist_ok=True)
  path, about = folder / f'tiny-{version}-py3-none-any.whl', f'tiny-{version}.dist-info'
  with zipfile.ZipFile(path, 'w') as wheel:
    wheel.writestr('tiny.py', f'x = {version}\n')
    wheel.writestr(f'{about}/METADATA', f'Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n')
    wheel.writestr(
      f'{about}/WHEEL',
      ('Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'),
    )
    wheel.writestr(f'{about}/RECORD', f'tiny.py,,\n{about}/METADATA,,\n{about}/RECORD,,\n')
  return hashlib.sha256(path.read_bytes()).hexdigest()
