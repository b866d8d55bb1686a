use bytes::{BufMut, Bytes, BytesMut};

use crate::{EventKind, EventRecord};

/// Events encoded once for all watchers that get the same ones; cheap to clone.
///
/// **Shape**: the `events` fields of an `etcdserverpb.WatchResponse`, one after the other, each with its tag and length:
/// to be appended as they are to the other fields of the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    bytes: Bytes,
    count: u32,
}

/// `WatchResponse.events`, number 11, length-delimited.
const EVENTS: u8 = 11 << 3 | 2;
/// `Event.type`, number 1, varint.
const EVENT_TYPE: u8 = 1 << 3;
/// `Event.EventType.DELETE`.
const DELETE: u8 = 1;
/// `Event.kv`, number 2, length-delimited.
const EVENT_KV: u8 = 2 << 3 | 2;
/// `Event.prev_kv`, number 3, length-delimited.
const EVENT_PREV_KV: u8 = 3 << 3 | 2;
/// `KeyValue.key`, number 1, length-delimited.
const KV_KEY: u8 = 1 << 3 | 2;
/// `KeyValue.mod_revision`, number 3, varint.
const KV_MOD_REVISION: u8 = 3 << 3;
/// Most bytes of a response beside its events: header with four numbers, watch id, flags.
const RESPONSE_FIXED_BYTES_MAX: usize = 64;

impl EventBatch {
    /// Returns the encoded fields.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Returns whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Visits the events, each an encoded `mvccpb.Event`.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut rest = self.bytes.clone();
        std::iter::from_fn(move || {
            let (start, end) = next_field(&rest)?;
            let event = rest.slice(start..end);
            rest = rest.slice(end..);
            Some(event)
        })
    }

    /// Splits the batch into parts that make responses below a limit, if its own response would reach it. A part has one
    /// event at least.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/watch.go` `sendFragments`.
    pub(super) fn fragments(&self, limit_bytes: usize) -> Vec<EventBatch> {
        if self.count < 2 || !self.is_larger_than(limit_bytes) {
            return vec![self.clone()];
        }
        let most = limit_bytes.saturating_sub(RESPONSE_FIXED_BYTES_MAX + 1);
        let mut parts = Vec::new();
        let (mut start, mut at, mut count) = (0, 0, 0);
        while let Some((_, len)) = next_field(&self.bytes[at..]) {
            if count > 0 && at + len - start > most {
                parts.push(EventBatch {
                    bytes: self.bytes.slice(start..at),
                    count,
                });
                (start, count) = (at, 0);
            }
            at += len;
            count += 1;
        }
        parts.push(EventBatch {
            bytes: self.bytes.slice(start..),
            count,
        });
        parts
    }

    /// Returns whether a response with these events reaches the limit.
    pub(super) fn is_larger_than(&self, limit_bytes: usize) -> bool {
        self.bytes.len() + RESPONSE_FIXED_BYTES_MAX >= limit_bytes
    }
}

/// Collects events into a batch.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    bytes: BytesMut,
    count: u32,
}

impl BatchBuilder {
    /// Adds an event, with the encoded pair it replaced where that is wanted and known.
    pub(super) fn push(&mut self, event: &EventRecord, prev: Option<&Bytes>) {
        let kv_len = match event.kind {
            EventKind::Put => event.record.len(),
            EventKind::Delete => {
                field_len(event.key.len()) + 1 + varint_len(event.revision.main.cast_unsigned())
            }
        };
        let type_len = match event.kind {
            EventKind::Put => 0,
            EventKind::Delete => 2,
        };
        let event_len = type_len + field_len(kv_len) + prev.map_or(0, |prev| field_len(prev.len()));
        self.bytes.reserve(field_len(event_len));
        put_len(&mut self.bytes, EVENTS, event_len);
        match event.kind {
            EventKind::Put => {
                put_len(&mut self.bytes, EVENT_KV, kv_len);
                self.bytes.put_slice(&event.record);
            }
            EventKind::Delete => {
                self.bytes.put_slice(&[EVENT_TYPE, DELETE]);
                put_len(&mut self.bytes, EVENT_KV, kv_len);
                put_len(&mut self.bytes, KV_KEY, event.key.len());
                self.bytes.put_slice(&event.key);
                self.bytes.put_u8(KV_MOD_REVISION);
                put_varint(&mut self.bytes, event.revision.main.cast_unsigned());
            }
        }
        if let Some(prev) = prev {
            put_len(&mut self.bytes, EVENT_PREV_KV, prev.len());
            self.bytes.put_slice(prev);
        }
        self.count += 1;
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn finish(self) -> EventBatch {
        EventBatch {
            bytes: self.bytes.freeze(),
            count: self.count,
        }
    }
}

/// Returns where the content of the first field begins and ends.
fn next_field(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.is_empty() {
        return None;
    }
    let (mut at, mut len, mut shift) = (1, 0, 0);
    loop {
        let byte = bytes[at];
        at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Some((at, at + len));
        }
    }
}

