/// Says by how much to delay the end of each lease after a change of leader, so that ends do not pile up.
///
/// **Shape**: `remaining_ms` ascends; the answer has one delay for each entry, in the same order. Within any window that
/// fills up, the leases beyond `per_second` are moved behind it, `per_second` to the second.
///
/// Source: etcd v3.7.1 `server/lease/lessor.go` `lessor.Promote`. Differs from etcd: a window reaches to the end of the
/// last lease that was moved; there it may end before, and then the next one adds its leases to those.
pub(crate) fn delays_ms(remaining_ms: &[u64], per_second: u64) -> Vec<u64> {
    assert!(per_second > 0, "leases must end at some rate");
    debug_assert!(remaining_ms.is_sorted());
    let mut delays = Vec::with_capacity(remaining_ms.len());
    let mut base_ms = remaining_ms.first().copied().unwrap_or(0);
    let mut window_end_ms = base_ms.saturating_add(WINDOW_MS);
    let mut ends: u64 = 0;
    for &remaining in remaining_ms {
        if remaining > window_end_ms {
            base_ms = remaining;
            window_end_ms = base_ms.saturating_add(WINDOW_MS);
            ends = 1;
            delays.push(0);
            continue;
        }
        ends += 1;
        if ends <= per_second {
            delays.push(0);
            continue;
        }
        let end_ms = base_ms.saturating_add(ends.saturating_mul(WINDOW_MS) / per_second);
        // Never earlier: the lease lies inside the window, which ends where the lease before it was moved to.
        let delay = end_ms.saturating_sub(remaining);
        window_end_ms = end_ms;
        delays.push(delay);
    }
    delays
}

const WINDOW_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leases_that_end_together_are_moved_apart() {
        let delays = delays_ms(&[10_000; 2_250], 750);
        assert!(delays[..750].iter().all(|&d| d == 0));
        assert_eq!(
            (delays[750], delays[1_499], delays[2_249]),
            (1_001, 2_000, 3_000)
        );
    }

    #[test]
    fn leases_far_apart_stay() {
        assert_eq!(delays_ms(&[0, 2_000, 4_000, 6_000], 1), [0; 4]);
    }

    proptest! {
        #[test]
        fn no_second_gets_more_than_a_few_times_the_rate(mut remaining in prop::collection::vec(0..5_000u64, 1..200), rate in 1..20u64) {
            remaining.sort_unstable();
            let delays = delays_ms(&remaining, rate);
            let mut ends: Vec<u64> = remaining.iter().zip(&delays).map(|(r, d)| r + d).collect();
            ends.sort_unstable();
            for (n, &end) in ends.iter().enumerate() {
                let in_second = ends[n..].iter().take_while(|&&e| e < end + 1_000).count();
                // What a window leaves in place, what it moves, and what the next leaves in place may fall together.
                let bound = 3 * rate + 2;
                prop_assert!(in_second as u64 <= bound, "{in_second} ends within a second at rate {rate}: {ends:?}");
            }
        }
    }
}
