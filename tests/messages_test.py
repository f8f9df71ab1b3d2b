"""What an update costs a cluster in messages, as the trace of a real one tells."""

import collections
import json
import re

from cluster_fixtures import LIMIT_SECS, new_cluster  # noqa: F401
from conftest import eventually

TASK = r'/job:(\w+)/\S*task:(\d+)/\S*'
MESSAGE = re.compile(rf'\[([\d.]+)([KM]?)B\] \[\S+\] \S+ from {TASK} to {TASK}$')


def test_a_learner_exchanges_weights_and_gradients_once_with_each_server(new_cluster, tmp_path):  # noqa: F811
  traced = tmp_path / 'messages.json'
  cluster = new_cluster(ps=2, learner=2, actor=2)
  for name in cluster.names:
    tracing = 'tests/altered_experiment.py', f'messages={traced}'
    cluster.start(name, program=tracing if name == 'learner:1' else ('experiment.py',))
  eventually(traced.exists, LIMIT_SECS, cluster.logs)

  updates = json.loads(traced.read_text())
  assert len(updates) == 4
  seen = collections.Counter()
  for lines in updates:
    large, small = collections.Counter(), 0
    for line in lines:
      size, unit, *ends = MESSAGE.match(line).groups()
      if unit or float(size) > 8:
        large[tuple(ends)] += 1
      else:
        small += 1
    assert set(large.values()) == {1}, lines
    # Counters, rates and the token that lets the next update begin.
    assert small <= 12
    seen |= large
  # A trace may lack a line, where a server turned tracing on after the message came.
  assert seen == {
    **{('ps', server, 'learner', '1'): 1 for server in '01'},
    **{('learner', '1', 'ps', server): 1 for server in '01'},
  }
