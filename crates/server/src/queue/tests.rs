use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use quorate_core::Token;

use super::*;

#[test]
fn what_finds_no_room_stays_with_the_caller() {
    let queue = Queue::default();
    let mut many: Vec<_> = (0..MAX_SUBMISSIONS as u64 + 2)
        .map(|t| Submission::ReadIndex { token: Token(t) })
        .collect();
    queue.submit(&mut many);
    assert_eq!(many.len(), 2);
    let mut taken = Taken::default();
    queue.take(Instant::now(), false, &mut taken);
    assert_eq!(taken.submissions.len(), MAX_SUBMISSIONS);
    assert_eq!(
        taken.submissions[1],
        Submission::ReadIndex { token: Token(1) }
    );
}

#[test]
fn a_sleeping_engine_is_woken_by_an_event() {
    let queue = Queue::default();
    let other = queue.clone();
    let thread = thread::spawn(move || other.push(Event::Compacted));
    let mut taken = Taken::default();
    queue.take(Instant::now() + Duration::from_secs(60), false, &mut taken);
    assert_eq!(taken.events.len(), 1);
    thread.join().unwrap();
}

/// Counts its turns and takes everything out.
struct Volunteer {
    queue: Queue,
    turns: Mutex<Vec<usize>>,
    takes_more: bool,
}

impl Turns for Volunteer {
    fn help(&self, _: u32) {
        let mut taken = Taken::default();
        self.queue.take_now(&mut taken);
        let count = taken.submissions.len() + taken.messages.len() + taken.events.len();
        self.turns.lock().push(count);
        if self.takes_more {
            // Whatever is put in by the one who is at it waits for it, and wakes nobody.
            self.queue
                .submit(&mut vec![Submission::ReadIndex { token: Token(9) }]);
            assert!(!self.queue.release(true, true, false));
            self.queue.take_now(&mut Taken::default());
        }
        assert!(self.queue.release(true, true, false));
    }
}

fn helped(takes_more: bool) -> (Queue, Arc<Volunteer>) {
    let queue = Queue::default();
    let helper = Arc::new(Volunteer {
        queue: queue.clone(),
        turns: Mutex::default(),
        takes_more,
    });
    let weak: Weak<dyn Turns> = Arc::<Volunteer>::downgrade(&helper);
    queue.set_helper(weak);
    (queue, helper)
}

fn read(token: u64) -> Vec<Submission> {
    vec![Submission::ReadIndex {
        token: Token(token),
    }]
}

#[test]
fn who_puts_in_helps_when_it_is_little_and_nobody_is_at_it() {
    let (queue, helper) = helped(true);
    queue.submit(&mut read(1));
    assert!(helper.turns.lock().is_empty(), "help was not asked for");
    queue.take(Instant::now(), true, &mut Taken::default());
    queue.submit(&mut read(2));
    assert!(
        helper.turns.lock().is_empty(),
        "the engine's thread is at it"
    );
    assert!(queue.release(false, true, false));
    queue.submit(&mut read(3));
    assert_eq!(*helper.turns.lock(), [2]);
    let mut many: Vec<_> = (0..=MAX_HELPED as u64).flat_map(read).collect();
    queue.submit(&mut many);
    queue.push(Event::Compacted);
    queue.push_messages(vec![Message::default()]);
    assert_eq!(*helper.turns.lock(), [2], "it is too much, and too rare");
    let mut taken = Taken::default();
    queue.take(Instant::now(), true, &mut taken);
    assert_eq!(taken.submissions.len(), MAX_HELPED + 1);
    assert_eq!((taken.events.len(), taken.messages.len()), (1, 1));
}

#[test]
fn a_tick_waits_for_the_one_who_is_at_it_and_comes_before_the_next() {
    let (queue, helper) = helped(false);
    queue.take(Instant::now(), true, &mut Taken::default());
    queue.shared.inbox.lock().owner = Owner::Helper;
    let other = queue.clone();
    let thread = thread::spawn(move || {
        let mut taken = Taken::default();
        other.take(Instant::now(), true, &mut taken);
        taken.submissions.len()
    });
    while !queue.shared.inbox.lock().waits_for_owner {
        thread::yield_now();
    }
    queue.submit(&mut read(1));
    assert!(queue.release(true, true, false), "it would rather stay");
    assert_eq!(thread.join().unwrap(), 1);
    assert!(helper.turns.lock().is_empty());
}

#[test]
fn the_engines_thread_hears_of_the_end_that_a_helper_met() {
    let queue = Queue::default();
    queue.take(Instant::now(), true, &mut Taken::default());
    assert!(queue.release(true, true, true));
    let mut taken = Taken::default();
    queue.take(Instant::now() + Duration::from_secs(600), true, &mut taken);
    assert!(taken.is_empty());
}

#[test]
fn messages_are_bounded_in_number_and_bytes_but_one_is_always_taken() {
    let of = |bytes: usize| Message {
        entries: vec![quorate_proto::raftpb::Entry {
            data: Some(vec![0; bytes].into()),
            ..Default::default()
        }],
        ..Message::default()
    };
    let queue = Queue::default();
    let huge = of(MAX_MESSAGE_BYTES + 1);
    assert_eq!(queue.push_messages(vec![huge, of(1), of(0)]), 2);
    queue.take(Instant::now(), false, &mut Taken::default());
    let many = vec![Message::default(); MAX_MESSAGES + 3];
    assert_eq!(queue.push_messages(many), 3);
    for _ in 0..3 {
        queue.push_unreachable(MemberId(1));
    }
    let mut taken = Taken::default();
    queue.take(Instant::now(), false, &mut taken);
    assert_eq!(
        (taken.messages.len(), taken.events.len()),
        (MAX_MESSAGES, 1)
    );
}

