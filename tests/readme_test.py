"""The README tells of every flag and every file, and of none that does not exist."""

import os
import re
import subprocess
import sys

from conftest import ROOT

# Words of the table of flags that are values of a flag.
VALUES = {'train', 'test', 'plot'}


def section(title):
  """The text below a heading, up to the next one of the same level."""
  with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
    return file.read().split(f'\n## {title}\n')[1].split('\n## ')[0]


def test_the_table_of_flags_is_complete():
  help_text = subprocess.run(
      [sys.executable, 'experiment.py', '--help'], cwd=ROOT, capture_output=True, text=True,
      timeout=120, check=True).stdout
  flags = set(re.findall(r'^ *--(?:\[no\])?(\w+)', help_text, re.M)) - {'only_check_args'}
  table = [line for line in section('Flags of `experiment.py`').splitlines() if line[:1] == '|']
  assert set(re.findall(r'`(\w+)`', '\n'.join(table))) - VALUES == flags


def test_the_table_of_files_is_complete():
  names = re.findall(r'`([^`]+)`', ' '.join(
      line.split('|')[1] for line in section('Files').splitlines() if line[:1] == '|'))
  assert [name for name in names if not os.path.exists(os.path.join(ROOT, name))] == []
  programs = {name for name in os.listdir(ROOT) if name.endswith('.py')}
  assert programs <= set(names)
