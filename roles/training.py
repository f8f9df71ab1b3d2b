"""Builds and runs each kind of training task: local training, a learner, an actor.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561). `train` shows all of local training.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from acting.actor import EnqueueOp
from acting.fixed_lag import FixedLag
from evaluation.periodic import PeriodicEvaluator
from reporting.own_observers import Observers
from reporting.writers import RunWriter
from roles import population, wiring
from roles.acting_state import ActingState
from roles.checkpointer import Checkpointer, Evaluator
from roles.connection import Connection, RunSettings, announced_settings, chief_settings
from roles.expected_waits import ExpectedWaits
from roles.initialization import VariableInitializer, run_id
from roles.lost_tokens import LostTokens
from roles.observers import EndOfRun
from roles.observing import Observing
from roles.parts import Acting, Chief, Learning, Part, Reporting, SyncUpdates
from roles.records import Records, open_writer
from roles.reports import Reports
from roles.resuming import RunLock
from roles.role import Role
from roles.sending import ReportSender, UnrollSender, actor_senders
from roles.settings import Options, Settings, derived_seed, initial_weights
from roles.task import Task
from runtime.checkpoints import Checkpoints
from runtime.cluster import Cluster
from runtime.process import Interrupts

v1 = tf.compat.v1

# Flags that the chief passes on to its evaluations: those that name modules, and its options.
_RUN_FLAGS = ('level_name', 'agent_name', 'env_kwargs', 'env_wrappers', 'imports')
_EVALUATION_FLAGS = ('eval_protocol', 'test_num_episodes', 'deterministic', 'max_episode_frames')


def run(
  cluster: Cluster,
  options: Options,
  interrupts: Interrupts,
  lock: RunLock | None = None,
  observers: Observers | None = None,
) -> None:
  """Runs local training, a learner or an actor until the run ends.

  Args:
    cluster: the cluster and this task's index in it.
    options: this task's options.
    interrupts: requests to end.
    lock: the chief's lock on the run's folder; None in other tasks.
    observers: the user's observers, on the chief.

  Raises:
    BadInput: the command line contradicts the run or this machine.
    RunFailed: the run cannot continue.
  """
  observers = observers or Observers({})
  writer = open_writer(lock, observers) if lock else None
  task = Task(cluster, options, interrupts, writer.message if writer else None)
  run_settings = chief_settings(task, lock) if lock else announced_settings(task)
  if run_settings is None:  # Stopped before the settings were known.
    return
  with _seeded_graph(cluster, run_settings):
    if lock and writer:
      train(task, run_settings, lock, writer, observers)
    elif cluster.job == 'learner':
      learn(task, run_settings)
    else:
      act(task, run_settings)


def train(
  task: Task, run_settings: RunSettings, lock: RunLock, writer: RunWriter, observers: Observers
) -> None:
  """Runs local training, or in a cluster the chief: the first learner, without actors.

  Args:
    task: this task.
    run_settings: settings and first frame count of the run.
    lock: lock on the run's folder.
    writer: writes the run's records.
    observers: the user's observers.
  """
  cluster, options, interrupts = task.cluster, task.options, task.interrupts
  (settings, start_frames), logdir = run_settings, lock.logdir
  # The agent; its weights and counters are on the parameter servers, if any.
  graph = wiring.Graph(settings, cluster)
  # The learner: each batch of unrolls from its queue becomes one update.
  unrolls = graph.unroll_queue(max(0, cluster.task))
  devices = wiring.learner_devices(cluster, options.learner_devices, settings.batch_size)
  learner = wiring.LearnerSide(graph, unrolls, devices)
  # Actors: each steps a batch of environments and enqueues the unrolls.
  repeats, lag = settings.deterministic_training, _fixed_lag(settings, options)
  if repeats:
    interrupts.defer_signals()
  actors = _actor_side(graph, task, start_frames, lag) if cluster.is_local else None
  report_sender = ReportSender(graph.shared, cluster)
  reports = Reports(task, graph, learner.queue_size, report_sender, actors)
  # Records, checkpoints and evaluations.
  total_frames = settings.total_environment_frames
  end_of_run = EndOfRun(interrupts, total_frames, population.round_end(options, total_frames))
  records = Records(task, graph, learner, lock, writer, end_of_run, reports if repeats else None)
  evaluations = _evaluations(options, settings, logdir, records, interrupts)
  acting_state = ActingState(actors, lag, records) if repeats and actors and lag else None
  checkpoints = _checkpoints(task, learner, logdir, evaluations, acting_state)
  # Checked again, since the checkpoint may have been deleted in the meantime.
  origin = initial_weights(options.init_from, settings, logdir, check=True)
  observing = Observing(task, graph, logdir, origin, observers)
  checkpointer = Checkpointer(
    checkpoints,
    options.save_checkpoint_secs,
    records,
    task.heartbeat,
    interrupts.is_set,
    observing.on_checkpoint,
  )
  initializer = _initializer(graph, cluster, logdir, origin, checkpoints)
  # All parts share one session and run until the last frame.
  wait = ExpectedWaits(
    cluster, settings.sync_learners, task.unresponsive, reports.queue_is_full, bool(lag)
  )
  evaluator = Evaluator(evaluations, checkpointer)
  on_update = [records, observing, end_of_run, evaluator, checkpointer]
  parts: list[Part] = [
    Chief(task, graph, logdir, origin, records, evaluations, checkpointer),
    Learning(task, graph, learner, on_update, wait.reason, lag, ends_between_updates=repeats),
  ]
  if acting_state:
    parts.append(acting_state)
  else:  # With that, the records take the reports.
    parts.append(Reporting(task, reports, report_sender))
  if learner.sync_ops:
    tokens = LostTokens(task, learner.sync_ops, records.inbox.update_secs)
    on_update.append(tokens)
    parts = [SyncUpdates(learner.sync_ops, is_chief=True), *parts, tokens]
  if actors:
    parts.append(Acting(task, actors, UnrollSender(EnqueueOp(*unrolls)), reports, wait.reason))
  parts.append(observing)
  Role(task, run_settings, parts, Connection(task, parts, initializer, logdir)).run()


def learn(task: Task, run_settings: RunSettings) -> None:
  """Runs a learner other than the chief: queue and updates, without records or checkpoints."""
  cluster, settings = task.cluster, run_settings.settings
  graph = wiring.Graph(settings, cluster)
  devices = wiring.learner_devices(cluster, task.options.learner_devices, settings.batch_size)
  learner = wiring.LearnerSide(graph, graph.unroll_queue(cluster.task), devices)
  report_sender = ReportSender(graph.shared, cluster)
  reports = Reports(task, graph, learner.queue_size, report_sender)
  wait = ExpectedWaits(cluster, settings.sync_learners, task.unresponsive, reports.queue_is_full)
  parts: list[Part] = [
    Learning(task, graph, learner, [reports], wait.reason),
    Reporting(task, reports, report_sender),
  ]
  if learner.sync_ops:
    parts.insert(0, SyncUpdates(learner.sync_ops, is_chief=False))
  Role(task, run_settings, parts, Connection(task, parts)).run()


def act(task: Task, run_settings: RunSettings) -> None:
  """Runs an actor: steps environments and sends their unrolls to the queue of one learner."""
  cluster, settings = task.cluster, run_settings.settings
  graph = wiring.Graph(settings, cluster)
  unrolls = graph.unroll_queue(cluster.learner_of_actor)
  unroll_sender, report_sender = actor_senders(graph)
  actors = _actor_side(graph, task, run_settings.start_frames)
  reports = Reports(task, graph, unrolls.queue.size(), report_sender, actors)
  wait = ExpectedWaits(cluster, settings.sync_learners, task.unresponsive, reports.queue_is_full)
  parts: list[Part] = [
    Acting(task, actors, unroll_sender, reports, wait.reason),
    Reporting(task, reports, report_sender),
  ]
  Role(task, run_settings, parts, Connection(task, parts)).run()


def _actor_side(
  graph: wiring.Graph, task: Task, start_frames: int, lag: FixedLag | None = None
) -> wiring.ActorSide:
  """Creates this process's environments and the actor loops that step them."""
  options = task.options
  environments = wiring.create_environments(graph.settings, task.cluster, options, start_frames)
  return wiring.ActorSide(graph, environments, options.dynamic_batching, lag, start_frames)


