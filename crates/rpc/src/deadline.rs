//! Deadlines of calls, swept by the thread's tick instead of a timer each.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// The deadlines of one thread's calls.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    /// **Invariant:** at most the earliest deadline.
    next_ms: Cell<u64>,
}

#[derive(Debug)]
struct Slot {
    /// `u64::MAX` when the slot is free or has fired.
    at_ms: u64,
    waker: Option<Waker>,
}

impl Deadlines {
    /// Adds a deadline.
    pub(crate) fn add(self: &Rc<Self>, at_ms: u64) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot { at_ms, waker: None };
        let key = match self.free.borrow_mut().pop() {
            Some(key) => {
                slots[key] = slot;
                key
            }
            None => {
                slots.push(slot);
                slots.len() - 1
            }
        };
        if slots.len() == 1 || at_ms < self.next_ms.get() {
            self.next_ms.set(at_ms);
        }
        Deadline {
            deadlines: self.clone(),
            key,
            at_ms,
        }
    }

    /// Wakes everyone whose time is up.
    pub(crate) fn sweep(&self, now_ms: u64) {
        if now_ms < self.next_ms.get() {
            return;
        }
        let mut due = Vec::new();
        let mut next_ms = u64::MAX;
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.at_ms <= now_ms {
                slot.at_ms = u64::MAX;
                due.extend(slot.waker.take());
            } else {
                next_ms = next_ms.min(slot.at_ms);
            }
        }
        self.next_ms.set(next_ms);
        due.into_iter().for_each(Waker::wake);
    }
}

/// One call's deadline; dropping it takes it back.
#[derive(Debug)]
pub(crate) struct Deadline {
    deadlines: Rc<Deadlines>,
    key: usize,
    at_ms: u64,
}

impl Deadline {
    /// Says whether the time is up, and remembers whom to wake when it will be.
    pub(crate) fn is_due(&self, now_ms: u64, waker: &Waker) -> bool {
        if now_ms >= self.at_ms {
            return true;
        }
        let slot = &mut self.deadlines.slots.borrow_mut()[self.key];
        if !slot.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        false
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.deadlines.slots.borrow_mut()[self.key] = Slot {
            at_ms: u64::MAX,
            waker: None,
        };
        self.deadlines.free.borrow_mut().push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn due_deadlines_wake_once_and_slots_are_used_again() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let deadlines = Rc::new(Deadlines::default());
        let late = deadlines.add(500);
        let soon = deadlines.add(100);
        let gone = deadlines.add(50);
        for deadline in [&late, &soon, &gone] {
            assert!(!deadline.is_due(0, &waker));
        }
        drop(gone);
        deadlines.sweep(99);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        deadlines.sweep(100);
        deadlines.sweep(101);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(soon.is_due(100, &waker));
        let again = deadlines.add(10);
        assert_eq!(again.key, 2);
        deadlines.sweep(1_000);
        assert_eq!(
            count.0.load(Ordering::Relaxed),
            2,
            "the late one; the newest has no waker yet"
        );
        assert!(late.is_due(1_000, &waker));
    }
}
