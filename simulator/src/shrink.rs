//! From a run that fails to the smallest one that fails in the same way.
use crate::plan::{FaultKind, Narrow};

/// Lengths of the first phase that are tried, in milliseconds.
const LENGTHS_MS: &[u64] = &[1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 30_000];

/// Narrows a run as long as it fails by the same check. `run` returns the check that fails.
///
/// Returns `None` when the run does not fail at all.
pub fn shrink(
    narrow: &Narrow,
    mut run: impl FnMut(&Narrow) -> Option<&'static str>,
) -> Option<Narrow> {
    let mut best = narrow.clone();
    let check = run(&best)?;
    let mut fails = |candidate: &Narrow| run(candidate) == Some(check);
    for kind in FaultKind::ALL {
        let mut candidate = best.clone();
        if candidate.without.insert(*kind) && fails(&candidate) {
            best = candidate;
        }
    }
    for members in [1, 2, 3, 5] {
        let candidate = Narrow {
            members: Some(members),
            ..best.clone()
        };
        if best.members.is_none_or(|m| m > members) && fails(&candidate) {
            best = candidate;
            break;
        }
    }
    for length in LENGTHS_MS {
        let candidate = Narrow {
            length_ms: Some(*length),
            ..best.clone()
        };
        if best.length_ms.is_none_or(|l| l > *length) && fails(&candidate) {
            best = candidate;
            break;
        }
    }
    let with = |best: &Narrow, set: fn(&mut Narrow, u64), number: u64| {
        let mut candidate = best.clone();
        set(&mut candidate, number);
        candidate
    };
    for set in [
        (|n: &mut Narrow, number| n.faults = Some(number)) as fn(&mut Narrow, u64),
        |n, number| n.operations = Some(number),
    ] {
        let mut number = 1 << 14;
        while number > 0 {
            let candidate = with(&best, set, number);
            if !fails(&candidate) {
                break;
            }
            best = candidate;
            number /= 2;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let needs = |n: &Narrow| {
            let fails = !n.without.contains(&FaultKind::Kill)
                && n.members.is_none_or(|m| m >= 3)
                && n.length_ms.is_none_or(|l| l >= 2_500)
                && n.operations.is_none_or(|o| o > 60);
            fails.then_some("a check")
        };
        let smallest = shrink(&Narrow::default(), needs).unwrap();
        assert_eq!(smallest.without.len(), FaultKind::ALL.len() - 1);
        assert_eq!(
            (smallest.members, smallest.length_ms),
            (Some(3), Some(3_000))
        );
        assert_eq!((smallest.faults, smallest.operations), (Some(1), Some(64)));
        assert_eq!(shrink(&Narrow::default(), |_| None), None);
    }
}
