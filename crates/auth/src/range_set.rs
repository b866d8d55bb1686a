use bytes::Bytes;

/// A set of keys as a union of intervals.
///
/// **Shape**: intervals ascend, and between any two lies at least one key that is in neither: overlapping and touching
/// ones are merged, so that a range is in the set exactly when one interval holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    intervals: Vec<Interval>,
}

/// The keys from `start` up to `end`, which is left out; `None` is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

/// A key and `range_end`, as requests and permissions have them: an empty `range_end` means the key alone, one zero byte
/// means all keys from the key on, anything else is the exclusive end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Where it ends.
    pub range_end: &'a [u8],
}

/// The `range_end` of a range without end.
const OPEN_END: &[u8] = &[0];

impl<'a> Span<'a> {
    /// Names one key.
    pub fn single(key: &'a [u8]) -> Self {
        Span {
            key,
            range_end: &[],
        }
    }

    /// Says whether a permission may be granted on the span.
    ///
    /// Source: etcd v3.7.1 `server/auth/range_perm_cache.go` `isValidPermissionRange`.
    pub(crate) fn is_grantable(self) -> bool {
        let Span { key, range_end } = self;
        !key.is_empty() && (range_end.is_empty() || range_end == OPEN_END || key < range_end)
    }
}

impl RangeSet {
    /// Unites spans. A span that could not be granted, as an old member may have stored, holds nothing.
    pub(crate) fn new<'a>(spans: impl Iterator<Item = Span<'a>>) -> Self {
        let mut intervals: Vec<Interval> = spans
            .filter(|span| span.is_grantable())
            .map(Interval::new)
            .collect();
        intervals.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for next in intervals {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| *end >= next.start) => {
                    if next.end.is_none() || next.end > last.end && last.end.is_some() {
                        last.end = next.end;
                    }
                }
                _ => merged.push(next),
            }
        }
        Self { intervals: merged }
    }

    /// Says whether all keys of the span are in the set.
    ///
    /// A span that is empty because its end is not above its key is in the set when the key is. Differs from etcd: there
    /// so too, except that a span whose end is below its key may be refused when the user has several permissions, by how
    /// its interval tree happens to be balanced. No key is in such a span, so nothing is let out.
    pub(crate) fn holds(&self, span: Span<'_>) -> bool {
        let at = self.intervals.partition_point(|i| *i.start <= *span.key);
        let Some(interval) = at.checked_sub(1).map(|at| &self.intervals[at]) else {
            return false;
        };
        let Some(end) = &interval.end else {
            return true;
        };
        if span.range_end == OPEN_END {
            return false;
        }
        if span.range_end <= span.key {
            span.key < &end[..]
        } else {
            span.range_end <= &end[..]
        }
    }
}

impl Interval {
    fn new(span: Span<'_>) -> Self {
        let end = match span.range_end {
            [] => Some(Bytes::from([span.key, &[0]].concat())),
            OPEN_END => None,
            end => Some(Bytes::copy_from_slice(end)),
        };
        Self {
            start: Bytes::copy_from_slice(span.key),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(spans: &[(&str, &str)]) -> RangeSet {
        RangeSet::new(spans.iter().map(|(k, e)| span(k, e)))
    }

    fn span<'a>(key: &'a str, end: &'a str) -> Span<'a> {
        Span {
            key: key.as_bytes(),
            range_end: end.as_bytes(),
        }
    }

    #[test]
    fn touching_ranges_cover_together() {
        let set = set(&[("a", "c"), ("c", "e"), ("x", "")]);
        assert!(set.holds(span("a", "e")) && set.holds(span("b", "d")) && set.holds(span("d", "")));
        assert!(
            !set.holds(span("a", "f")) && !set.holds(span("e", "")) && !set.holds(span("a", "\0"))
        );
        assert!(
            set.holds(span("x", "")) && set.holds(span("x", "x\0")) && !set.holds(span("x", "y"))
        );
    }

    #[test]
    fn open_end_needs_an_open_end() {
        let set = set(&[("b", "\0"), ("a", "b")]);
        assert!(
            set.holds(span("a", "\0")) && set.holds(span("zz", "\0")) && set.holds(span("a", "zz"))
        );
        assert!(
            !set.holds(span("\0", "\0")) && !set.holds(span("", "\0")) && !set.holds(span("", ""))
        );
    }

    #[test]
    fn a_point_and_what_follows_it_touch() {
        let set = set(&[("a", ""), ("a\0", "b")]);
        assert!(set.holds(span("a", "b")));
    }

    /// Keys of the model: all strings of up to two of three letters, and the ends beyond them.
    fn keys() -> Vec<Vec<u8>> {
        let letters = [0u8, b'a', b'b', 0xff];
        let mut keys: Vec<Vec<u8>> = letters.iter().map(|&a| vec![a]).collect();
        keys.extend(
            letters
                .iter()
                .flat_map(|&a| letters.iter().map(move |&b| vec![a, b])),
        );
        keys
    }

    fn any_span() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let key = prop::sample::select(keys());
        let end = prop_oneof![
            2 => Just(vec![]),
            1 => Just(vec![0]),
            4 => prop::sample::select(keys()),
        ];
        (key, end)
    }

    fn in_span(key: &[u8], span: &(Vec<u8>, Vec<u8>)) -> bool {
        match &span.1[..] {
            [] => key == span.0,
            [0] => key >= &span.0[..],
            end => key >= &span.0[..] && key < end,
        }
    }

    proptest! {
        #[test]
        fn holds_exactly_what_the_model_holds(grants in prop::collection::vec(any_span(), 0..5), asked in any_span()) {
            let set = RangeSet::new(grants.iter().map(|(k, e)| Span { key: k, range_end: e }));
            let got = set.holds(Span { key: &asked.0, range_end: &asked.1 });
            // A finite set of keys stands for all: between two neighbours of it no span begins or ends, apart from the
            // one right behind a single key.
            let universe = keys().into_iter().flat_map(|k| [[&k[..], &[0]].concat(), [&k[..], b"zz"].concat(), k]);
            let universe = universe.chain([vec![0xff; 4]]);
            let granted = |key: &[u8]| grants.iter().any(|g| in_span(key, g));
            let mut asked_keys = universe.filter(|k| in_span(k, &asked)).peekable();
            let want = if asked_keys.peek().is_some() {
                asked_keys.all(|k| granted(&k))
            } else {
                granted(&asked.0)
            };
            prop_assert_eq!(got, want, "{:?} in {:?}", asked, grants);
        }
    }
}
