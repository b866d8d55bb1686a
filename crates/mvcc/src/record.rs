use std::ops::Range;

use bytes::Bytes;
use quorate_backend::Revision;

use crate::Error;

/// The fields of one stored record, an encoded `mvccpb.KeyValue`; key and value are places in the bytes.
///
/// **Shape**: Protobuf fields in number order, those with default values left out: key (1, bytes), create revision
/// (2, varint), mod revision (3, varint), version (4, varint), value (5, bytes), lease (6, varint, two's complement in
/// 64 bits). A tombstone has only the key. Hashes are over these bytes, so they must equal etcd's.
///
/// Source: etcd v3.7.1 `api/mvccpb/kv.proto` `KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Range<usize>,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) value: Range<usize>,
    pub(crate) lease: i64,
}

/// The numbers of a key at a revision, as the index knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyVersion {
    pub(crate) revision: Revision,
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
}

const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

impl Record {
    /// Reads the bytes of a record. Unknown fields are skipped, of repeated ones the last counts.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Record> {
        let mut record = Record::default();
        let mut at = 0;
        while at < bytes.len() {
            let tag = varint(bytes, &mut at)?;
            let field = u32::try_from(tag >> 3).ok()?;
            match tag & 7 {
                WIRE_VARINT => {
                    let number = varint(bytes, &mut at)?.cast_signed();
                    match field {
                        CREATE_REVISION => record.create_revision = number,
                        MOD_REVISION => record.mod_revision = number,
                        VERSION => record.version = number,
                        LEASE => record.lease = number,
                        _ => {}
                    }
                }
                WIRE_BYTES => {
                    let len = usize::try_from(varint(bytes, &mut at)?).ok()?;
                    let end = at.checked_add(len).filter(|end| *end <= bytes.len())?;
                    match field {
                        KEY => record.key = at..end,
                        VALUE => record.value = at..end,
                        _ => {}
                    }
                    at = end;
                }
                WIRE_FIXED64 => at = at.checked_add(8).filter(|end| *end <= bytes.len())?,
                WIRE_FIXED32 => at = at.checked_add(4).filter(|end| *end <= bytes.len())?,
                _ => return None,
            }
        }
        Some(record)
    }

    /// Reads the bytes of the record stored at a revision.
    pub(crate) fn parse_stored(bytes: &[u8], revision: Revision) -> Result<Record, Error> {
        Record::parse(bytes).ok_or(Error::Corrupt {
            main: revision.main,
            sub: revision.sub,
            expected: "an encoded key-value",
        })
    }
}

/// Encodes what a put stores.
pub(crate) fn encode_put(key: &[u8], version: &KeyVersion, value: &[u8], lease: i64) -> Bytes {
    let mut out = Vec::with_capacity(
        bytes_len(key)
            + number_len(version.create_revision)
            + number_len(version.revision.main)
            + number_len(version.version)
            + bytes_len(value)
            + number_len(lease),
    );
    put_bytes(&mut out, KEY, key);
    put_number(&mut out, CREATE_REVISION, version.create_revision);
    put_number(&mut out, MOD_REVISION, version.revision.main);
    put_number(&mut out, VERSION, version.version);
    put_bytes(&mut out, VALUE, value);
    put_number(&mut out, LEASE, lease);
    out.into()
}

/// Encodes what a deletion stores.
pub(crate) fn encode_tombstone(key: (&[u8], &[u8])) -> Bytes {
    let mut out = Vec::with_capacity(key_parts_len(key));
    put_key_parts(&mut out, key);
    out.into()
}

/// Appends an encoded record without its value, from the parts of its key.
pub(crate) fn put_keys_only(
    out: &mut Vec<u8>,
    key: (&[u8], &[u8]),
    version: &KeyVersion,
    lease: i64,
) {
    put_key_parts(out, key);
    put_number(out, CREATE_REVISION, version.create_revision);
    put_number(out, MOD_REVISION, version.revision.main);
    put_number(out, VERSION, version.version);
    put_number(out, LEASE, lease);
}

