"""What a role is made of: acting, learning, telling the chief, and being the chief.

Each part knows what it does when a session opens, which loops it runs, and how it ends; a role
(`roles.role`) is a list of parts.
"""

import functools
import os

from absl import logging

from evaluation import periodic
from learning import learner
from roles.bookkeeping import Records, Reports
from roles.saving import Saving
from roles.settings import initial_weights
from roles.wiring import ActorSide, LearnerSide, learner_devices
from runtime import cluster_file, peers
from runtime.checkpoints import Checkpoints
from runtime.process import RunFailed
from runtime.sessions import first_line, run_within

# Flags of the chief that its evaluations are played with.
_PLAYED_WITH = ('eval_protocol', 'test_num_episodes', 'deterministic', 'max_episode_frames')


class Part:
  """Does nothing at any moment of a role's life; the parts below say what they do at some.

  Attributes:
    lasting_loops: names of loops that come to their end however long they take, before `finish`.
  """

  lasting_loops = ()

  def opened(self, session, path):
    """A session has opened; the chief resumed from `path`, None where it is a new run.

    `path` is that of a checkpoint or `roles.filling.HELD`.
    """

  def start(self, loops, session):
    """Starts this part's loops (`runtime.sessions.Loops`) on the session."""

  def announce_end(self, session):
    """Told once that the run ends; the loops still run and will then be waited for."""

  def check_alive(self, session):
    """Lasting loops still run: tells the chief, raises where what they wait for does not answer."""

  def finish(self, session):
    """The loops have ended; the session still is open."""

  def disconnect(self):
    """The session is about to be closed; returns a list of others, to be closed with it."""
    return []

  def conclude(self):
    """The task has left the run, as it should; told once, before `close`."""

  def close(self, failed):
    """Gives back what this part holds outside of the session; told whether the task has failed."""


class Telling(Part):
  """Tells the chief what this task does, and hears from it when the run is done.

  Args:
    task: `roles.task.Task`.
    graph: `roles.wiring.Graph`.
    queue: of unrolls that this task fills or empties.
    outbox: `roles.outbox.Outbox`.

  Attributes:
    reports: `roles.bookkeeping.Reports`.
  """

  def __init__(self, task, graph, queue, outbox):
    self._task, self._outbox = task, outbox
    self.reports = Reports(task, graph, queue, outbox)

  def check_alive(self, session):
    """As `Part`."""
    if not self._task.cluster.is_chief:
      self.reports.send()

  def opened(self, session, path):
    """As `Part`."""
    self._outbox.open(session)

  def disconnect(self):
    """As `Part`."""
    return self._outbox.release()

  def start(self, loops, session):
    """As `Part`."""
    loops.start('reports', self.reports.run, session, loops.should_stop)


class Acting(Part):
  """Plays: the actor loops of this task.

  Args:
    task: `roles.task.Task`.
    graph: `roles.wiring.Graph`.
    outbox: `roles.outbox.Outbox`, opened by `Telling`.
    start_frames: environment frames when this process began.
    reports: `roles.bookkeeping.Reports`, hears of every unroll.
  """

  def __init__(self, task, graph, outbox, start_frames, reports):
    self._task, self._outbox, self._reports = task, outbox, reports
    self._side = ActorSide(graph, task.options, start_frames)
    reports.crashes = lambda: self._side.crashes

  def start(self, loops, session):
    """As `Part`."""
    for i, loop in enumerate(self._side.loops):
      enter = self._task.heartbeat.entering(f'actor loop {i}')
      loops.start(f'actor-{i}', loop.run, session, self._outbox.send_unroll, loops.should_stop,
                  enter, self._reports.add_unroll)  # fmt: skip

  def close(self, failed):
    """As `Part`."""
    self._side.close()


