//! The watch hub of one connection thread, and who waits for it.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use quorate_core::{Intake, LiveStores};
use quorate_mvcc::{Reader, StreamId, WatchHub};
use tokio::time::{Sleep, sleep};

/// What one answer to a watcher costs its client to read, about: while so much was just sent, what comes next is gathered,
/// so that a client with many watchers gets fewer and larger answers. What comes after a quiet moment goes out at once.
const ANSWER_PAUSE: Duration = Duration::from_micros(2);

/// A shorter pause is none: the runtime's timers are as coarse as this.
const PAUSE_MIN: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(4);

/// Steps that the watch hub makes before other tasks of the thread get their turn.
const WATCH_STEPS_MAX: usize = 16;

/// The thread's watch hub, and the streams that wait for it.
pub(crate) struct WatchDesk {
    pub(crate) hub: RefCell<WatchHub<Reader>>,
    pub(super) wakers: RefCell<BTreeMap<StreamId, Waker>>,
    pub(super) is_due: Cell<bool>,
    pub(super) pump: RefCell<Option<Waker>>,
    /// Runs out when the hub may be moved on again.
    pub(super) pause: RefCell<Option<Pin<Box<Sleep>>>>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) live: LiveStores,
    /// That of the store that the hub reads.
    pub(super) generation: Cell<u64>,
}

impl WatchDesk {
    /// Asks for the hub to be moved on.
    pub(crate) fn nudge(&self) {
        self.is_due.set(true);
        if let Some(waker) = self.pump.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Remembers whom to wake when the stream has output.
    pub(crate) fn wait(&self, stream: StreamId, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        match wakers.get_mut(&stream) {
            Some(known) if known.will_wake(waker) => {}
            Some(known) => *known = waker.clone(),
            None => {
                wakers.insert(stream, waker.clone());
            }
        }
    }

    /// Closes a stream.
    pub(crate) fn close(&self, stream: StreamId) {
        self.wakers.borrow_mut().remove(&stream);
        self.hub.borrow_mut().close_stream(stream);
        self.nudge();
    }

    /// Becomes ready when the pause after a large hand-out is over.
    pub(super) fn poll_rested(&self, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut pause = self.pause.borrow_mut();
        if let Some(sleep) = pause.as_mut() {
            task::ready!(sleep.as_mut().poll(cx));
            *pause = None;
        }
        Poll::Ready(())
    }

    /// Moves the hub on by a bounded number of steps and wakes the streams that have output; says whether more is to be
    /// done right away.
    pub(super) fn advance(&self) -> bool {
        let mut hub = self.hub.borrow_mut();
        let generation = self.live.generation();
        if self.generation.replace(generation) != generation {
            // A snapshot was installed: watchers go on from its store where they were.
            hub.restored(self.live.reader());
        }
        let queued_before = hub.responses_queued();
        let mut more = true;
        for _ in 0..WATCH_STEPS_MAX {
            // Watchers that silently stop would be worse than a member that restarts.
            more = hub.advance().unwrap_or_else(|error| {
                self.intake
                    .fail(format!("cannot read history for watchers: {error}"));
                false
            });
            if !more {
                break;
            }
        }
        let wakers = self.wakers.borrow();
        for waker in hub
            .take_ready()
            .iter()
            .filter_map(|stream| wakers.get(stream))
        {
            waker.wake_by_ref();
        }
        let queued = hub.responses_queued() - queued_before;
        let pause = ANSWER_PAUSE.saturating_mul(u32::try_from(queued).unwrap_or(u32::MAX));
        if pause >= PAUSE_MIN {
            *self.pause.borrow_mut() = Some(Box::pin(sleep(pause.min(PAUSE_MAX))));
        }
        more
    }
}
