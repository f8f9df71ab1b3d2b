"""Signs that a run does not learn, each told once: what is seen, and which flags may help.

Whoever waits for whom is `verdicts.Verdicts`; this is about what is learned.
"""

import collections
import math

PERSISTENT_ROWS = 30  # As long as so many rows say the same, by default five minutes.
_NEARLY_RANDOM, _NEARLY_CERTAIN = 0.98, 0.02  # Shares of the largest entropy there is.
_GROWN = 10.0  # Times as large as before.


class LearningSigns:
  """Looks at one row of metrics after another.

  Args:
    num_actions: of the policy; its entropy is at most the natural logarithm of it.
    steps_per_update: agent steps that the losses of one learner's update are sums over.
    gradient_clipping: largest norm of a gradient that is applied whole.
  """

  def __init__(self, num_actions, steps_per_update, gradient_clipping):
    self._most, self._steps = math.log(num_actions), steps_per_update
    self._clipping = gradient_clipping
    self._rows = collections.Counter()  # Rows in sequence that showed a sign, by its name.
    self._enough = {'baseline': 1}  # Its two means are over many rows already.
    self._baselines = collections.deque(maxlen=2 * PERSISTENT_ROWS)
    self._told = set()

  def add(self, row):
    """Takes a row of `statistics.RunStatistics.row`; returns new sentences, mostly none."""
    if row['entropy_loss'] is None:  # No update since the row before.
      return []
    self._baselines.append(row['baseline_loss'])
    sentences = []
    for name, sentence in self._seen(row).items():
      self._rows[name] = self._rows[name] + 1 if sentence else 0
      if self._rows[name] >= self._enough.get(name, PERSISTENT_ROWS) and name not in self._told:
        self._told.add(name)
        sentences.append(sentence)
    return sentences

  def _seen(self, row):
    """{name of a sign: its sentence, or '' where it is not seen}."""
    entropy, norm = -row['entropy_loss'] / self._steps, row['gradient_norm']
    of_most = f'the entropy of the policy is {entropy:.3g} of at most {self._most:.3g}'
    random, certain = self._most * _NEARLY_RANDOM, self._most * _NEARLY_CERTAIN
    return {
      'random': f'{of_most}: it still plays almost at random; a smaller --entropy_cost, a larger '
      '--learning_rate or another --observation_scaling may help'
      if entropy > random
      else '',
      'certain': f'{of_most}: it hardly tries anything else any more; a larger --entropy_cost (or '
      '--entropy_cost_final) or a smaller --learning_rate may help'
      if entropy < certain
      else '',
      'clipped': f'gradients have a norm of {norm:.3g} and are cut to --gradient_clipping='
      f'{self._clipping:g} in most updates; --value_normalisation, a smaller --learning_rate or '
      '--baseline_cost, or a larger --gradient_clipping may help'
      if norm > self._clipping
      else '',
      'baseline': self._grown_baseline(),
    }

  def _grown_baseline(self):
    if len(self._baselines) < self._baselines.maxlen:
      return ''
    losses = list(self._baselines)
    before = sum(losses[:PERSISTENT_ROWS]) / PERSISTENT_ROWS
    now = sum(losses[PERSISTENT_ROWS:]) / PERSISTENT_ROWS
    if now <= _GROWN * before:
      return ''
    return (
      f'the baseline loss grew from {before:.3g} to {now:.3g}: the values run away from what is '
      'observed; a smaller --learning_rate or --baseline_cost, --reward_clipping or '
      '--value_normalisation may help'
    )
