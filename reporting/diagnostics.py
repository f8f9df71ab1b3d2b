"""Detects why a run does not learn: collapsed entropy, clipped gradients, diverging values.

Each problem is reported once, with the flags that may help.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from structs import ActionPart

PERSISTENT_ROWS = 30  # Consecutive rows that show a problem; five minutes by default.
_NEARLY_UNIFORM, _NEARLY_DETERMINISTIC = 0.98, 0.02  # Fractions of the maximum entropy.
_GROWTH = 10.0  # Growth factor of the baseline loss that is a problem.


def _max_entropy(action: Sequence[ActionPart]) -> float:
  """Returns the maximum entropy of a policy in nats; 0 if it has none."""
  if any(part.kind == 'continuous' for part in action):
    return 0.0
  return sum(
    math.log(part.size) if part.kind == 'discrete' else part.size * math.log(2) for part in action
  )


class LearningDiagnostics:
  """Checks the rows of metrics.

  Args:
    action: the parts of an action, which give the maximum entropy; the entropy of continuous parts
      has none, and is not checked.
    steps_per_update: agent steps that the losses of one learner's update sum over.
    gradient_clipping: global norm above which gradients are scaled down.
  """

  def __init__(self, action: Sequence[ActionPart], steps_per_update: int, gradient_clipping: float):
    self._max_entropy, self._steps = _max_entropy(action), steps_per_update
    self._clipping = gradient_clipping
    self._rows = collections.Counter()  # By problem, rows in sequence that showed it.
    # By problem, rows needed; the two means of 'baseline' are over many rows already.
    self._rows_needed = {'baseline': 1}
    self._baseline_losses: collections.deque[float] = collections.deque(maxlen=2 * PERSISTENT_ROWS)
    self._reported: set[str] = set()

  def add(self, row: Mapping[str, Any]) -> list[str]:
    """Adds a row of `RunStatistics.row`; returns a sentence for each new problem."""
    if row['entropy_loss'] is None:  # There was no update since the last row.
      return []
    self._baseline_losses.append(row['baseline_loss'])
    sentences = []
    for name, sentence in self._problems(row).items():
      self._rows[name] = self._rows[name] + 1 if sentence else 0
      rows_needed = self._rows_needed.get(name, PERSISTENT_ROWS)
      if self._rows[name] >= rows_needed and name not in self._reported:
        self._reported.add(name)
        sentences.append(sentence)
    return sentences

  def _problems(self, row: Mapping[str, Any]) -> dict[str, str]:
    """Returns {problem: sentence}; the sentence is '' if the row does not show the problem."""
    entropy, norm = -row['entropy_loss'] / self._steps, row['gradient_norm']
    of_most = f'the entropy of the policy is {entropy:.3g} of at most {self._max_entropy:.3g}'
    uniform = self._max_entropy * _NEARLY_UNIFORM
    deterministic = self._max_entropy * _NEARLY_DETERMINISTIC
    return {
      'uniform': f'{of_most}: it still plays almost at random; a smaller --entropy_cost, a larger '
      '--learning_rate or another --observation_scaling may help'
      if self._max_entropy and entropy > uniform
      else '',
      'deterministic': f'{of_most}: it hardly tries anything else any more; a larger '
      '--entropy_cost (or --entropy_cost_final) or a smaller --learning_rate may help'
      if self._max_entropy and entropy < deterministic
      else '',
      'clipped': f'gradients have a norm of {norm:.3g} and are cut to --gradient_clipping='
      f'{self._clipping:g} in most updates; --return_normalisation=popart, a smaller '
      '--learning_rate or --baseline_cost, or a larger --gradient_clipping may help'
      if norm > self._clipping
      else '',
      'baseline': self._grown_baseline(),
    }

  def _grown_baseline(self) -> str:
    if len(self._baseline_losses) < 2 * PERSISTENT_ROWS:
      return ''
    losses = list(self._baseline_losses)
    before = sum(losses[:PERSISTENT_ROWS]) / PERSISTENT_ROWS
    now = sum(losses[PERSISTENT_ROWS:]) / PERSISTENT_ROWS
    if now <= _GROWTH * before:
      return ''
    return (
      f'the baseline loss grew from {before:.3g} to {now:.3g}: the values run away from what is '
      'observed; a smaller --learning_rate or --baseline_cost, --reward_clipping or '
      '--return_normalisation=popart may help'
    )
