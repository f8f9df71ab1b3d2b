"""reporting.run_record: run.json of one start and of several."""

import json
import os
import re
import resource
import sys

import pytest

from reporting import run_record


def test_run_json_keeps_earlier_starts(tmp_path, monkeypatch):
  monkeypatch.setenv('A_SECRET', 'hunter2')
  folder = tmp_path / 'run'
  for seed in (1, 2, 3):
    run_record.write_run_json(str(folder), {'seed': seed}, {'environment_frames': 10 * seed})
  text = (folder / 'run.json').read_text()
  record = json.loads(text)
  assert (record['flags'], record['environment_frames']) == ({'seed': 3}, 30)
  assert [start['flags']['seed'] for start in record['starts']] == [1, 2]
  assert 'starts' not in record['starts'][0]
  assert record['versions']['python'] == '.'.join(map(str, sys.version_info[:3]))
  assert record['versions']['numpy']
  assert re.fullmatch('[0-9a-f]{40}(-dirty)?|None', str(record['git_commit']))
  assert record['machine']['cores'] >= 1 and record['machine']['memory_bytes'] > 1e8
  assert 'hunter2' not in text and 'A_SECRET' not in text
  assert os.listdir(folder) == ['run.json']


def test_an_unreadable_run_json_is_moved_aside(tmp_path):
  (tmp_path / 'run.json').write_text('{"flags": ')
  run_record.write_run_json(str(tmp_path), {'seed': 1}, {})
  assert json.loads((tmp_path / 'run.json').read_text())['starts'] == []
  assert (tmp_path / 'run.json.unreadable').read_text() == '{"flags": '


@pytest.mark.parametrize('text', ['', '{"flags": ', '[' * 99_999, '\0' * 300])
def test_who_only_reads_a_run_json_changes_nothing(text, tmp_path, caplog):
  path = tmp_path / 'run.json'
  path.write_text(text)
  (tmp_path / 'run.json.unreadable').write_text('an earlier one')
  assert run_record.read_run_json(str(path)) == {}
  assert 'run.json is no JSON' in caplog.text
  assert path.read_text() == text
  run_record.write_run_json(str(tmp_path), {'seed': 2}, {})
  assert (tmp_path / 'run.json.unreadable').read_text() == 'an earlier one'
  assert (tmp_path / 'run.json.unreadable-2').read_text() == text


def test_a_run_json_for_a_full_disk_leaves_the_one_before(tmp_path):
  run_record.write_run_json(str(tmp_path), {'seed': 1}, {})
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # Bytes; the disk of this process.
  try:
    with pytest.raises(OSError, match='too large'):
      run_record.write_run_json(str(tmp_path), {'seed': 2}, {})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert run_record.read_run_json(str(tmp_path / 'run.json'))['flags'] == {'seed': 1}
  assert os.listdir(tmp_path) == ['run.json']
