"""A learner that waits because another one has no actors is not stuck."""

import pytest

from roles.expected_waits import missing_actors_of_a_learner
from runtime.cluster import Cluster

PLACE = Cluster(('a:1',), ('b:1', 'c:1'), ('d:1', 'e:1', 'f:1'), 'learner', 0)


@pytest.mark.parametrize(
  'there, lost',
  [
    (None, []),  # The chief has not said yet.
    ({'learner:1', 'actor:0', 'actor:1'}, []),
    ({'learner:1', 'actor:1'}, ['actor:0 at d:1', 'actor:2 at f:1']),
    ({'actor:0', 'actor:2', 'learner:1'}, ['actor:1 at e:1']),
    ({'actor:0', 'actor:7'}, []),  # A spare actor feeds learner 1.
    (set(), ['actor:0 at d:1', 'actor:2 at f:1']),
  ],
)
def test_the_actors_of_a_learner_that_has_none_are_named(there, lost):
  assert missing_actors_of_a_learner(PLACE, there) == lost
