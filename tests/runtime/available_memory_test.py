"""runtime.memory: the memory of a machine, and the limits of control groups of both versions."""

import math

import pytest

from runtime import memory

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path):
  """A function that makes files below a root; the root has a machine of 8 GB."""

  def write(path, text):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    return str(tmp_path)

  write('proc/meminfo', 'MemTotal:       9000000 kB\nMemAvailable:   8000000 kB\nHugePages: 0\n')
  return write


def test_a_machine_without_limits_has_what_it_says(machine):
  root = machine('sys/fs/cgroup/memory.max', 'max\n')
  assert memory.available_bytes(root) == 8_000_000 * 1024
  assert 0 < memory.available_bytes() < 1e14


@pytest.mark.parametrize(
  'folder, limit, usage, cached',
  [
    ('sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
    ('sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes',
     'total_inactive_file'),
  ],
)  # fmt: skip
def test_a_container_has_what_its_limit_leaves(machine, folder, limit, usage, cached):
  machine(f'{folder}/{limit}', f'{4 * GB}\n')
  machine(f'{folder}/{usage}', f'{3 * GB}\n')
  root = machine(f'{folder}/memory.stat', f'anon 5\n{cached} {GB}\n')
  assert memory.available_bytes(root) == 2 * GB


def test_without_any_such_file_it_is_not_known(tmp_path):
  assert memory.available_bytes(str(tmp_path)) == math.inf
