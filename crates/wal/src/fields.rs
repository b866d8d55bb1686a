//! Little-endian fields of fixed layouts.

/// Reads fields one after the other.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Says whether all bytes are zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    // Whole words first: the tail of a segment is megabytes of zeros.
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

/// Returns the position behind the last byte that is not zero.
pub(crate) fn used_len(bytes: &[u8]) -> usize {
    let (rest, words) = bytes.as_rchunks::<64>();
    let zeros = words.iter().rev().take_while(|word| **word == [0; 64]);
    let mut len = rest.len() + (words.len() - zeros.count()) * 64;
    while let Some((last, _)) = bytes.get(..len).and_then(<[u8]>::split_last) {
        if *last != 0 {
            break;
        }
        len -= 1;
    }
    len
}

/// Returns a length in memory as a length in a file.
pub(crate) fn file_len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Returns a position in a file as one in memory; what memory cannot hold lies behind every slice.
pub(crate) fn memory_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
