"""benchmarks/throughput.py: rates, stolen time and the choice of settings."""

import os
import sys

import pytest

from conftest import ROOT
from envs.process_batch import ProcessBatch
from learner_fixtures import small_settings
from structs import ActionPart

sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))

import throughput


@pytest.mark.timeout(120)
def test_the_environment_figure_counts_steps_and_no_restarts(monkeypatch):
  calls = []
  for name in ('reset', 'step'):
    original = getattr(ProcessBatch, name)

    def counted(self, *args, name=name, original=original):
      calls.append(name)
      return original(self, *args)

    monkeypatch.setattr(ProcessBatch, name, counted)
  settings = small_settings(level_name='impala/Catch-v0', action=(ActionPart('discrete', 3),))
  assert throughput.environment_rate(settings, 2, 0.5) > 0
  assert calls.count('reset') == 1
  assert calls.count('step') >= 2 * settings.unroll_length  # Several runs of the graph.


def test_the_share_of_stolen_time(tmp_path):
  before = [100, 0, 50, 800, 1, 2, 3, 44]
  (tmp_path / 'stat').write_text('cpu  130 0 70 820 1 2 3 74 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n')
  after = throughput.processor_times(tmp_path / 'stat')
  assert throughput.stolen_share(before, after) == 30 / (30 + 20 + 20 + 30)
  assert len(throughput.processor_times()) == 8
