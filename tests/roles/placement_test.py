"""roles.wiring, runtime.placement: what lives where, what crosses, the same names in all roles."""

import collections

import pytest
import tensorflow as tf

import nets
from learner_fixtures import small_options, small_settings
from roles import wiring
from runtime.checkpoints import Checkpoints, saved_variables
from runtime.cluster import LOCAL, Cluster
from simple_spaces import fields
from structs import ArraySpec

pytestmark = pytest.mark.slow

PS = tuple(f'ps{i}:1' for i in range(3))
LEARNERS = ('learner0:1', 'learner1:1')
ACTORS = tuple(f'actor{i}:1' for i in range(4))
CATCH = dict(
  agent_name='SimpleConvNetLSTMAgent', **fields((10, 5, 1), 'uint8', 3),
)  # fmt: skip
STATE = ('VarHandleOp', 'VariableV2', 'FIFOQueueV2', 'ConditionalAccumulator',
         'ResourceConditionalAccumulator', 'MutableHashTableV2')  # fmt: skip
COUNTERS = ['environment_frames', 'global_step', 'gradient_norm']

Built = collections.namedtuple('Built', 'graph side optimizer variables')


def place(job, task, num_ps=3):
  return Cluster(PS[:num_ps], LEARNERS, ACTORS, job, task)


def build_learner(cluster, **changes):
  """The graph of a learner, or that of local training without its actors."""
  with tf.Graph().as_default() as graph:
    settings = small_settings(**{**CATCH, **changes})
    wired = wiring.Graph(settings, cluster)
    queue = wired.unroll_queue(max(0, cluster.task))
    side = wiring.LearnerSide(wired, queue, [cluster.own_device + '/cpu:0'])
    return Built(graph, side, side.sync_optimizer, tf.compat.v1.global_variables())


@pytest.fixture(scope='module', params=['true', 'false'], ids=['batched', 'unmerged'])
def actor(request):
  """The graph of actor 3, with two loops."""
  cluster = place('actor', 3)
  options = small_options(num_actors=2, envs_per_actor=1, dynamic_batching=request.param)
  with tf.Graph().as_default() as graph:
    settings = small_settings(**CATCH)
    wired = wiring.Graph(settings, cluster)
    wired.unroll_queue(cluster.learner_of_actor)
    batches = wiring.create_environments(settings, cluster, options, 0)
    side = wiring.ActorSide(wired, batches, options.dynamic_batching)
    side.close()
    return Built(graph, side, None, tf.compat.v1.global_variables())


@pytest.fixture(scope='module')
def sync_learner():
  return build_learner(place('learner', 1))


@pytest.fixture(scope='module')
def async_learner():
  return build_learner(place('learner', 1), sync_learners=False)


def task_of(device):
  """'ps:2' of a device name."""
  spec = tf.DeviceSpec.from_string(device)
  return f'{spec.job}:{spec.task}' if spec.job else ''


def state(built):
  """{name: task} of everything in a graph that keeps something from one call to the next."""
  return {op.name: task_of(op.device) for op in built.graph.get_operations() if op.type in STATE}


def global_names(built):
  return [v.op.name for v in built.variables]


def on_ps(tasks):
  return all(task in ('ps:0', 'ps:1', 'ps:2') for task in tasks)


def assert_shared_state_is_on_ps_0(places):
  """Takes the state that all roles share out of `places`."""
  shared = ['shared_settings', 'run_is_done', 'chief_has_left', 'dropped_reports', 'roll_call']
  shared.append('initialized_run')
  tables = ['MutableHashTableV2', 'MutableHashTableV2_1']  # Who has left, and spare actors.
  # Queues are known by their shared_name; their operations are numbered, reports come first.
  for name in [*shared, *tables, 'fifo_queue']:
    assert places.pop(name) == 'ps:0', name


