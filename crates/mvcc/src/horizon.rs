use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// What readers may see: from the compact revision up to the current one, both moved by the writer alone.
///
/// Readers take no pin at first: they look at the compact revision again each time they hold the index lock, and a
/// compaction changes the index only after it moved that revision. One that finds itself overtaken starts anew with a
/// pin, which holds back every compaction above the compact revision it saw.
///
/// **Invariant:** `compact <= current`; neither ever goes back.
#[derive(Debug)]
pub(crate) struct Horizon {
    current: AtomicI64,
    compact: AtomicI64,
    /// Compact revision at the time of the pin, to how many pins there are.
    pins: Mutex<BTreeMap<i64, usize>>,
}

/// Holds back compactions above `compact` while it lives.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    horizon: &'a Horizon,
    /// Current revision at the time of the pin.
    pub(crate) current: i64,
    /// Compact revision at the time of the pin.
    pub(crate) compact: i64,
}

impl Horizon {
    pub(crate) fn new(current: i64, compact: i64) -> Horizon {
        assert!(
            compact <= current,
            "compact revision {compact} lies above {current}"
        );
        Horizon {
            current: AtomicI64::new(current),
            compact: AtomicI64::new(compact),
            pins: Mutex::default(),
        }
    }

    pub(crate) fn current(&self) -> i64 {
        self.current.load(Ordering::Acquire)
    }

    pub(crate) fn compact(&self) -> i64 {
        self.compact.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, current: i64, compact: i64) {
        if compact != self.compact() {
            assert!(
                self.compact() <= compact && compact <= current,
                "compact revision goes back or too far"
            );
            // Under the lock of the pins, so that no pin taken later can be below.
            let _pins = self.pins.lock();
            self.current.store(current, Ordering::Release);
            self.compact.store(compact, Ordering::Release);
        } else {
            assert!(self.current() <= current, "current revision goes back");
            self.current.store(current, Ordering::Release);
        }
    }

    pub(crate) fn pin(&self) -> Pin<'_> {
        let mut pins = self.pins.lock();
        let (current, compact) = (self.current(), self.compact());
        *pins.entry(compact).or_default() += 1;
        Pin {
            horizon: self,
            current,
            compact,
        }
    }

    /// Returns whether a compaction at this revision, already published, would take something from a pin.
    pub(crate) fn is_pinned_below(&self, revision: i64) -> bool {
        self.pins
            .lock()
            .keys()
            .next()
            .is_some_and(|oldest| *oldest < revision)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.horizon.pins.lock();
        let count = pins
            .get_mut(&self.compact)
            .expect("a pin is counted until it is dropped");
        *count -= 1;
        if *count == 0 {
            pins.remove(&self.compact);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_back_compactions_above_the_horizon_it_saw() {
        let horizon = Horizon::new(9, 3);
        let first = horizon.pin();
        let second = horizon.pin();
        assert_eq!((first.current, first.compact), (9, 3));
        horizon.publish(10, 5);
        assert!(horizon.is_pinned_below(5));
        drop(first);
        assert!(horizon.is_pinned_below(5));
        let third = horizon.pin();
        drop(second);
        assert!(!horizon.is_pinned_below(5));
        assert!(horizon.is_pinned_below(6));
        drop(third);
        assert!(!horizon.is_pinned_below(6));
    }
}
