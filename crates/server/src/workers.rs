//! The threads that touch the disk: the log's, the backend's, and one for slow odds and ends.
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_backend::FlushJob;
use quorate_core::SnapshotToSave;
use quorate_mvcc::{CompactionJob, Progress};
use quorate_snap::{Snapshot, SnapshotId, Snapshotter};
use quorate_wal::{Batch, PrepareJob, PreparedSegment, Wal};

use crate::metrics::Metrics;
use crate::queue::{Event, Queue};

/// Batches that may wait for the log's thread; the engine waits when it is full.
const MAX_LOG_ORDERS: usize = 4_096;
/// Bytes of batches gathered into one write.
const MAX_GATHERED_BYTES: usize = 8 << 20;
/// Jobs that may wait for the backend's or the chores' thread; the engine has at most one of each kind under way.
const MAX_JOBS: usize = 16;

/// What the log's thread is told.
#[derive(Debug)]
pub(crate) enum LogOrder {
    Append(Vec<Batch>),
    Release(u64),
    Prepared(PreparedSegment),
    Stop,
}

/// What the backend's thread is told.
pub(crate) enum BackendOrder {
    Flush(FlushJob),
    Compact(CompactionJob),
    Stop,
}

/// What the chores' thread is told.
pub(crate) enum Chore {
    Save(SnapshotToSave),
    Prepare(PrepareJob),
    Stop,
}

/// The threads' ends of their queues.
pub(crate) struct Workers {
    pub(crate) log: SyncSender<LogOrder>,
    pub(crate) backend: SyncSender<BackendOrder>,
    pub(crate) chores: SyncSender<Chore>,
    threads: Vec<JoinHandle<()>>,
}

/// Settings of the threads.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    /// Pause between two steps of a compaction.
    pub(crate) compaction_pause: Duration,
    /// Snapshot files kept.
    pub(crate) keep_snapshots: usize,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        wal: Wal,
        snapshotter: Snapshotter,
        queue: &Queue,
        metrics: &Metrics,
        options: &WorkerOptions,
    ) -> std::io::Result<Self> {
        let (log, log_orders) = sync_channel(MAX_LOG_ORDERS);
        let (backend, backend_orders) = sync_channel(MAX_JOBS);
        let (chores, chore_orders) = sync_channel(MAX_JOBS);
        let mut threads = Vec::new();
        let (events, to_chores, meters) = (queue.clone(), chores.clone(), metrics.clone());
        threads.push(spawn("wal", move || {
            run_log(wal, &log_orders, &events, &to_chores, &meters)
        })?);
        let (events, pause, meters) = (queue.clone(), options.compaction_pause, metrics.clone());
        threads.push(spawn("backend", move || {
            run_backend(&backend_orders, &events, pause, &meters)
        })?);
        let (events, to_log, keep) = (queue.clone(), log.clone(), options.keep_snapshots);
        threads.push(spawn("chores", move || {
            run_chores(snapshotter, &chore_orders, &events, &to_log, keep)
        })?);
        Ok(Self {
            log,
            backend,
            chores,
            threads,
        })
    }

    /// Ends the threads after all they were told, and waits for them.
    pub(crate) fn join(self) {
        // An end that has gone ended with a fatal event, which the engine knows of.
        let _ = self.chores.send(Chore::Stop);
        let _ = self.backend.send(BackendOrder::Stop);
        let _ = self.log.send(LogOrder::Stop);
        for thread in self.threads {
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Group commit: when nothing waits, sync what comes at once; what comes while a sync runs goes into the next.
fn run_log(
    mut wal: Wal,
    orders: &Receiver<LogOrder>,
    queue: &Queue,
    chores: &SyncSender<Chore>,
    metrics: &Metrics,
) {
    let mut batches = Vec::new();
    while let Ok(first) = orders.recv() {
        let mut next = Some(first);
        let mut release = None;
        let mut stop = false;
        let mut bytes = 0;
        while let Some(order) = next {
            match order {
                LogOrder::Append(more) => {
                    bytes += more
                        .iter()
                        .flat_map(|b| &b.entries)
                        .map(|e| e.data.len())
                        .sum::<usize>();
                    batches.extend(more);
                }
                LogOrder::Release(index) => release = Some(index),
                LogOrder::Prepared(segment) => wal.accept_prepared(segment),
                LogOrder::Stop => stop = true,
            }
            next = if bytes < MAX_GATHERED_BYTES {
                orders.try_recv().ok()
            } else {
                None
            };
        }
        if !batches.is_empty() {
            let started = metrics.clock();
            let result = wal.append(&batches);
            metrics.wal_append(started, bytes);
            batches.clear();
            match result {
                Ok(synced) => queue.push(Event::Synced(synced)),
                Err(e) => return queue.push(Event::Fatal(format!("cannot write the log: {e}"))),
            }
        }
        if stop {
            return;
        }
        if let Some(index) = release
            && let Err(e) = wal.release_to(index)
        {
            return queue.push(Event::Fatal(format!("cannot release log segments: {e}")));
        }
        if let Some(job) = wal.take_prepare_job() {
            // A full queue only means that the next segment is prepared when it is needed.
            let _ = chores.try_send(Chore::Prepare(job));
        }
    }
}

/// Flushes come before compaction steps, so that a long compaction never delays one.
fn run_backend(orders: &Receiver<BackendOrder>, queue: &Queue, pause: Duration, metrics: &Metrics) {
    let mut compaction: Option<CompactionJob> = None;
    let mut next_step = Instant::now();
    loop {
        let order = if compaction.is_some() {
            orders.recv_timeout(next_step.saturating_duration_since(Instant::now()))
        } else {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match order {
            Ok(BackendOrder::Flush(job)) => {
                let started = metrics.clock();
                match job.run() {
                    Ok(_) => queue.push(Event::Flushed),
                    Err(e) => {
                        return queue.push(Event::Fatal(format!("cannot flush the backend: {e}")));
                    }
                }
                metrics.backend_commit(started);
            }
            Ok(BackendOrder::Compact(job)) => {
                compaction = Some(job);
                next_step = Instant::now();
            }
            Ok(BackendOrder::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() < next_step {
            continue;
        }
        match compaction.as_mut().map(CompactionJob::step) {
            None => {}
            Some(Ok(Progress::Done(_))) => {
                compaction = None;
                queue.push(Event::Compacted);
            }
            Some(Ok(_)) => next_step = Instant::now() + pause,
            Some(Err(e)) => return queue.push(Event::Fatal(format!("cannot compact: {e}"))),
        }
    }
}

fn run_chores(
    snapshotter: Snapshotter,
    orders: &Receiver<Chore>,
    queue: &Queue,
    log: &SyncSender<LogOrder>,
    keep: usize,
) {
    while let Ok(chore) = orders.recv() {
        match chore {
            Chore::Save(snapshot) => {
                let (index, term) = (snapshot.index, snapshot.term);
                let snapshot = Snapshot {
                    id: SnapshotId { term, index },
                    body: snapshot.body,
                };
                if let Err(e) = snapshotter.save(&snapshot) {
                    return queue.push(Event::Fatal(format!("cannot save a snapshot: {e}")));
                }
                queue.push(Event::SnapshotSaved { index, term });
                if let Err(e) = snapshotter.release(keep) {
                    tracing::warn!(error = %e, "failed to remove old snapshot files");
                }
            }
            Chore::Stop => return,
            Chore::Prepare(job) => match job.run() {
                Ok(segment) => {
                    let _ = log.try_send(LogOrder::Prepared(segment));
                }
                Err(e) => tracing::warn!(error = %e, "failed to prepare the next log segment"),
            },
        }
    }
}
