use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;

use crate::range::{Counting, RangeResult};
use crate::record::{Record, varint_len};
use crate::view::ReadLimit;
use crate::{Error, Reader, Revision};

/// How a range is streamed.
#[derive(Clone, Copy, Debug)]
pub struct RangeStreamOptions {
    /// The size that chunks are steered to, in bytes: the largest request.
    pub chunk_bytes: usize,
}

impl Default for RangeStreamOptions {
    fn default() -> Self {
        RangeStreamOptions {
            chunk_bytes: 3 << 19,
        }
    }
}

/// A range read piece by piece, in key order, at one revision. Between pieces it holds nothing: no lock, no pin.
#[derive(Debug)]
pub struct RangeStream {
    reader: Reader,
    /// What the next piece asks for.
    request: RangeRequest,
    options: RangeStreamOptions,
    /// Keys that the request allows in all.
    total_max: i64,
    /// Keys given out so far.
    count: i64,
    /// The store's revision at the first piece; 0 before it.
    revision: i64,
    ended: bool,
}

/// A piece of a streamed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeChunk {
    /// Encoded `mvccpb.KeyValue` messages.
    pub kvs: Vec<Bytes>,
    /// What only the last piece says.
    pub end: Option<RangeEnd>,
}

/// The end of a streamed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// The store's revision when the stream began.
    pub revision: i64,
    /// Whether the limit left keys out.
    pub more: bool,
    /// How many keys the range has, those left out included.
    pub count: i64,
}

/// Most keys in the first piece.
///
/// Source: etcd v3.7.1 `server/etcdserver/v3_server.go` `initialStreamChunkLimit`.
const FIRST_CHUNK_KEYS: i64 = 10;

impl RangeStream {
    /// Begins a stream. A limit below 0 is none.
    ///
    /// The order is that of keys, unless the whole range fits the first piece, which a sort target then sorts, as in etcd.
    /// Differs from etcd: there a longer range with a target is sorted piece by piece, and keys are lost between pieces.
    pub(crate) fn open(
        reader: Reader,
        request: &RangeRequest,
        options: RangeStreamOptions,
    ) -> Result<RangeStream, Error> {
        let total_max = if request.limit > 0 {
            request.limit
        } else {
            i64::MAX
        };
        let mut request = request.clone();
        request.limit = FIRST_CHUNK_KEYS.min(total_max);
        // Ascending order by key is that of the store.
        request.sort_order = 0;
        // What cannot be read at all fails at once.
        crate::range::resolve_revision(
            request.revision,
            reader.current_revision(),
            reader.compact_revision(),
        )?;
        Ok(RangeStream {
            reader,
            request,
            options,
            total_max,
            count: 0,
            revision: 0,
            ended: false,
        })
    }