class Learning(Part):
  """Learns: batches are fetched ahead, and each becomes an update.

  Args:
    task: `roles.task.Task`.
    graph: `roles.wiring.Graph`.

  Attributes:
    side: `roles.wiring.LearnerSide`.
    after_update: function of (session, enter, values, wait_secs, busy_secs), called after every
      update of this learner; see `learner.LearnerLoop.run` and `runtime.heartbeat`.
  """

  def __init__(self, task, graph):
    self._task, self._graph = task, graph
    devices = learner_devices(task.cluster, task.options.learner_devices, graph.settings.batch_size)
    self.side = LearnerSide(graph, devices)
    self.after_update = lambda *args: None
    self.sync = None

  def build_sync(self):
    """Builds what synchronous learners run beside their updates, once all variables exist."""
    self.sync = learner.SyncOps(self.side.sync) if self.side.sync else None

  def opened(self, session, path):
    """As `Part`."""
    if self.sync and not self._task.cluster.is_chief:
      session.run(self.sync.init)

  def start(self, loops, session):
    """As `Part`."""
    entering, stop = self._task.heartbeat.entering, loops.should_stop
    loop, enter = self.side.loop, entering('learner')

    def learner_stop():  # No update comes after the one that reached the last frame.
      return stop() or self._task.interrupts.is_set()

    loops.start('staging', loop.run_staging, session, stop, entering('staging'))
    report = functools.partial(self._on_update, session, enter)
    loops.start('learner', loop.run, session, self.side.update, learner_stop, enter, report)

  def _on_update(self, session, enter, values, wait_secs, busy_secs):
    frames = int(values['environment_frames'])
    self._task.heartbeat.facts['environment_frames'] = frames
    self.after_update(session, enter, values, wait_secs, busy_secs)

  @property
  def lasting_loops(self):
    """As `Part`: half an update must not be saved. One of several may wait for others for ever."""
    return () if self.side.sync else ('learner',)

  def announce_end(self, session):
    """As `Part`: actors that wait at the full queue are let go."""
    run_within(session, self.side.close_queue)

  def check_alive(self, session):
    """As `Part`: an update ends, unless a parameter server does not answer."""
    run_within(session, self._graph.counters.updates)