/// Returns where the key lies in a record made by [`encode_put`] or [`encode_tombstone`].
pub(crate) fn key_place(key_len: usize) -> Range<usize> {
    if key_len == 0 {
        return 0..0;
    }
    let start = 1 + varint_len(key_len as u64);
    start..start + key_len
}

/// Returns how many bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        0
    } else {
        1 + varint_len(bytes.len() as u64) + bytes.len()
    }
}

fn key_parts_len((prefix, rest): (&[u8], &[u8])) -> usize {
    match prefix.len() + rest.len() {
        0 => 0,
        len => 1 + varint_len(len as u64) + len,
    }
}

fn put_key_parts(out: &mut Vec<u8>, (prefix, rest): (&[u8], &[u8])) {
    let len = prefix.len() + rest.len();
    if len > 0 {
        put_varint(out, u64::from(KEY) << 3 | WIRE_BYTES);
        put_varint(out, len as u64);
        out.extend_from_slice(prefix);
        out.extend_from_slice(rest);
    }
}

fn number_len(value: i64) -> usize {
    if value == 0 {
        0
    } else {
        1 + varint_len(value.cast_unsigned())
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_varint(out, u64::from(field) << 3 | WIRE_BYTES);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3 | WIRE_VARINT);
        put_varint(out, value.cast_unsigned());
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        // The tenth byte has room for one bit; etcd's decoder refuses more.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn version(main: i64, create_revision: i64, version: i64) -> KeyVersion {
        KeyVersion {
            revision: Revision { main, sub: 0 },
            create_revision,
            version,
        }
    }

    proptest! {
        #[test]
        fn a_record_is_the_same_bytes_as_the_protobuf_message(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            numbers in any::<(i64, i64, i64, i64)>(),
            small in any::<bool>(),
        ) {
            let (create, main, count, lease) = if small {
                (numbers.0 & 1, numbers.1 & 0xff, numbers.2 & 1, numbers.3 & 1)
            } else {
                numbers
            };
            let message = KeyValue {
                key: key.clone().into(),
                create_revision: create,
                mod_revision: main,
                version: count,
                value: value.clone().into(),
                lease,
            };
            let bytes = encode_put(&key, &version(main, create, count), &value, lease);
            prop_assert_eq!(&bytes[..], &message.encode_to_vec()[..]);
            let record = Record::parse(&bytes).unwrap();
            prop_assert_eq!(&bytes[record.key.clone()], &key[..]);
            prop_assert_eq!(&bytes[record.value.clone()], &value[..]);
            prop_assert_eq!(
                (record.create_revision, record.mod_revision, record.version, record.lease),
                (create, main, count, lease)
            );
            prop_assert_eq!(&bytes[key_place(key.len())], &key[..]);

            let split = key.len() / 3;
            let mut keys_only = Vec::new();
            put_keys_only(&mut keys_only, key.split_at(split), &version(main, create, count), lease);
            let message = KeyValue { value: Bytes::new(), ..message };
            prop_assert_eq!(&keys_only[..], &message.encode_to_vec()[..]);
            let message = KeyValue { key: key.clone().into(), ..Default::default() };
            prop_assert_eq!(&encode_tombstone(key.split_at(split))[..], &message.encode_to_vec()[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_agree_with_protobuf(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            // The message's decoder also skips groups, which no writer of records makes.
            if let (Some(ours), Ok(theirs)) = (Record::parse(&bytes), KeyValue::decode(&bytes[..])) {
                prop_assert_eq!(&bytes[ours.key.clone()], &theirs.key[..]);
                prop_assert_eq!(&bytes[ours.value.clone()], &theirs.value[..]);
                prop_assert_eq!(ours.lease, theirs.lease);
            }
        }
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut bytes = encode_put(b"k", &version(5, 3, 2), b"v", 0).to_vec();
        bytes.extend_from_slice(&[
            0x78, 0x01, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7a, 2, 9, 9,
        ]);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.mod_revision, record.version), (5, 2));
        assert_eq!(Record::parse(&bytes[..bytes.len() - 1]), None);
    }
}
