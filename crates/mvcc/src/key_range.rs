use std::ops::Bound;

use bytes::Bytes;

/// A set of keys that requests, watchers and permissions name: one key, a half-open interval, or all from a key on.
///
/// **Shape**: keys are compared bytewise. An interval whose end is not above its start is empty, which is no error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    /// Only the start itself.
    Single,
    /// Up to this key, which is left out.
    Before(Bytes),
    /// No end.
    Open,
}

impl KeyRange {
    /// Reads the two fields of a request.
    ///
    /// An empty `range_end` means the key alone, one zero byte means everything from the key on, anything else is the
    /// exclusive end.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/txn/delete.go` `mkGteRange`.
    pub fn from_wire(key: &Bytes, range_end: &Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end.clone()),
        };
        KeyRange {
            start: key.clone(),
            end,
        }
    }

    /// Names one key.
    pub fn single(key: Bytes) -> KeyRange {
        KeyRange {
            start: key,
            end: End::Single,
        }
    }

    /// Names every key.
    pub fn all() -> KeyRange {
        KeyRange {
            start: Bytes::new(),
            end: End::Open,
        }
    }

    /// Returns the key when the range is a single one.
    pub fn as_single(&self) -> Option<&Bytes> {
        match self.end {
            End::Single => Some(&self.start),
            End::Before(_) | End::Open => None,
        }
    }

    /// Returns the first key that can be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// Returns where the range ends: `Included(start)` for a single key, `Excluded(end)` for an interval.
    pub fn end(&self) -> Bound<&[u8]> {
        match &self.end {
            End::Single => Bound::Included(&self.start),
            End::Before(end) => Bound::Excluded(end),
            End::Open => Bound::Unbounded,
        }
    }

    /// Returns whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        match &self.end {
            End::Single | End::Open => false,
            End::Before(end) => *end <= self.start,
        }
    }

    /// Returns whether the key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Open => key >= &self.start[..],
        }
    }

    /// Returns the part of the range that lies after the key.
    pub(crate) fn after(&self, key: &[u8]) -> KeyRange {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        let end = match &self.end {
            // Nothing of a single key is left after it: an interval that ends where it starts.
            End::Single => End::Before(self.start.clone()),
            other => other.clone(),
        };
        KeyRange {
            start: start.into(),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, range_end: &'static str) -> KeyRange {
        KeyRange::from_wire(
            &Bytes::from_static(key.as_bytes()),
            &Bytes::from_static(range_end.as_bytes()),
        )
    }

    #[test]
    fn the_wire_has_three_forms_of_range() {
        let single = range("b", "");
        assert_eq!(single.as_single().map(|key| &key[..]), Some(&b"b"[..]));
        assert!(single.contains(b"b") && !single.contains(b"b\0") && !single.contains(b"a"));

        let interval = range("b", "d");
        assert!(interval.contains(b"b") && interval.contains(b"cz") && !interval.contains(b"d"));
        assert!(interval.as_single().is_none() && !interval.is_empty());

        let open = range("b", "\0");
        assert!(open.contains(b"b") && open.contains(b"\xff\xff") && !open.contains(b"a"));
        assert_eq!(open.end(), Bound::Unbounded);
    }

    #[test]
    fn an_interval_whose_end_is_not_above_its_start_is_empty() {
        assert!(range("b", "b").is_empty());
        assert!(range("b", "a").is_empty());
        assert!(!range("b", "a").contains(b"a") && !range("b", "a").contains(b"b"));
        // Two zero bytes are an ordinary end.
        assert!(range("b", "\0\0").is_empty());
    }

    #[test]
    fn the_rest_after_a_key_leaves_that_key_out() {
        assert!(range("b", "").after(b"b").is_empty());
        let rest = range("b", "d").after(b"c");
        assert!(!rest.contains(b"c") && rest.contains(b"c\0") && !rest.contains(b"d"));
        let rest = range("b", "\0").after(b"c");
        assert!(!rest.contains(b"c") && rest.contains(b"d"));
    }
}
