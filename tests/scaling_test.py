"""benchmarks/scaling.py: which task is on which host; waiting_experiment.py trains."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT, whole_rows

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

import scaling
from clusters import ShapedNetwork


def placed(learners, servers):
  """{task: address} and the words of one learner's command line."""
  network = ShapedNetwork(2 * learners + 1, 1)
  made = scaling.commands(network, '/folder', learners, servers, ['--flag'], ['1.0', '0.5'])
  lists = dict(word[2:].split('=') for word in made['learner-0'] if '_hosts=' in word)
  addresses = {
    f'{job}-{i}': address.partition(':')[0]
    for job in ('ps', 'learner', 'actor')
    for i, address in enumerate(lists[f'{job}_hosts'].split(','))
  }
  assert made.keys() == addresses.keys()
  for task, words in made.items():
    host = next(i for i in range(2 * learners + 1) if network.address(i) == addresses[task])
    assert words[: len(network.inside(host))] == network.inside(host)
    assert ['1.0', '0.5'] == words[words.index('1.0') : words.index('1.0') + 2]
    assert words[-1] == '--flag'
  return addresses


@pytest.mark.parametrize('learners', [1, 2, 8])
def test_one_parameter_server_for_each_learner_is_on_its_host(learners):
  addresses = placed(learners, learners)
  for i in range(learners):
    assert addresses[f'ps-{i}'] == addresses[f'learner-{i}'] != addresses[f'actor-{i}']
  assert len(set(addresses.values())) == 2 * learners


def test_a_single_parameter_server_has_a_host_of_its_own():
  addresses = placed(4, 1)
  assert list(addresses.values()).count(addresses['ps-0']) == 1
  assert len(set(addresses.values())) == 9


def test_addresses_differ_and_are_none_of_a_network_or_broadcast():
  addresses = [ShapedNetwork.address(i) for i in range(450)]
  assert len(set(addresses)) == 450
  assert all(1 <= int(part) <= 254 for a in addresses for part in a.split('.')[3:])


@pytest.mark.slow
def test_the_program_that_waits_instead_of_computing_trains(tmp_path):
  program = os.path.join(ROOT, 'benchmarks', 'waiting_experiment.py')
  flags = [
    '--level_name=PongNoFrameskip-v4', '--agent_name=SimpleConvNetAgent', '--batch_size=4',
    '--envs_per_actor=8', '--num_actors=1', '--unroll_length=5', '--metrics_secs=0.1',
    '--total_environment_frames=800', f'--logdir={tmp_path}',
  ]  # fmt: skip
  command = [sys.executable, program, '0.2', '0.1', *flags]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
  assert done.returncode == 0, done.stderr
  row = whole_rows(tmp_path / 'metrics.csv')[-1]
  assert (int(row['updates']), int(row['environment_frames'])) == (10, 800)
  assert {row[f'{name}_loss'] for name in ('total', 'policy', 'baseline', 'entropy')} == {'0'}


def test_a_table_is_drawn_again_without_measuring(tmp_path):
  table, picture = tmp_path / 'table.csv', tmp_path / 'table.png'
  row = 'SimpleConvNetAgent,1,1000,True,{0},{0},0.9,0.9,{1},1.0,0.1,0.1,1\n'
  program = os.path.join(ROOT, 'benchmarks', 'scaling.py')

  def drawn(*rows):
    table.write_text('\n'.join([','.join(scaling.COLUMNS), *(row.format(*one) for one in rows)]))
    command = [sys.executable, program, f'--draw={table}']
    assert subprocess.run(command, capture_output=True, check=True, timeout=120).stdout == b''
    assert picture.read_bytes().startswith(b'\x89PNG\r\n')
    return picture.read_bytes()

  one = (1, 1.0)
  assert len({drawn(one), drawn(one, (8, 7.0)), drawn(one, (8, 2.0))}) == 3
