"""reporting.diagnostics: a problem that lasts is reported once; a good run has none."""

import math

import pytest
from rows import a_row

from reporting.diagnostics import PERSISTENT_ROWS, LearningDiagnostics
from structs import ActionPart

STEPS, CLIPPING = 80, 40.0
UNIFORM = math.log(6)


def row(entropy=0.8 * UNIFORM, norm=20.0, baseline=1.0):
  return a_row(entropy_loss=-entropy * STEPS, gradient_norm=norm, baseline_loss=baseline)


def told(*rows):
  diagnostics = LearningDiagnostics([ActionPart('discrete', 6)], STEPS, CLIPPING)
  return [sentence for one in rows for sentence in diagnostics.add(one)]


def test_a_good_run_hears_nothing():
  assert told(*(row(norm=norm, baseline=norm) for norm in range(1, 40))) == []


@pytest.mark.parametrize(
  'bad, expected',
  [
    (dict(entropy=0.995 * UNIFORM), ['1.78 of at most 1.79', 'almost at random', '--entropy_cost']),
    (dict(entropy=0.001), ['0.001 of at most 1.79', 'hardly tries', '--entropy_cost_final']),
    (dict(norm=55.0), ['norm of 55', '--gradient_clipping=40', '--learning_rate']),
  ],
)
def test_a_problem_that_lasts_is_reported_once(bad, expected):
  assert told(*[row(**bad)] * (PERSISTENT_ROWS - 1), row(), *[row(**bad)] * 3) == []
  (sentence,) = told(row(), *[row(**bad)] * 3 * PERSISTENT_ROWS)
  assert all(text in sentence for text in expected)


def test_a_baseline_loss_that_grows_is_told_once():
  small, large = [row()] * 2 * PERSISTENT_ROWS, [row(baseline=25.0)] * 2 * PERSISTENT_ROWS
  (sentence,) = told(*small, *large)
  assert 'baseline loss grew from 1 to' in sentence and '--learning_rate' in sentence
  assert told(*small, *[row(baseline=9.0)] * 2 * PERSISTENT_ROWS) == []
  assert told(*large) == []


def test_rows_without_updates_say_nothing():
  assert told(*[a_row()] * 2 * PERSISTENT_ROWS) == []
