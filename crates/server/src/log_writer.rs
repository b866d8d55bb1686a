//! The log and who writes it: its own thread, or the engine when nothing else is to be done.
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_wal::{Batch, PreparedSegment, Synced, Wal};

use crate::queue::{Event, Queue};
use crate::workers::Chore;

/// Batches that may wait for the log's thread; the engine waits when it is full.
const MAX_LOG_ORDERS: usize = 4_096;
/// Bytes of batches gathered into one write.
const MAX_GATHERED_BYTES: usize = 8 << 20;
/// Entries and bytes that the engine appends itself at most: more is worth a thread, while the engine goes on with others.
const MAX_ENTRIES_HERE: usize = 4;
const MAX_BYTES_HERE: usize = 64 << 10;
/// How long the last append may have taken for the engine to do the next one itself: behind a slow disk it must not wait.
const MAX_APPEND_HERE: Duration = Duration::from_millis(2);

/// What the log's thread is told.
#[derive(Debug)]
pub(crate) enum LogOrder {
    Append(Vec<Batch>),
    Release(u64),
    Prepared(PreparedSegment),
    Stop,
}

/// The log with what prepares its segments.
pub(crate) struct LogWriter {
    wal: Wal,
    chores: SyncSender<Chore>,
    last_append: Duration,
}

impl LogWriter {
    pub(crate) fn new(wal: Wal, chores: SyncSender<Chore>) -> Self {
        Self {
            wal,
            chores,
            last_append: Duration::ZERO,
        }
    }

    fn append(&mut self, batches: &[Batch]) -> Result<Synced, String> {
        let started = Instant::now();
        let result = self.wal.append(batches);
        self.last_append = started.elapsed();
        result.map_err(|e| format!("cannot write the log: {e}"))
    }

    /// Has the next segment made ahead when that is due.
    fn prepare(&mut self) {
        if let Some(job) = self.wal.take_prepare_job() {
            // A full queue only means that the next segment is prepared when it is needed.
            let _ = self.chores.try_send(Chore::Prepare(job));
        }
    }
}

/// The engine's end of the log.
pub(crate) struct Log {
    orders: SyncSender<LogOrder>,
    writer: Arc<Mutex<LogWriter>>,
    /// Ticket of the newest batch that the log's thread was given, and of the newest that it said to be synced.
    sent: u64,
    synced: u64,
}

impl Log {
    /// Makes the engine's end and the end of the log's thread.
    pub(crate) fn new(writer: LogWriter) -> (Self, Receiver<LogOrder>, Arc<Mutex<LogWriter>>) {
        let (orders, taken) = sync_channel(MAX_LOG_ORDERS);
        let writer = Arc::new(Mutex::new(writer));
        let log = Self {
            orders,
            writer: writer.clone(),
            sent: 0,
            synced: 0,
        };
        (log, taken, writer)
    }

    /// Returns a way for others to give the thread orders.
    pub(crate) fn orders(&self) -> SyncSender<LogOrder> {
        self.orders.clone()
    }

    /// Tells the thread. One that has gone told why in a fatal event, which ends the engine's loop in its next turn.
    pub(crate) fn send(&mut self, order: LogOrder) {
        if let LogOrder::Append(batches) = &order
            && let Some(last) = batches.last()
        {
            self.sent = last.ticket;
        }
        let _ = self.orders.send(order);
    }

    /// Takes the thread's word that it has synced up to a ticket.
    pub(crate) fn handle_synced(&mut self, synced: &Synced) {
        self.synced = synced.ticket();
    }

    /// Appends on the caller's thread if that is sensible: little is to be written, all that was sent is synced, and the disk
    /// is fast. Otherwise the batches come back, for [`Log::send`].
    ///
    /// It saves two changes of thread, which take as long as a sync does.
    pub(crate) fn append_here(&mut self, batches: Vec<Batch>) -> Result<Here, String> {
        let entries = || batches.iter().flat_map(|b| &b.entries);
        let bytes = bytes_of(&batches);
        if self.synced < self.sent || entries().count() > MAX_ENTRIES_HERE || bytes > MAX_BYTES_HERE
        {
            return Ok(Here::Refused(batches));
        }
        let Some(mut writer) = self.writer.try_lock() else {
            return Ok(Here::Refused(batches));
        };
        if writer.last_append > MAX_APPEND_HERE {
            return Ok(Here::Refused(batches));
        }
        let synced = writer.append(&batches)?;
        writer.prepare();
        Ok(Here::Synced(synced))
    }
}

/// What became of batches that the engine would append itself.
pub(crate) enum Here {
    /// They are appended.
    Synced(Synced),
    /// They are for the log's thread.
    Refused(Vec<Batch>),
}

fn bytes_of(batches: &[Batch]) -> usize {
    let entries = batches.iter().flat_map(|b| &b.entries);
    entries.map(|e| e.data.len()).sum()
}

/// Group commit: when nothing waits, sync what comes at once; what comes while a sync runs goes into the next.
pub(crate) fn run_log(writer: &Mutex<LogWriter>, orders: &Receiver<LogOrder>, queue: &Queue) {
    let mut batches = Vec::new();
    // The next order, when it was looked for already.
    let mut waiting = None;
    while let Some(first) = waiting.take().or_else(|| orders.recv().ok()) {
        let mut next = Some(first);
        let mut release = None;
        let mut stop = false;
        let mut bytes = 0;
        let mut held = writer.lock();
        while let Some(order) = next {
            match order {
                LogOrder::Append(more) => {
                    bytes += bytes_of(&more);
                    batches.extend(more);
                }
                LogOrder::Release(index) => release = Some(index),
                LogOrder::Prepared(segment) => held.wal.accept_prepared(segment),
                LogOrder::Stop => stop = true,
            }
            next = if bytes < MAX_GATHERED_BYTES {
                orders.try_recv().ok()
            } else {
                None
            };
        }
        if !batches.is_empty() {
            let result = held.append(&batches);
            batches.clear();
            match result {
                Ok(synced) => {
                    // With nothing more to write this thread has time for what follows from it. Its own orders, which it
                    // could not wait for, have all the room then.
                    waiting = orders.try_recv().ok();
                    drop(held);
                    queue.push_synced(synced, waiting.is_none() && !stop);
                    held = writer.lock();
                }
                Err(why) => return queue.push(Event::Fatal(why)),
            }
        }
        if stop {
            return;
        }
        if let Some(index) = release
            && let Err(e) = held.wal.release_to(index)
        {
            return queue.push(Event::Fatal(format!("cannot release log segments: {e}")));
        }
        held.prepare();
    }
}
