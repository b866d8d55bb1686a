//! Follows the frames of an HTTP/2 connection by their headers, without holding their payloads.

/// How long a frame's header is.
pub(crate) const FRAME_HEADER_BYTES: usize = 9;

/// The frame kinds that anything here looks at.
///
/// Source: RFC 9113 section 6.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
}

/// The flag of a PING or SETTINGS frame that answers another.
pub(crate) const FLAG_ACK: u8 = 1;

/// A frame's header.
///
/// **Shape**: bytes 0 to 2 the payload's length, 3 the kind, 4 the flags, 5 to 8 the stream id without its top bit; big
/// endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream_id: u32,
}

impl FrameHeader {
    fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            len: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream_id: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    pub(crate) fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let [_, l0, l1, l2] = self.len.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream_id.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }
}

/// Sees the bytes of one direction go by and calls out each frame's header.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    /// Bytes to pass over: what is left of a payload, or of the client's preface.
    skip: usize,
}

impl FrameScanner {
    /// Starts before `skip` bytes that are no frames.
    pub(crate) fn new(skip: usize) -> Self {
        Self {
            header: [0; FRAME_HEADER_BYTES],
            header_len: 0,
            skip,
        }
    }

    /// Says whether a whole number of frames went by.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.header_len == 0 && self.skip == 0
    }

    /// Sees `bytes` go by; stops early when `on_frame` gives an error.
    pub(crate) fn scan<E>(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(FrameHeader) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            if bytes.is_empty() {
                return Ok(());
            }
            let take = bytes.len().min(FRAME_HEADER_BYTES - self.header_len);
            self.header[self.header_len..self.header_len + take].copy_from_slice(&bytes[..take]);
            self.header_len += take;
            bytes = &bytes[take..];
            if self.header_len == FRAME_HEADER_BYTES {
                let header = FrameHeader::decode(self.header);
                self.header_len = 0;
                self.skip = usize::try_from(header.len).unwrap_or(usize::MAX);
                on_frame(header)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(kind: u8, stream_id: u32, payload: usize) -> Vec<u8> {
        let len = u32::try_from(payload).unwrap();
        let mut bytes = FrameHeader {
            len,
            kind,
            flags: 0,
            stream_id,
        }
        .encode()
        .to_vec();
        bytes.extend(vec![0xaa; payload]);
        bytes
    }

    #[test]
    fn frames_are_seen_however_the_bytes_are_cut() {
        let mut bytes = vec![b'p'; 24];
        for (kind, stream, len) in [
            (kind::SETTINGS, 0, 12),
            (kind::HEADERS, 1, 70),
            (kind::PING, 0, 8),
            (9, 3, 0),
        ] {
            bytes.extend(frame(kind, stream, len));
        }
        for chunk in 1..bytes.len() {
            let mut scanner = FrameScanner::new(24);
            let mut seen = Vec::new();
            for part in bytes.chunks(chunk) {
                let result: Result<(), Infallible> = scanner.scan(part, |h| {
                    seen.push((h.kind, h.stream_id, h.len));
                    Ok(())
                });
                result.unwrap();
            }
            assert_eq!(
                seen,
                [(4, 0, 12), (1, 1, 70), (6, 0, 8), (9, 3, 0)],
                "chunk {chunk}"
            );
            assert!(scanner.is_at_boundary());
        }
    }

    #[test]
    fn cut_frame_is_not_at_a_boundary() {
        let mut scanner = FrameScanner::new(0);
        let none = |_| Ok::<(), Infallible>(());
        assert!(scanner.is_at_boundary());
        scanner.scan(&frame(0, 1, 5)[..4], none).unwrap();
        assert!(!scanner.is_at_boundary());
        scanner.scan(&frame(0, 1, 5)[4..10], none).unwrap();
        assert!(!scanner.is_at_boundary());
        scanner.scan(&frame(0, 1, 5)[10..], none).unwrap();
        assert!(scanner.is_at_boundary());
    }
}