def test_a_learner_has_its_queue_and_copies_and_all_else_is_on_the_ps(sync_learner):
  places = state(sync_learner)
  assert_shared_state_is_on_ps_0(places)
  assert on_ps(places.pop(name) for name in global_names(sync_learner))
  assert places.pop('sync_token_q') == task_of(
    sync_learner.graph.get_operation_by_name('global_step').device
  )
  accumulators = {name: places.pop(name) for name in list(places) if 'grad_accum' in name or
                  'conditional_accumulator' in name}  # fmt: skip
  assert len(accumulators) == len(weights(sync_learner)) and on_ps(accumulators.values())
  assert set(places.values()) == {'learner:1'}
  copies = {name for name in places if name.startswith('agent_1/')}
  # What says how the slices are cut is part of the graph, but never has a value.
  templates = {name for name in places if name.startswith('agent/')}
  assert {f'agent/{name.partition("/")[2]}' for name in copies} == templates
  others = set(places) - copies - templates
  assert others == {'fifo_queue_1', 'staged', 'sync_rep_local_step'}
  unrolls = sync_learner.graph.get_operation_by_name('fifo_queue_1')
  assert unrolls.get_attr('shared_name') == b'unrolls'
  assert unrolls.get_attr('capacity') == 100


def weights(built):
  """The slices of what is trained."""
  return [v for v in built.variables if v.op.name not in COUNTERS and 'RMSProp' not in v.op.name]


def test_global_variables_are_weights_slots_and_counters(sync_learner):
  agent = [v.op.name for v in weights(sync_learner)]
  assert agent == ['weights_0', 'weights_1', 'weights_2']
  slots = [f'{name}/RMSProp{i}' for name in agent for i in ('', '_1')]
  assert sorted(global_names(sync_learner)) == sorted(agent + slots + COUNTERS)


def test_slots_and_accumulators_are_where_their_variable_is(sync_learner):
  places = state(sync_learner)
  for variable in weights(sync_learner):
    name = variable.op.name
    for slot in ('RMSProp', 'RMSProp_1'):
      assert places[f'{name}/{slot}'] == places[name]
  for op in sync_learner.graph.get_operations():
    if op.type in ('ResourceApplyRMSProp', 'ResourceAccumulatorTakeGradient',
                   'ResourceAccumulatorApplyGradient'):  # fmt: skip
      assert task_of(op.device) == task_of(op.inputs[0].op.device)


@pytest.mark.parametrize('agent', ['SimpleConvNetAgent', 'ResNetLSTMAgent'])
@pytest.mark.parametrize('num_ps', [1, 2, 3])
def test_parameter_servers_hold_the_same_number_of_bytes_whatever_the_network(agent, num_ps):
  settings = dict(
    sync_learners=False, agent_name=agent, observation=(ArraySpec('', (84, 84, 4), 'uint8'),)
  )
  built = build_learner(place('learner', 0, num_ps), **settings)
  sizes = {task_of(v.device): v.shape.num_elements() for v in weights(built)}
  assert sorted(sizes) == [f'ps:{i}' for i in range(num_ps)]
  assert len(weights(built)) == num_ps and len(set(sizes.values())) == 1
  with tf.Graph().as_default():
    alone = nets.build_agent(agent, small_settings(**{**CATCH, **settings}))
    expected = sum(v.shape.num_elements() for v in alone.trainable_variables)
  assert 0 <= sum(sizes.values()) - expected <= 16 * num_ps


def test_an_actor_keeps_its_weights_environments_and_core_states(actor):
  places = state(actor)
  assert_shared_state_is_on_ps_0(places)
  assert on_ps(places.pop(name) for name in global_names(actor))
  # Actors are dealt to the learners round robin: this is the last of four, there are two learners.
  assert places.pop('fifo_queue_1') == 'learner:1'
  assert set(places.values()) == {'actor:3'}
  copies = {name.split('/')[0] for name in places if '/' in name} - {'agent'}
  assert copies in ({'agent_1'}, {'agent_1', 'agent_2'})
  others = {name.rsplit('_', 1)[0] if name[-1].isdigit() else name
            for name in places if '/' not in name}  # fmt: skip
  assert others == {'actor_state'}


def test_an_actor_steps_without_touching_another_task(actor):
  loops = [op for op in actor.graph.get_operations() if op.type == 'While']
  assert len(loops) == 2
  for loop in loops:
    handles = [t.op for t in loop.inputs if t.dtype == tf.resource]
    assert handles
    assert {task_of(op.device) for op in handles} == {'actor:3'}
    assert task_of(loop.device) == 'actor:3'


def needed_for(fetches):
  """All operations that run when these do."""
  needed, todo = set(), [t if isinstance(t, tf.Operation) else t.op for t in fetches]
  while todo:
    op = todo.pop()
    if op not in needed:
      needed.add(op)
      todo += [t.op for t in op.inputs] + list(op.control_inputs)
  return needed


