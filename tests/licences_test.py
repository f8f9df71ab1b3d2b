"""docs/licences.md: every package that an environment gets, under the licence that it states."""

import glob
import importlib.metadata
import os
import re

import pytest

from conftest import ROOT
from frontend import checkout


def table():
  """{package: licence} of the page."""
  with open(os.path.join(ROOT, 'docs', 'licences.md'), encoding='utf-8') as file:
    rows = re.findall(r'^\| \**([a-z0-9][a-z0-9-]*)\** \| ([^|]+) \|', file.read(), flags=re.M)
  return {name: licence for name, licence in rows if name != 'package'}


def stated(package):
  """What a package's metadata say of its licence, as one text; None where it is not installed."""
  try:
    data = importlib.metadata.metadata(package)
  except importlib.metadata.PackageNotFoundError:
    return None
  classifiers = [c for c in data.get_all('Classifier') or () if c.startswith('License')]
  return '\n'.join([data.get('License-Expression') or '', data.get('License') or '', *classifiers])


def test_every_package_of_the_lock_is_in_the_table_and_no_other():
  locked = set(checkout.pinned_versions(ROOT)) | {'setuptools', 'wheel'}
  assert set(table()) == locked


@pytest.mark.parametrize('package', sorted(table()))
def test_the_licence_is_the_one_that_the_package_states(package):
  said = stated(package)
  if said is None:
    pytest.skip(f'{package} is not installed here')
  family = re.match('[A-Za-z]+', table()[package])[0]
  names = {'PSF': 'PSF|Python Software Foundation|License agreement for matplotlib'}
  if said.strip():
    assert re.search(names.get(family, family), said), said
  strict = re.search('^(A?L?GPL|GNU|MPL|Mozilla)', said.strip(), flags=re.M)
  assert not strict or strict[1] in ('GPL', 'LGPL', 'MPL') and family == strict[1]


def test_what_the_page_says_of_roms_and_ffmpeg():
  with open(os.path.join(ROOT, 'docs', 'licences.md'), encoding='utf-8') as file:
    page = file.read()
  roms = importlib.metadata.distribution('ale-py').locate_file('ale_py/roms')
  assert f'({len(glob.glob(str(roms) + "/*.bin"))} files, `ale_py/roms`)' in page
  assert table()['ale-py'] == 'GPL-2.0-only' and table()['paramiko'] == 'LGPL-2.1'
  libraries = importlib.metadata.distribution('opencv-python-headless').files
  found = {
    m[0]
    for path in libraries
    if (m := re.search(r'lib(avcodec|avformat|avutil|sw[a-z]+)', str(path)))
  }
  assert found and all(f'`{name}`' in page for name in found)