def _fixed_lag(settings: Settings, options: Options) -> FixedLag | None:
  if settings.policy_lag < 0:
    return None
  num_loops = options.num_actors if settings.deterministic_training else 0
  return FixedLag(settings.policy_lag, settings.new_unrolls, num_loops)


def _checkpoints(
  task: Task,
  learner: wiring.LearnerSide,
  logdir: str,
  evaluations: PeriodicEvaluator,
  acting_state: ActingState | None,
) -> Checkpoints:
  return Checkpoints(
    logdir,
    task.cluster.own_device,
    learner.whole_weights(),
    *([acting_state.store] if acting_state else []),
    in_use=evaluations.uses,
    keep=task.options.keep_checkpoints,
    keep_every_frames=task.options.keep_checkpoint_every_frames,
  )


def _initializer(
  graph: wiring.Graph, cluster: Cluster, logdir: str, origin: str | None, checkpoints: Checkpoints
) -> VariableInitializer:
  """Creates the initializer of a run's variables, when all of them exist."""
  return VariableInitializer(
    graph.shared,
    'local' if cluster.is_local else run_id(logdir),
    v1.global_variables_initializer(),
    Checkpoints.first_values(origin, graph.agent.variables) if origin else {},
    v1.report_uninitialized_variables(v1.global_variables()),
    checkpoints.restore,
  )


def _evaluations(
  options: Options, settings: Settings, logdir: str, records: Records, interrupts: Interrupts
) -> PeriodicEvaluator:
  flags = {name: getattr(settings, name) for name in _RUN_FLAGS}
  flags |= {name: getattr(options, name) for name in _EVALUATION_FLAGS}
  return PeriodicEvaluator(
    logdir,
    options.eval_every_frames,
    flags,
    records.add_evaluation,
    records.message,
    lambda: interrupts.had_signal,
  )


@contextlib.contextmanager
def _seeded_graph(cluster: Cluster, run_settings: RunSettings) -> Iterator[None]:
  """Makes a new TensorFlow graph the default graph, with a seed that depends on the task."""
  if run_settings.settings.deterministic_training:
    # Sums in a fixed order; an operation that has none raises an error.
    tf.config.experimental.enable_op_determinism()
    # Of the processes of environments, which may go through sets of texts.
    os.environ['PYTHONHASHSEED'] = '0'
  place = max(0, cluster.task) + (10_000 if cluster.job == 'actor' else 0)
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(derived_seed(run_settings.settings.seed, place))
    yield