def location(op):
  """The task that runs an operation: that of its device, but of what it reads or writes first."""
  for tensor in op.inputs:
    if tensor.dtype == tf.resource:
      return location(tensor.op)
  return task_of(op.device)


def crossings(ops):
  """(source, destination) -> the arrays, not scalars, that go from one task to another."""
  found = collections.defaultdict(set)
  for op in ops:
    for tensor in op.inputs:
      source, destination = location(tensor.op), location(op)
      if source and destination and source != destination and tensor.dtype != tf.resource:
        if tensor.shape.rank != 0:
          found[source, destination].add(tensor)
  return found


@pytest.mark.parametrize('name', ['sync_learner', 'async_learner'])
def test_an_update_moves_each_weight_and_each_gradient_once(name, request):
  built = request.getfixturevalue(name)
  found = crossings(needed_for(built.side.update.values()))
  variables = weights(built)
  for ps in range(3):
    mine = sorted(str(v.shape) for v in variables if task_of(v.device) == f'ps:{ps}')
    for way in ((f'ps:{ps}', 'learner:1'), ('learner:1', f'ps:{ps}')):
      assert sorted(str(t.shape) for t in found.pop(way)) == mine, way
  assert not found


def test_only_scalars_move_when_the_sum_is_clipped_and_applied(sync_learner):
  (aggregate,) = sync_learner.optimizer.get_chief_queue_runner().enqueue_ops
  needed = needed_for([aggregate])
  assert sum(op.type == 'ResourceApplyRMSProp' for op in needed) == len(weights(sync_learner))
  # The norm of each gradient is computed where the gradient is.
  for op in needed:
    if op.type == 'L2Loss':
      assert task_of(op.device) == task_of(op.inputs[0].op.device) != ''
  # Tokens for the learners are a vector of one step each.
  moved = {t for tensors in crossings(needed).values() for t in tensors}
  assert all(tensor.shape.num_elements() <= len(LEARNERS) for tensor in moved)


def test_names_and_shapes_are_the_same_in_every_role(sync_learner, async_learner, actor):
  def described(built):
    return {v.op.name: (v.shape, v.dtype) for v in built.variables}

  expected = described(sync_learner)
  assert described(async_learner) == expected
  assert described(build_learner(place('learner', 0))) == expected
  own = described(actor)
  assert own.items() <= expected.items()
  assert set(own) == {v.op.name for v in weights(sync_learner)} | set(COUNTERS)


@pytest.mark.parametrize('num_ps', [1, 3])
def test_a_checkpoint_has_the_names_and_shapes_of_the_variables_with_any_number_of_ps(num_ps):
  def described(built):
    with built.graph.as_default():
      saved = saved_variables(built.side.whole_weights())
    return {name: v.shape for name, v in saved.items()}

  with tf.Graph().as_default():
    alone = nets.build_agent(CATCH['agent_name'], small_settings(**CATCH)).variables
    shapes = {v.op.name: v.shape for v in alone}
  slots = {f'{name}/RMSProp{i}': shape for name, shape in shapes.items() for i in ('', '_1')}
  expected = {**shapes, **slots, **{name: tf.TensorShape([]) for name in COUNTERS}}
  assert described(build_learner(place('learner', 0, num_ps))) == expected
  assert described(build_learner(LOCAL)) == expected


def test_roles_agree_where_a_variable_is(sync_learner, async_learner, actor):
  expected = {v.op.name: v.device for v in sync_learner.variables}
  for other in (async_learner, actor):
    for variable in other.variables:
      assert variable.device == expected[variable.op.name]


def test_only_the_chief_writes_and_reads_checkpoints():
  cluster = place('learner', 0)
  built = build_learner(cluster)
  with built.graph.as_default():
    Checkpoints('/nowhere', cluster.own_device, whole=built.side.whole_weights())
  ops = [op for op in built.graph.get_operations() if op.type in ('SaveV2', 'RestoreV2')]
  assert sorted(op.type for op in ops) == ['RestoreV2', 'SaveV2']
  assert {task_of(op.device) for op in ops} == {'learner:0'}


def test_everything_is_on_one_machine_in_local_training():
  built = build_learner(LOCAL)
  assert {task_of(op.device) for op in built.graph.get_operations()} == {''}
  assert built.optimizer is None
