use bytes::Bytes;

/// The keys that two fields of a request name: one key, those up to an end, or all from a key on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    first: Bytes,
    end: Bytes,
}

impl Span {
    /// Takes the fields `key` and `range_end`.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        Self {
            first: key.clone(),
            end: range_end.clone(),
        }
    }

    /// Names one key.
    pub fn single(key: &Bytes) -> Self {
        Self::new(key, &Bytes::new())
    }

    /// Returns the first key.
    pub fn first(&self) -> &Bytes {
        &self.first
    }

    /// Returns the first key beyond the span; `None` when it has no end.
    pub fn beyond(&self) -> Option<Bytes> {
        match &self.end[..] {
            [0] => None,
            [] => Some([&self.first[..], &[0]].concat().into()),
            _ => Some(self.end.clone()),
        }
    }

    /// Says whether a key is named.
    pub fn has(&self, key: &[u8]) -> bool {
        match &self.end[..] {
            [] => key == self.first,
            [0] => key >= &self.first[..],
            end => key >= &self.first[..] && key < end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_name_what_the_reference_says() {
        let span = |key: &'static str, end: &'static str| Span::new(&key.into(), &end.into());
        assert!(span("b", "").has(b"b") && !span("b", "").has(b"b\0"));
        assert!(span("b", "d").has(b"c") && !span("b", "d").has(b"d"));
        assert!(span("b", "\0").has(b"\xff") && !span("b", "\0").has(b"a"));
        assert!(!span("b", "a").has(b"a") && !span("b", "a").has(b"b"));
        assert_eq!(span("b", "\0").beyond(), None);
        assert_eq!(span("b", "").beyond(), Some("b\0".into()));
    }
}
