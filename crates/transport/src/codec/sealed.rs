//! Batches with checksums, for streams between members that both know them.
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Chunks, MESSAGE_BYTES_MAX};
use crate::Error;

/// Bytes in front of a batch.
const HEAD_BYTES: usize = 16;

/// Longest batch: one of the usual length and a longest message behind it.
const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (4 << 20);

/// Puts a batch behind its checksums.
///
/// **Shape**: big-endian.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | bytes of the batch |
/// | 8 | 4 | crc32 (IEEE) of the field before |
/// | 12 | 4 | crc32 (IEEE) of the batch |
/// | 16 | batch | what an etcd member would be sent |
///
/// Differs from etcd: its streams have no checksums, so a byte that changes, or is lost, in the middle of a value can be
/// applied. The length has a checksum of its own, so that a stream out of step is noticed at once.
pub(crate) fn seal(batch: Chunks) -> Chunks {
    let mut hasher = crc32fast::Hasher::new();
    batch.parts().for_each(|part| hasher.update(part));
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u64(batch.remaining() as u64);
    head.put_u32(crc32fast::hash(&head));
    head.put_u32(hasher.finalize());
    let mut sealed = Chunks::from(head.freeze());
    sealed.append(batch);
    sealed
}

/// Takes the bytes of a sealed stream in and gives batches out, each only when its checksum is right.
#[derive(Debug, Default)]
pub(crate) struct Unsealer {
    buffer: BytesMut,
    /// Length and checksum of the batch that is coming.
    head: Option<(usize, u32)>,
}

impl Unsealer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Tells whether the stream could end here.
    pub(crate) fn is_between_batches(&self) -> bool {
        self.head.is_none() && self.buffer.is_empty()
    }

    /// Returns the next batch, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] and [`Error::TooLarge`]; the stream is of no use then.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let (bytes, checksum) = match self.head {
            Some(head) => head,
            None if self.buffer.len() < HEAD_BYTES => return Ok(None),
            None => self.head()?,
        };
        if self.buffer.len() < bytes {
            self.head = Some((bytes, checksum));
            return Ok(None);
        }
        self.head = None;
        let batch = self.buffer.split_to(bytes).freeze();
        if crc32fast::hash(&batch) != checksum {
            return Err(Error::Malformed("checksum of a batch"));
        }
        Ok(Some(batch))
    }

    fn head(&mut self) -> Result<(usize, u32), Error> {
        let length_checksum = crc32fast::hash(&self.buffer[..8]);
        let bytes = self.buffer.get_u64();
        if self.buffer.get_u32() != length_checksum {
            return Err(Error::Malformed("checksum of a batch's length"));
        }
        let checksum = self.buffer.get_u32();
        match usize::try_from(bytes) {
            Ok(fits) if fits <= BATCH_BYTES_MAX => Ok((fits, checksum)),
            _ => Err(Error::TooLarge {
                bytes,
                limit: BATCH_BYTES_MAX as u64,
            }),
        }
    }
}
