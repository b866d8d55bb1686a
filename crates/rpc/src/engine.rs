//! Between connection threads and the engine: submissions go over in batches, outcomes come back in batches.
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quorate_core::{Error, Intake, Outcome, Outlet, Submission, Token};

use crate::worker::THREADS_MAX;

/// Waiters that one thread may have at one time; more are told that there are too many requests.
const WAITERS_MAX: usize = 1 << 20;

/// What a token is made of.
///
/// **Shape**: 8 bits of thread, 24 bits of generation, 32 bits of slot, from the top.
fn token(thread: usize, generation: u32, slot: u32) -> Token {
    let thread = u64::try_from(thread).unwrap_or(u64::MAX);
    Token(thread << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot))
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

fn thread_of(token: Token) -> usize {
    let [thread, ..] = token.0.to_be_bytes();
    usize::from(thread)
}

fn generation_of(token: Token) -> u32 {
    u32::try_from(token.0 >> 32).unwrap_or(0) & GENERATION_MASK
}

fn slot_of(token: Token) -> usize {
    usize::try_from(token.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

/// One connection thread's inbox.
#[derive(Debug, Default)]
struct Mailbox {
    /// **Limit:** at most one outcome for each waiter of the thread, so [`WAITERS_MAX`] and those cancelled meanwhile.
    outcomes: Mutex<Vec<(Token, Outcome)>>,
    published: AtomicBool,
    /// Whether the thread has watch streams, so that it is to be woken for what is published.
    watches: AtomicBool,
    /// The most waiters there were at one time since [`Mailboxes::take_most_waiting`].
    most_waiting: AtomicUsize,
    waker: AtomicWaker,
}

/// The inboxes of all connection threads: the engine's way back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl Mailboxes {
    /// Makes an inbox for each connection thread.
    ///
    /// # Panics
    ///
    /// When there are more threads than [`THREADS_MAX`].
    pub fn new(threads: usize) -> Self {
        assert!(
            threads <= THREADS_MAX,
            "a token names one of {THREADS_MAX} threads"
        );
        Self((0..threads).map(|_| Mailbox::default()).collect())
    }

    /// Returns how many callers waited for the engine at one time at most since this was last asked, the threads' own
    /// maxima added up.
    pub fn take_most_waiting(&self) -> usize {
        let most = self.0.iter().map(|m| &m.most_waiting);
        most.map(|most| most.swap(0, Ordering::Relaxed)).sum()
    }
}

impl Outlet for Mailboxes {
    fn deliver(&mut self, replies: Vec<(Token, Outcome)>) {
        if let [mailbox] = &*self.0 {
            return mailbox.put(replies);
        }
        let mut sorted: Vec<Vec<_>> = self.0.iter().map(|_| Vec::new()).collect();
        for reply in replies {
            if let Some(mailbox) = sorted.get_mut(thread_of(reply.0)) {
                mailbox.push(reply);
            }
        }
        for (mailbox, replies) in self.0.iter().zip(sorted) {
            if !replies.is_empty() {
                mailbox.put(replies);
            }
        }
    }

    fn published(&mut self) {
        for mailbox in &*self.0 {
            let told = mailbox.published.swap(true, Ordering::SeqCst);
            if !told && mailbox.watches.load(Ordering::SeqCst) {
                mailbox.waker.wake();
            }
        }
    }
}

impl Mailbox {
    fn put(&self, mut replies: Vec<(Token, Outcome)>) {
        {
            let mut outcomes = self.outcomes.lock();
            if outcomes.is_empty() {
                std::mem::swap(&mut *outcomes, &mut replies);
            } else {
                outcomes.append(&mut replies);
            }
        }
        self.waker.wake();
    }
}

#[derive(Debug)]
enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Outcome),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
}

#[derive(Debug, Default)]
struct Waiters {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Waiters {
    /// Returns how many slots are taken.
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(slot_of(token))?;
        (slot.generation == generation_of(token)).then_some(slot)
    }

    fn release(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free
            .push(u32::try_from(slot_of(token)).expect("a slot's number is 32 bits of its token"));
    }
}

/// One connection thread's way to the engine.
pub(crate) struct Engine {
    thread: usize,
    intake: Arc<dyn Intake>,
    mailboxes: Mailboxes,
    waiters: RefCell<Waiters>,
    /// Submissions made in this turn. **Limit:** those of [`WAITERS_MAX`] waiters and their cancellations.
    outgoing: RefCell<Vec<Submission>>,
    pump: RefCell<Option<Waker>>,
}

impl Engine {
    pub(crate) fn new(thread: usize, intake: Arc<dyn Intake>, mailboxes: Mailboxes) -> Rc<Self> {
        Rc::new(Self {
            thread,
            intake,
            mailboxes,
            waiters: RefCell::default(),
            outgoing: RefCell::default(),
            pump: RefCell::new(None),
        })
    }

