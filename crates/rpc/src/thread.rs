//! What the connections of one thread share.
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::clock::Clock;
use crate::deadline::Deadlines;
use crate::http2::ConnectionState;
use crate::metrics::ThreadMetrics;
use crate::options::Options;
use crate::send::Gauge;

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
    /// Bytes of request messages that are not complete.
    pub(crate) unfinished: Rc<Gauge>,
    pub(crate) metrics: Arc<ThreadMetrics>,
    connections: RefCell<Vec<Weak<ConnectionState>>>,
    live: Cell<usize>,
    inspected_ms: Cell<u64>,
}

impl Thread {
    pub(crate) fn new(options: Options, clock: Clock, metrics: Arc<ThreadMetrics>) -> Rc<Self> {
        Rc::new(Self {
            options,
            clock,
            now_ms: Rc::new(Cell::new(clock.now_ms())),
            deadlines: Rc::default(),
            unsent: Gauge::new(None),
            unfinished: Gauge::new(None),
            metrics,
            connections: RefCell::default(),
            live: Cell::new(0),
            inspected_ms: Cell::new(0),
        })
    }

    /// Moves the coarse clock and sweeps.
    pub(crate) fn tick(&self) {
        let now_ms = self.clock.now_ms();
        self.now_ms.set(now_ms);
        self.deadlines.sweep(now_ms);
        if now_ms >= self.inspected_ms.get() + INSPECT_MS {
            self.inspected_ms.set(now_ms);
            self.inspect(now_ms);
        }
    }

    fn inspect(&self, now_ms: u64) {
        self.connections
            .borrow_mut()
            .retain(|connection| match connection.upgrade() {
                Some(connection) => {
                    connection.inspect(now_ms, &self.options);
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

    /// Tells all connections to take no new calls and to end with the last of those under way.
    pub(crate) fn drain(&self) {
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.drain();
        }
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

/// Counts one connection.
#[derive(Debug)]
pub(crate) struct LiveGuard(Rc<Thread>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
    }
}