    /// Says whether the last piece was given out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns the next piece, `None` after the last.
    ///
    /// # Errors
    /// [`Error::Compacted`] when a compaction above the stream's revision came between two pieces.
    pub fn next_chunk(&mut self) -> Result<Option<RangeChunk>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut result = self.read()?;
        if result.more && self.request.sort_target != 0 && self.request.limit < self.total_max {
            self.request.sort_target = 0;
            if self.request.revision <= 0 {
                self.request.revision = result.revision;
            }
            result = self.read()?;
        }
        if self.revision == 0 {
            self.revision = result.revision;
            if self.request.revision <= 0 {
                self.request.revision = result.revision;
            }
        }
        if self.request.count_only {
            self.ended = true;
            let end = RangeEnd {
                revision: self.revision,
                more: false,
                count: result.count,
            };
            return Ok(Some(RangeChunk {
                kvs: Vec::new(),
                end: Some(end),
            }));
        }
        self.count += crate::range::signed(result.kvs.len());
        let bytes = response_bytes(&result);
        let next_key = if result.more {
            Some(key_after(&result)?)
        } else {
            None
        };
        let done = next_key.is_none() || self.count == self.total_max;
        let mut end = None;
        if done {
            self.ended = true;
            let count = match &next_key {
                None => self.count,
                // Sorted by something else, the last key is not the greatest; this is the first piece.
                Some(_) if self.request.sort_target != 0 => self.count_from(&self.request.key)?,
                Some(next_key) => self.count + self.count_from(next_key)?,
            };
            end = Some(RangeEnd {
                revision: self.revision,
                more: result.more,
                count,
            });
        } else if let Some(next_key) = next_key {
            self.request.key = next_key;
            let limit = next_limit(self.request.limit, bytes, self.options.chunk_bytes);
            self.request.limit = limit.min(self.total_max - self.count);
        }
        Ok(Some(RangeChunk {
            kvs: result.kvs,
            end,
        }))
    }

    /// Reads the next piece; with half the keys again and again while it would be far larger than pieces are to be.
    /// A first piece that is to be sorted stays whole.
    ///
    /// Differs from etcd: there a piece has as many keys as the sizes of those before it suggest, however large they are.
    fn read(&mut self) -> Result<RangeResult, Error> {
        let bytes_max = self.options.chunk_bytes.saturating_mul(2);
        loop {
            let limit = if self.request.limit > 1 && self.request.sort_target == 0 {
                ReadLimit {
                    keys_max: usize::MAX,
                    bytes_max,
                }
            } else {
                ReadLimit::NONE
            };
            match self
                .reader
                .range_counting(&self.request, Counting::Fetched, limit)
            {
                Err(Error::TooLarge) => self.request.limit /= 2,
                other => return other,
            }
        }
    }

    fn count_from(&self, key: &Bytes) -> Result<i64, Error> {
        let request = RangeRequest {
            key: key.clone(),
            range_end: self.request.range_end.clone(),
            revision: self.request.revision,
            count_only: true,
            ..RangeRequest::default()
        };
        Ok(self.reader.range(&request)?.count)
    }
}

/// Returns the key right after the last one of a result.
fn key_after(result: &RangeResult) -> Result<Bytes, Error> {
    let last = result.kvs.last().expect("a result with more keys has some");
    let record = Record::parse_stored(
        last,
        Revision {
            main: result.revision,
            sub: 0,
        },
    )?;
    let mut key = last[record.key].to_vec();
    key.push(0);
    Ok(key.into())
}

/// Returns how many keys the next piece may have.
///
/// Source: etcd v3.7.1 `server/etcdserver/v3_server.go` `adjustChunkLimit`.
fn next_limit(limit: i64, bytes: usize, target_bytes: usize) -> i64 {
    let limit = if bytes < target_bytes / 2 {
        limit.saturating_mul(2)
    } else if bytes > target_bytes * 2 {
        limit / 2
    } else {
        limit
    };
    limit.max(1)
}

/// Returns the size of the message that etcd would send for a result, which is what it steers by.
fn response_bytes(result: &RangeResult) -> usize {
    let number = |value: i64| {
        if value == 0 {
            0
        } else {
            1 + varint_len(value.cast_unsigned())
        }
    };
    let header = number(result.revision);
    let kvs: usize = result
        .kvs
        .iter()
        .map(|kv| 1 + varint_len(kv.len() as u64) + kv.len())
        .sum();
    1 + varint_len(header as u64)
        + header
        + kvs
        + number(i64::from(result.more))
        + number(result.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_while_small_and_shrink_while_large() {
        assert_eq!(next_limit(10, 0, 1000), 20);
        assert_eq!(next_limit(10, 500, 1000), 10);
        assert_eq!(next_limit(10, 2000, 1000), 10);
        assert_eq!(next_limit(10, 2001, 1000), 5);
        assert_eq!(next_limit(1, 2001, 1000), 1);
        assert_eq!(next_limit(i64::MAX, 0, 1000), i64::MAX);
    }
}
