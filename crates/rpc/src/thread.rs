//! What the connections of one thread share.
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::beside::is_room_short;
use crate::clock::Clock;
use crate::deadline::Deadlines;
use crate::http2::ConnectionState;
use crate::metrics::ThreadMetrics;
use crate::options::Options;
use crate::send::{Gauge, GaugeLimits};

/// How often the thread's coarse clock moves, in milliseconds.
pub(crate) const TICK_MS: u64 = 20;

/// How often connections are looked at, in milliseconds.
const INSPECT_MS: u64 = 500;

/// The shared state of a connection thread.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    /// The coarse clock, at most one tick behind.
    pub(crate) now_ms: Rc<Cell<u64>>,
    pub(crate) deadlines: Rc<Deadlines>,
    /// Bytes of answers that have not been read.
    pub(crate) unsent: Rc<Gauge>,
    /// Calls under way.
    streams: Cell<usize>,
    /// Bytes of request messages that are not complete.
    pub(crate) unfinished: Rc<Gauge>,
    pub(crate) metrics: Arc<ThreadMetrics>,
    connections: RefCell<Vec<Weak<ConnectionState>>>,
    /// Connections with answers to pings that wait for company. **Limit:** one for each connection.
    lingering: RefCell<Vec<Rc<ConnectionState>>>,
    live: Cell<usize>,
    is_draining: Cell<bool>,
    inspected_ms: Cell<u64>,
}

impl Thread {
    pub(crate) fn new(options: Options, clock: Clock, metrics: Arc<ThreadMetrics>) -> Rc<Self> {
        Rc::new(Self {
            clock,
            now_ms: Rc::new(Cell::new(clock.now_ms())),
            deadlines: Rc::default(),
            unsent: Gauge::with(None, limits(options.thread_unsent_max_bytes)),
            streams: Cell::new(0),
            unfinished: Gauge::new(None),
            metrics,
            connections: RefCell::default(),
            lingering: RefCell::default(),
            live: Cell::new(0),
            is_draining: Cell::new(false),
            inspected_ms: Cell::new(0),
            options,
        })
    }

    /// Moves the coarse clock and sweeps.
    pub(crate) fn tick(&self) {
        let now_ms = self.clock.now_ms();
        self.now_ms.set(now_ms);
        self.deadlines.sweep(now_ms);
        for connection in std::mem::take(&mut *self.lingering.borrow_mut()) {
            connection.flush();
        }
        if now_ms >= self.inspected_ms.get() + INSPECT_MS {
            self.inspected_ms.set(now_ms);
            self.inspect(now_ms);
        }
    }

    fn inspect(&self, now_ms: u64) {
        let is_memory_short =
            is_room_short() || self.unsent.bytes() >= self.options.thread_unsent_max_bytes / 2;
        self.connections
            .borrow_mut()
            .retain(|connection| match connection.upgrade() {
                Some(connection) => {
                    connection.inspect(now_ms, &self.options, is_memory_short);
                    true
                }
                None => false,
            });
    }

    /// Remembers a connection for as long as it lives.
    pub(crate) fn register(&self, connection: &Rc<ConnectionState>) {
        self.connections
            .borrow_mut()
            .push(Rc::downgrade(connection));
    }

    /// Has the connection flushed with the next tick.
    pub(crate) fn linger(&self, connection: Rc<ConnectionState>) {
        self.lingering.borrow_mut().push(connection);
    }

    /// Says whether the thread is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Tells all connections to take no new calls and to end with the last of those under way.
    pub(crate) fn drain(&self) {
        self.is_draining.set(true);
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.drain();
        }
    }

    /// Counts a call until the guard is dropped; `None` when there are too many.
    pub(crate) fn begin_stream(self: &Rc<Self>) -> Option<StreamGuard> {
        let streams = self.streams.get();
        (streams < self.options.thread_streams_max).then(|| {
            self.streams.set(streams + 1);
            StreamGuard(self.clone())
        })
    }

    /// Makes the gauge of a connection's answers.
    pub(crate) fn unsent_of_connection(&self) -> Rc<Gauge> {
        Gauge::with(
            Some(self.unsent.clone()),
            limits(self.options.connection_unsent_max_bytes),
        )
    }

    /// Counts a connection of either protocol until the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> LiveGuard {
        self.live.set(self.live.get() + 1);
        LiveGuard(self.clone())
    }

    /// Returns how many connections are open.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }
}

/// Counts one call; also the call's way to what its thread shares.
#[derive(Debug)]
pub(crate) struct StreamGuard(Rc<Thread>);

impl std::ops::Deref for StreamGuard {
    type Target = Rc<Thread>;

    fn deref(&self) -> &Rc<Thread> {
        &self.0
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// What may pile up unread: from `max_bytes` on everyone who can wait waits, far beyond it the connection is cut.
fn limits(max_bytes: usize) -> GaugeLimits {
    GaugeLimits {
        pause_bytes: max_bytes,
        cut_bytes: max_bytes.saturating_mul(4),
    }
}

/// Counts one connection.
#[derive(Debug)]
pub(crate) struct LiveGuard(Rc<Thread>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
    }
}