    /// Submits something; it goes over with all else that the thread submits in this turn.
    pub(crate) fn submit(self: &Rc<Self>, make: impl FnOnce(Token) -> Submission) -> Wait {
        let mut waiters = self.waiters.borrow_mut();
        let slot = match waiters.free.pop() {
            Some(slot) => slot,
            None if waiters.slots.len() >= WAITERS_MAX => {
                return Wait {
                    engine: self.clone(),
                    token: None,
                };
            }
            None => {
                waiters.slots.push(Slot {
                    generation: 0,
                    state: State::Free,
                });
                u32::try_from(waiters.slots.len() - 1).expect("there are fewer waiters than that")
            }
        };
        let at = usize::try_from(slot).expect("a slot's number indexes memory");
        waiters.slots[at].state = State::Waiting(None);
        let token = token(self.thread, waiters.slots[at].generation, slot);
        drop(waiters);
        self.outgoing.borrow_mut().push(make(token));
        self.wake_pump();
        Wait {
            engine: self.clone(),
            token: Some(token),
        }
    }

    fn wake_pump(&self) {
        if let Some(waker) = self.pump.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Takes in outcomes and hands over submissions; gives whether new state was published since the last call.
    ///
    /// Registers the caller to be called again; it runs behind the tasks that are ready already, which is what makes
    /// the batches. Only a thread that watches is woken for what is published; one that begins to must call this first and
    /// look at the state then.
    pub(crate) fn pump(&self, cx: &mut Context<'_>, watches: bool) -> bool {
        let mailbox = &self.mailboxes.0[self.thread];
        mailbox.watches.store(watches, Ordering::SeqCst);
        mailbox.waker.register(cx.waker());
        *self.pump.borrow_mut() = Some(cx.waker().clone());
        let waiting = self.waiters.borrow().len();
        if waiting > mailbox.most_waiting.load(Ordering::Relaxed) {
            mailbox.most_waiting.store(waiting, Ordering::Relaxed);
        }
        let outcomes = std::mem::take(&mut *mailbox.outcomes.lock());
        for (token, outcome) in outcomes {
            self.complete(token, outcome);
        }
        let mut outgoing = std::mem::take(&mut *self.outgoing.borrow_mut());
        if !outgoing.is_empty() {
            self.intake.submit(&mut outgoing);
            for refused in outgoing.drain(..) {
                if let Some(token) = token_of(&refused) {
                    self.complete(token, Outcome::Failed(Error::TooManyRequests));
                }
            }
            let mut slot = self.outgoing.borrow_mut();
            if slot.is_empty() {
                *slot = outgoing;
            }
        }
        mailbox.published.swap(false, Ordering::SeqCst)
    }

    fn complete(&self, token: Token, outcome: Outcome) {
        let mut waiters = self.waiters.borrow_mut();
        // A waiter that is gone has left its slot; its outcome is nobody's.
        let Some(slot) = waiters.slot(token) else {
            return;
        };
        if let State::Waiting(waker) = std::mem::replace(&mut slot.state, State::Done(outcome)) {
            drop(waiters);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Returns whom a submission that found no room would have answered; a cancellation that found none is no loss.
fn token_of(submission: &Submission) -> Option<Token> {
    match submission {
        Submission::Propose(proposal) => Some(proposal.token),
        Submission::ReadIndex { token }
        | Submission::LeaseRenew { token, .. }
        | Submission::LeaseTimeToLive { token, .. }
        | Submission::LeaseLeases { token }
        | Submission::LeaseKeys { token, .. }
        | Submission::ChangeMembers { token, .. }
        | Submission::Downgrade { token, .. }
        | Submission::Digest { token, .. }
        | Submission::MoveLeader { token, .. } => Some(*token),
        Submission::Cancel { .. } => None,
    }
}

/// Waits for the outcome of a submission; dropped earlier, it tells the engine that nobody waits any more.
pub(crate) struct Wait {
    engine: Rc<Engine>,
    /// `None` when it was never submitted, or is over.
    token: Option<Token>,
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(token) = self.token else {
            return Poll::Ready(Outcome::Failed(Error::TooManyRequests));
        };
        let mut waiters = self.engine.waiters.borrow_mut();
        let slot = waiters
            .slot(token)
            .expect("a waiter's slot is its own until it is done");
        match &mut slot.state {
            State::Waiting(waker) => {
                if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            State::Done(_) | State::Free => {}
        }
        let State::Done(outcome) = std::mem::replace(&mut slot.state, State::Free) else {
            unreachable!("a slot is not free while its waiter waits")
        };
        waiters.release(token);
        drop(waiters);
        self.token = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(token) = self.token else { return };
        self.engine.waiters.borrow_mut().release(token);
        self.engine
            .outgoing
            .borrow_mut()
            .push(Submission::Cancel { token });
        self.engine.wake_pump();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Keeps what is submitted, up to a limit.
    #[derive(Default)]
    struct Desk {
        submitted: Mutex<Vec<Submission>>,
        room: usize,
    }

    impl Intake for Desk {
        fn submit(&self, submissions: &mut Vec<Submission>) {
            let mut submitted = self.submitted.lock();
            let room = self
                .room
                .saturating_sub(submitted.len())
                .min(submissions.len());
            submitted.extend(submissions.drain(..room));
        }

        fn fail(&self, why: String) {
            panic!("{why}");
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn engine(room: usize) -> (Rc<Engine>, Arc<Desk>, Mailboxes) {
        let desk = Arc::new(Desk {
            room,
            ..Desk::default()
        });
        let mailboxes = Mailboxes::new(2);
        (
            Engine::new(1, desk.clone(), mailboxes.clone()),
            desk,
            mailboxes,
        )
    }

    async fn pump(engine: &Engine) -> bool {
        poll_fn(|cx| Poll::Ready(engine.pump(cx, true))).await
    }

    #[test]
    fn outcome_reaches_its_own_waiter_and_slots_are_used_again() {
        block_on(async {
            let (engine, desk, mut mailboxes) = engine(100);
            for round in 0..3 {
                let first = engine.submit(|token| Submission::ReadIndex { token });
                let second = engine.submit(|token| Submission::LeaseLeases { token });
                pump(&engine).await;
                let tokens: Vec<_> = desk
                    .submitted
                    .lock()
                    .drain(..)
                    .filter_map(|s| token_of(&s))
                    .collect();
                assert_eq!(
                    tokens.iter().map(|t| thread_of(*t)).collect::<Vec<_>>(),
                    [1, 1]
                );
                mailboxes.deliver(vec![
                    (tokens[1], Outcome::LeaseLeases(vec![])),
                    (tokens[0], Outcome::ReadReady),
                    (token(0, 0, 0), Outcome::LeaderMoved),
                ]);
                pump(&engine).await;
                assert!(matches!(first.await, Outcome::ReadReady));
                assert!(matches!(second.await, Outcome::LeaseLeases(_)));
                assert_eq!(engine.waiters.borrow().slots.len(), 2, "round {round}");
            }
        });
    }

    #[test]
    fn abandoned_waiter_cancels_and_its_late_outcome_meets_nobody() {
        block_on(async {
            let (engine, desk, mut mailboxes) = engine(100);
            drop(engine.submit(|token| Submission::ReadIndex { token }));
            let next = engine.submit(|token| Submission::ReadIndex { token });
            pump(&engine).await;
            let submitted = std::mem::take(&mut *desk.submitted.lock());
            let [
                Submission::ReadIndex { token: old },
                Submission::Cancel { token },
                Submission::ReadIndex { token: new },
            ] = submitted[..]
            else {
                panic!("{submitted:?}")
            };
            assert_eq!(token, old);
            assert_eq!(slot_of(old), slot_of(new));
            mailboxes.deliver(vec![(old, Outcome::LeaderMoved)]);
            pump(&engine).await;
            mailboxes.deliver(vec![(new, Outcome::ReadReady)]);
            pump(&engine).await;
            assert!(matches!(next.await, Outcome::ReadReady));
        });
    }

    #[test]
    fn most_waiters_at_one_time_are_told_once() {
        block_on(async {
            let (engine, _, mailboxes) = engine(100);
            for waiters in [3, 1] {
                let waits: Vec<_> = (0..waiters)
                    .map(|_| engine.submit(|token| Submission::ReadIndex { token }))
                    .collect();
                pump(&engine).await;
                drop(waits);
                pump(&engine).await;
                assert_eq!(mailboxes.take_most_waiting(), waiters);
                assert_eq!(mailboxes.take_most_waiting(), 0);
            }
        });
    }

    #[test]
    fn submission_without_room_is_told_so() {
        block_on(async {
            let (engine, _, _) = engine(1);
            let _first = engine.submit(|token| Submission::ReadIndex { token });
            let second = engine.submit(|token| Submission::ReadIndex { token });
            pump(&engine).await;
            assert!(matches!(
                second.await,
                Outcome::Failed(Error::TooManyRequests)
            ));
        });
    }

    #[test]
    fn publication_is_told_once_to_every_thread() {
        block_on(async {
            let (engine, _, mut mailboxes) = engine(1);
            assert!(!pump(&engine).await);
            mailboxes.published();
            mailboxes.published();
            assert!(pump(&engine).await);
            assert!(!pump(&engine).await);
        });
    }
}
