//! The row that no bucket of etcd has: what else must be as durable as the data.

/// How far the log is applied, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Index of the newest applied log entry; 0 when none is.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Running digest of all applied entries.
    pub digest: u64,
}

/// The state row, which every commit to the file rewrites.
///
/// **Shape**, 48 bytes, numbers little endian:
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | index of the newest applied entry, as in table `meta` |
/// | 8 | 8 | its term, as in table `meta` |
/// | 16 | 8 | digest |
/// | 24 | 8 | what all rows count, in bytes |
/// | 32 | 8 | most bytes in use since the last defragmentation |
/// | 40 | 8 | zero |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) applied: Applied,
    pub(crate) rows_bytes: u64,
    /// **Invariant:** at least the size that `rows_bytes` makes, after each commit.
    pub(crate) high_water_bytes: u64,
}

/// Encoded size of the state row in bytes.
pub(crate) const STATE_BYTES: usize = 48;

impl State {
    pub(crate) fn encode(&self) -> [u8; STATE_BYTES] {
        let numbers = [
            self.applied.index,
            self.applied.term,
            self.applied.digest,
            self.rows_bytes,
            self.high_water_bytes,
            0,
        ];
        let mut out = [0; STATE_BYTES];
        for (bytes, number) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<State> {
        let bytes: &[u8; STATE_BYTES] = bytes.try_into().ok()?;
        let numbers = bytes.as_chunks::<8>().0;
        let [index, term, digest, rows_bytes, high_water_bytes, reserved] =
            [0, 1, 2, 3, 4, 5].map(|at| u64::from_le_bytes(numbers[at]));
        (reserved == 0).then_some(State {
            applied: Applied {
                index,
                term,
                digest,
            },
            rows_bytes,
            high_water_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_rows_have_golden_bytes() {
        let state = State {
            applied: Applied {
                index: 1,
                term: 2,
                digest: 3,
            },
            rows_bytes: 4,
            high_water_bytes: 0x0500,
        };
        let bytes = state.encode();
        assert_eq!(
            &bytes[..],
            b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(State::decode(&bytes), Some(state));
        assert_eq!(State::decode(&bytes[1..]), None);
        assert_eq!(State::decode(&[1; STATE_BYTES]), None);
    }
}