/// An engine that only notes what it is brought, and insists on being alone.
struct Ledger {
    queue: Queue,
    is_at_it: AtomicBool,
    helped: AtomicUsize,
    seen: Mutex<Vec<u64>>,
}

impl Ledger {
    fn note(&self, taken: &mut Taken) {
        assert!(
            !self.is_at_it.swap(true, Ordering::SeqCst),
            "two turns at once"
        );
        let mut seen = self.seen.lock();
        for submission in taken.submissions.drain(..) {
            let Submission::ReadIndex { token } = submission else {
                panic!("nothing else was put in");
            };
            seen.push(token.0);
        }
        seen.extend(taken.messages.drain(..).map(|m| m.index()));
        drop(seen);
        assert!(self.is_at_it.swap(false, Ordering::SeqCst));
    }
}

fn noted() -> (Queue, Arc<Ledger>) {
    let queue = Queue::default();
    let ledger = Arc::new(Ledger {
        queue: queue.clone(),
        is_at_it: AtomicBool::new(false),
        helped: AtomicUsize::new(0),
        seen: Mutex::default(),
    });
    let weak: Weak<dyn Turns> = Arc::<Ledger>::downgrade(&ledger);
    queue.set_helper(weak);
    (queue, ledger)
}

impl Turns for Ledger {
    fn help(&self, turns_max: u32) {
        let mut turns = 0;
        loop {
            turns += 1;
            let mut taken = Taken::default();
            self.queue.take_now(&mut taken);
            assert!(taken.events.is_empty(), "that is not for helpers");
            self.note(&mut taken);
            self.helped.fetch_add(1, Ordering::SeqCst);
            if self.queue.release(turns < turns_max, true, false) {
                return;
            }
        }
    }
}

/// Producers put submissions and messages in, some of them with what only the engine's thread may take, while that thread
/// has a tick to do all the time. Tokens are the producer's number in the upper half and ascend in the lower one.
#[test]
fn nothing_is_lost_or_overtaken_and_one_is_at_it_at_a_time() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 4_000;
    let (queue, ledger) = noted();
    let produce = |number: u64| {
        let queue = queue.clone();
        move || {
            for at in 0..EACH {
                let token = number << 32 | at;
                if number.is_multiple_of(2) {
                    queue.submit(&mut read(token));
                } else {
                    let message = Message {
                        index: Some(token),
                        ..Message::default()
                    };
                    assert_eq!(queue.push_messages(vec![message]), 0);
                }
                if at % 97 == number {
                    queue.push(Event::Compacted);
                }
                if at % 11 == number {
                    thread::yield_now();
                }
            }
        }
    };
    let total = usize::try_from(PRODUCERS * EACH).unwrap();
    thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS).map(|n| scope.spawn(produce(n))).collect();
        let mut taken = Taken::default();
        let is_done = || producers.iter().all(thread::ScopedJoinHandle::is_finished);
        // As an engine's own thread: a turn whenever there is something for it, or a tick is due. What the last producer
        // left is there when it has ended.
        loop {
            let is_last = is_done();
            let until = Instant::now() + Duration::from_micros(50);
            queue.take(until, true, &mut taken);
            taken.events.clear();
            ledger.note(&mut taken);
            if is_last {
                break;
            }
        }
    });
    let seen = std::mem::take(&mut *ledger.seen.lock());
    assert_eq!(seen.len(), total);
    for number in 0..PRODUCERS {
        let of_producer = seen.iter().filter(|token| *token >> 32 == number);
        assert!(
            of_producer
                .copied()
                .eq((0..EACH).map(|at| number << 32 | at))
        );
    }
    assert!(ledger.helped.load(Ordering::SeqCst) > 0, "nobody helped");
}

/// Without ticks nothing but a word of whoever leaves something behind wakes the engine's thread.
#[test]
fn engines_thread_is_woken_for_what_helpers_leave_to_it() {
    let (queue, ledger) = noted();
    const ROUNDS: u64 = 3_000;
    let (done, rounds) = std::sync::mpsc::channel();
    let engine = {
        let (queue, ledger) = (queue.clone(), ledger.clone());
        thread::spawn(move || {
            let far = Instant::now() + Duration::from_secs(600);
            let mut rare = 0;
            while rare < ROUNDS {
                let mut taken = Taken::default();
                queue.take(far, true, &mut taken);
                for _ in taken.events.drain(..) {
                    rare += 1;
                    done.send(()).unwrap();
                }
                ledger.note(&mut taken);
            }
        })
    };
    let helper = {
        let queue = queue.clone();
        thread::spawn(move || (0..ROUNDS * 4).for_each(|token| queue.submit(&mut read(token))))
    };
    for round in 0..ROUNDS {
        queue.push(Event::Compacted);
        // The next is put in only when this was seen, so a lost word would show as a time-out.
        let seen = rounds.recv_timeout(Duration::from_secs(120));
        assert!(seen.is_ok(), "event {round} was not taken");
    }
    helper.join().unwrap();
    engine.join().unwrap();
}
