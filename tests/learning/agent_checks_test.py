"""learning.agent_checks: which agents of a user are refused, and why."""

import pytest
import tensorflow as tf

import nets
from common.own_code import BadOwnCode
from simple_spaces import simple_spaces
from structs import ActionPart, ArraySpec

VECTORS = simple_spaces((5,), 'float32', 3)
IMAGES = simple_spaces((12, 12, 1), 'uint8', 4)


class Nest:
  """A vector, a text and an action mask; a choice, two bits and a number."""

  observation = (
    ArraySpec('vector', (5,), 'float32'),
    ArraySpec('text', (4,), 'int32'),
    ArraySpec('action_mask', (3,), 'bool'),
  )
  action = (ActionPart('discrete', 3), ActionPart('continuous', 1, (None,), (1.0,)))


def check(name, spaces=VECTORS, precision='float32', scaling='unit', popart=False):
  nets.check_agent(name, spaces, precision, scaling, popart)


def built(name, *args):
  """The class of an agent that passes the check, and how many weights it trains."""
  check(name, *args)
  with tf.Graph().as_default():
    agent = nets.build_agent(name, *(args or (VECTORS,)))
    return type(agent).__name__, sum(v.shape.num_elements() for v in agent.trainable_variables)


@pytest.mark.parametrize('name', ['own_agents:Plain', 'own_agents:Noisy'])
def test_what_keeps_to_the_interface_is_an_agent_whatever_its_class(name):
  name_of_class, weights = built(name)
  assert name_of_class == name.partition(':')[2] and weights > 0


def test_a_subclass_takes_what_the_agents_of_nets_take():
  name, weights = built('own_agents:OfVectors', Nest, 'bfloat16', 'running', True)
  assert name == 'OfVectors' and weights > 0
  name, weights = built('examples.gru_agent:GRUAgent')
  assert name == 'GRUAgent' and weights > 0


@pytest.mark.parametrize('name, words', [
    ('no_such_module:Agent', ['cannot be imported', 'no_such_module', 'PYTHONPATH']),
    ('own_agents:Plan', ['no class Plan', 'did you mean own_agents:Plain?']),
    ('own_agents:Raises', ['raised ', '(own_agents.py:']),
    ('own_agents:TakesNothing', ['raised TypeError', '__init__()']),
    ('own_agents:NoUnroll', ['has no method unroll']),
    ('own_agents:NoDistribution', ['distribution_of(spaces.action)']),
    ('own_agents:NoModule', ['no trainable_variables', 'sonnet.Module']),
    ('own_agents:NoState', ['no (AgentOutput, core state) from __call__']),
    ('own_agents:NoTensor', ['a float as baseline of __call__', 'float32 of [1], is due']),
    ('own_agents:WrongRank', ['float32 of [1, 1] as baseline of __call__', 'of [1] is due']),
    ('own_agents:WrongDtype', ['float64 of [1, 3] as policy_logits', 'float32 of [1, 3] is due']),
    ('own_agents:WrongAction', ['int64 of [1] as action', 'int32 of [1] is due']),
    ('own_agents:OtherState', ['core state float32 of [1, 5, 1]', "('float32 of [1, 5, 1]',)"]),
    ('own_agents:GrowingState', ['[1, 10, 1]', '[1, 5, 1]', 'is due']),
    ('own_agents:DoubleState', ['float64 of [1, 5, 1] in initial_state']),
    ('own_agents:Forgets', ['forgets']),
    ('own_agents:NeverResets', ['where `done`']),
    ('own_agents:UnrollsOtherwise', ['from unroll than from single steps']),
    ('own_agents:NewLayers', ['creates variables with every call']),
    ('own_agents:Unused', ['variable', 'spare', 'cannot be trained']),
    ('own_agents:DoubleVariable', ['factor', 'is no float32']),
    ('own_agents:Untrained', ['no trainable variables']),
    ('own_agents:OneSizeOnly', ['raised TypeError', '(own_agents.py:']),
])  # fmt: skip
def test_what_breaks_the_interface_is_refused_in_a_sentence(name, words):
  with pytest.raises(BadOwnCode) as refused:
    check(name)
  (line,) = str(refused.value).splitlines()
  assert line.startswith(f'--agent_name={name} ')
  for word in words:
    assert word in line, line


def test_settings_that_an_agent_takes_no_notice_of_are_refused():
  with pytest.raises(BadOwnCode, match='observation_scaling=running has no effect'):
    check('own_agents:Plain', scaling='running')
  with pytest.raises(BadOwnCode, match='return_normalisation=popart has no effect'):
    check('own_agents:Plain', popart=True)
  with pytest.raises(BadOwnCode, match='raised'):  # An agent of vectors gets images.
    check('own_agents:OfVectors', IMAGES)


def test_built_in_agents_need_no_check_and_a_check_leaves_no_graph(graph):
  check('ResNetAgent', VECTORS)
  check('own_agents:Plain')
  assert not graph.get_operations() and tf.compat.v1.get_default_graph() is graph