class Chief(Part):
  """Is the chief: settings for all, checkpoints, records, and the end of the run.

  Args:
    task: `roles.task.Task`.
    graph: `roles.wiring.Graph`; all its variables exist.
    learning: the chief's own `Learning`.
    claim: `roles.resuming.RunLock`.

  Attributes:
    checkpoints: `runtime.checkpoints.Checkpoints`.
    first_values: dict, what the variables of a new run begin with where it is not what their
      initializers say (--init_from); see `Checkpoints.first_values`.
    logdir: the run's folder.
    shared: `runtime.shared_state.SharedState`.
  """

  lasting_loops = ('records',)

  def __init__(self, task, graph, learning, claim):
    self._task, self._graph, self._learning = task, graph, learning
    self.shared = graph.shared
    self.logdir = claim.logdir
    task.heartbeat.facts['logdir'] = os.path.abspath(claim.logdir)
    options = task.options
    self.checkpoints = Checkpoints(
      claim.logdir,
      task.cluster.own_device,
      learning.side.whole_weights(),
      keep=options.keep_checkpoints,
      keep_every_frames=options.keep_checkpoint_every_frames,
    )
    # Looked for again: another run, if it still trains, deletes what it need not keep.
    self._origin = initial_weights(options.init_from, graph.settings, claim.logdir, check=True)
    weights = graph.agent.variables
    self.first_values = Checkpoints.first_values(self._origin, weights) if self._origin else {}
    self._records = Records(task, graph, learning.side, claim)
    self._evaluations = periodic.Evaluations(
      claim.logdir,
      options.eval_every_frames,
      {'level_name': graph.settings.level_name}
      | {name: getattr(options, name) for name in _PLAYED_WITH},
      self._records.add_evaluation,
      self._records.message,
      lambda: task.interrupts.had_signal,
    )
    self._last_saved = None
    self.checkpoints.in_use = self._evaluations.plays
    self._saving = Saving(
      self.checkpoints, options.save_checkpoint_secs, self._records.message, self._records.trouble
    )
    learning.after_update = self._after_update

  def opened(self, session, path):
    """As `Part`: announces the run."""
    if self._learning.sync:
      session.run(self._learning.sync.chief_init)
      if path:
        session.run(self._learning.sync.spare_tokens)
    self._evaluations.begin(self._records.begin(session, path, self._origin))
    if not self._task.cluster.is_local:
      cluster_file.write(self.logdir, self._task.cluster)

  def start(self, loops, session):
    """As `Part`."""
    if self._learning.sync:
      loops.start('sync', self._learning.sync.run, session, loops.should_stop)
    loops.start('records', self._records.run, session, loops.should_stop)
    interrupts = self._task.interrupts
    interrupts.at_end, interrupts.if_forced = 'saving a checkpoint', 'without it'

  def _after_update(self, session, enter, values, wait_secs, busy_secs):
    self._records.add_update(values, wait_secs, busy_secs)
    total = self._graph.settings.total_environment_frames
    if self._task.end_if_done(values['environment_frames'], total):
      return
    frames = int(values['environment_frames'])
    evaluates = self._evaluations.is_due(frames)
    if self._saving.is_due(frames, is_wanted=evaluates):
      enter('save')
      mean_return = self._records.mean_return_100()
      saved = self._saving.save(session, values['updates'], mean_return)
      if evaluates and saved:
        self._evaluations.start(saved)

  def announce_end(self, session):
    """As `Part`: ps 0 tells the others that the run is done."""
    if not self._task.interrupts.run_goes_on:
      run_within(session, self._graph.shared.mark_done)

  def finish(self, session):
    """As `Part`: the last checkpoint, the last records, and nobody needs to wait for the chief.

    Raises:
      RunFailed: the disk did not take the checkpoint.
    """
    if self._task.interrupts.had_signal:
      self._evaluations.stop()
    run_goes_on = self._task.interrupts.run_goes_on  # The others wait for the chief to be back.
    if not run_goes_on:
      self._wait_for_last_updates(session)
    updates = run_within(session, self._graph.counters.updates)
    mean_return = self._records.mean_return_100(session)
    self._last_saved, unsaved = self._saving.save_last(session, updates, mean_return)
    self._records.finish(session, unsaved)
    if not run_goes_on:
      run_within(session, self._graph.shared.mark_chief_left)
    if unsaved:
      self._records.close()
      raise RunFailed(
        f'the last checkpoint could not be written ({unsaved}): what was learned since the one '
        f'before it, in {self.logdir}, is lost'
      )

  def conclude(self):
    """As `Part`: nobody waits for the evaluation of the last checkpoint."""
    interrupts = self._task.interrupts
    interrupts.at_end, interrupts.if_forced = 'the last evaluation is dropped', 'at once'
    try:
      self._evaluations.finish(self._last_saved)
      self._records.close()
    except Exception as e:  # All that is learned is on the disk.
      logging.warning('the run is done, though not all of its records: %s', first_line(e))

  def close(self, failed):
    """As `Part`: whoever would join finds the run until it has come to a normal end."""
    self._evaluations.stop()
    if not (failed or self._task.cluster.is_local or self._task.interrupts.run_goes_on):
      cluster_file.remove(self.logdir)

  def _wait_for_last_updates(self, session):
    """Lets the other learners finish and leave: what they add belongs to the last checkpoint.

    However long an update takes, as long as its learner gives signs of life.
    """
    cluster = self._task.cluster
    others = [f'learner:{i}' for i in range(1, len(cluster.learner))]
    still_there = peers.wait_until_gone(cluster, others)
    while still_there and self._records.heard(session, [who.split()[0] for who in still_there]):
      still_there = peers.wait_until_gone(cluster, others)
    if still_there:
      logging.warning(
        '%s saves without the last updates of %s: still there after %.0f s',
        cluster.name,
        ', '.join(still_there),
        peers.LAST_UPDATES_SECS,
      )