/// Returns the length of a length-delimited field with a one-byte tag.
fn field_len(content_len: usize) -> usize {
    1 + varint_len(content_len as u64) + content_len
}

fn varint_len(number: u64) -> usize {
    // Seven bits a byte, one byte at least.
    (70 - (number | 1).leading_zeros() as usize) / 7
}

fn put_len(bytes: &mut BytesMut, tag: u8, len: usize) {
    bytes.put_u8(tag);
    put_varint(bytes, len as u64);
}

fn put_varint(bytes: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        bytes.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.put_u8((number & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_backend::Revision;
    use quorate_proto::etcdserverpb::WatchResponse;
    use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

    use super::*;

    fn put(main: i64, value_len: usize) -> EventRecord {
        let kv = KeyValue {
            key: "key".into(),
            create_revision: 2,
            mod_revision: main,
            version: 1,
            value: vec![b'v'; value_len].into(),
            lease: 7,
        };
        EventRecord {
            kind: EventKind::Put,
            key: kv.key.clone(),
            record: kv.encode_to_vec().into(),
            revision: Revision { main, sub: 0 },
            create_revision: 2,
        }
    }

    fn decode(batch: &EventBatch) -> Vec<Event> {
        WatchResponse::decode(batch.bytes().clone()).unwrap().events
    }

    #[test]
    fn a_batch_is_the_events_field_of_a_response() {
        let old = put(5, 3);
        let new = put(1 << 40, 200);
        let gone = EventRecord {
            kind: EventKind::Delete,
            record: KeyValue {
                key: "key".into(),
                ..Default::default()
            }
            .encode_to_vec()
            .into(),
            revision: Revision {
                main: 1 << 50,
                sub: 3,
            },
            create_revision: 0,
            ..new.clone()
        };
        let mut builder = BatchBuilder::default();
        builder.push(&new, Some(&old.record));
        builder.push(&gone, Some(&new.record));
        builder.push(&gone, None);
        let batch = builder.finish();
        let pair = |event: &EventRecord| KeyValue::decode(event.record.clone()).unwrap();
        let tombstone = KeyValue {
            key: "key".into(),
            mod_revision: 1 << 50,
            ..Default::default()
        };
        let want = vec![
            Event {
                r#type: EventType::Put.into(),
                kv: Some(pair(&new)),
                prev_kv: Some(pair(&old)),
            },
            Event {
                r#type: EventType::Delete.into(),
                kv: Some(tombstone.clone()),
                prev_kv: Some(pair(&new)),
            },
            Event {
                r#type: EventType::Delete.into(),
                kv: Some(tombstone),
                prev_kv: None,
            },
        ];
        assert_eq!(decode(&batch), want);
        assert_eq!(batch.len(), 3);
        let one_by_one: Vec<Event> = batch
            .iter()
            .map(|event| Event::decode(event).unwrap())
            .collect();
        assert_eq!(one_by_one, want);
    }

    #[test]
    fn fragments_hold_as_much_as_fits_and_one_event_at_least() {
        let mut builder = BatchBuilder::default();
        for (main, len) in [(2, 100), (3, 100), (4, 5000), (5, 100), (6, 100), (7, 100)] {
            builder.push(&put(main, len), None);
        }
        let batch = builder.finish();
        let revisions = |limit| -> Vec<Vec<i64>> {
            let mod_revisions = |part: &EventBatch| {
                let revisions: Vec<i64> = decode(part)
                    .iter()
                    .map(|event| event.kv.as_ref().unwrap().mod_revision)
                    .collect();
                assert_eq!(revisions.len(), part.len());
                revisions
            };
            batch.fragments(limit).iter().map(mod_revisions).collect()
        };
        assert_eq!(revisions(1 << 20), vec![vec![2, 3, 4, 5, 6, 7]]);
        assert_eq!(
            revisions(400),
            vec![vec![2, 3], vec![4], vec![5, 6], vec![7]]
        );
        assert_eq!(
            revisions(1),
            vec![vec![2], vec![3], vec![4], vec![5], vec![6], vec![7]]
        );
    }

    #[test]
    fn varint_lengths_are_those_of_protobuf() {
        for number in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            assert_eq!(
                varint_len(number),
                prost::encoding::encoded_len_varint(number)
            );
        }
    }
}
