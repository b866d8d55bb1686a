//! Bytes of requests that have not come whole yet, over all connections.
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;

/// How many bytes unfinished requests may hold together.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            taken: AtomicUsize::new(0),
        }
    }

    pub(crate) fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            bytes: 0,
        }
    }
}

impl Share<'_> {
    /// Takes more.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if all requests together hold too much; what this one has stays taken until it is dropped.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let taken = self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if taken + bytes > self.budget.bytes_max {
            return Err(Error::TooLarge {
                bytes: (taken + bytes) as u64,
                limit: self.budget.bytes_max as u64,
            });
        }
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let budget = Budget::new(10);
        let mut one = budget.share();
        one.grow(6).unwrap();
        let mut two = budget.share();
        assert!(two.grow(5).is_err());
        drop(two);
        one.grow(4).unwrap();
        drop(one);
        assert!(budget.share().grow(10).is_ok());
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
