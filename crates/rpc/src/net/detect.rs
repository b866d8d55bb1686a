//! Tells HTTP/2 from HTTP/1.x by the first bytes of a connection.
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client of the HTTP/2 kind says first.
///
/// Source: RFC 9113 section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes decide: no HTTP/1.x request begins like this.
const DECIDING_BYTES: usize = b"PRI * HTTP/2".len();

/// The first read asks for this much, so that a small first request comes with it.
const FIRST_READ_BYTES: usize = 4096;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
    /// Anything else is left to the HTTP/1.1 parser, which refuses what is none.
    Http1,
}

/// Decides by the first bytes, or `None` when more are needed.
pub(crate) fn judge(first: &[u8]) -> Option<Protocol> {
    let known = first.len().min(DECIDING_BYTES);
    if first[..known] != PREFACE[..known] {
        return Some(Protocol::Http1);
    }
    (known == DECIDING_BYTES).then_some(Protocol::Http2)
}

/// Reads until the protocol is known; gives it and what was read. `None` when the other side hung up before.
///
/// # Cancel safety
///
/// Not cancel safe: what was read is lost with it. The connection is dropped in that case.
pub(crate) async fn detect<T: AsyncRead + Unpin>(
    io: &mut T,
) -> io::Result<Option<(Protocol, BytesMut)>> {
    let mut first = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if io.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
        if let Some(protocol) = judge(&first) {
            return Ok(Some((protocol, first)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preface_is_http2_and_everything_else_http1() {
        assert_eq!(judge(PREFACE), Some(Protocol::Http2));
        assert_eq!(judge(b"PRI * HTTP/2"), Some(Protocol::Http2));
        assert_eq!(judge(b"PRI * HTTP/"), None);
        assert_eq!(judge(b""), None);
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"P ",
            b"POST",
            b"PRI * HTTP/1",
            b"\x16\x03\x01",
            b"\0",
        ] {
            assert_eq!(judge(other), Some(Protocol::Http1), "{other:?}");
        }
    }

    #[test]
    fn judgement_never_changes_with_more_bytes() {
        for text in [
            PREFACE,
            b"GET /health HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/1.1 nonsense",
        ] {
            let verdict = judge(text);
            for cut in 0..=text.len() {
                assert!(judge(&text[..cut]).is_none_or(|v| Some(v) == verdict));
            }
        }
    }
}
