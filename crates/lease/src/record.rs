//! How a lease lies in the table `lease`.
//!
//! **Shape**: the key is the id, 8 bytes, big endian, two's complement; the value is a `leasepb.Lease`. In table order
//! negative ids come after positive ones, and everything here that orders by id orders so.
//!
//! Source: etcd v3.7.1 `server/storage/schema/lease.go`.
use bytes::Bytes;
use prost::Message as _;
use quorate_proto::LeaseId;
use quorate_proto::leasepb;

use crate::Error;

pub(crate) fn key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn encode(id: LeaseId, ttl_s: i64, remaining_s: i64) -> Bytes {
    let record = leasepb::Lease {
        id: id.0,
        ttl: ttl_s,
        remaining_ttl: remaining_s,
    };
    record.encode_to_vec().into()
}

/// Decodes a row.
///
/// # Errors
/// [`Error::Corrupt`] when it is no lease, or not the lease of its key.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<leasepb::Lease, Error> {
    let corrupt = |what| Error::Corrupt {
        key: key.to_vec(),
        what,
    };
    let id = <[u8; 8]>::try_from(key).map_err(|_| corrupt("key is not 8 bytes"))?;
    let record = leasepb::Lease::decode(value).map_err(|_| corrupt("value is not a lease"))?;
    if record.id != i64::from_be_bytes(id) {
        return Err(corrupt("value is another lease"));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_what_etcd_writes() {
        // Rows of a database of etcd 3.7.1 after two grants.
        let id = LeaseId(7_587_848_390_312_785_415);
        assert_eq!(key(id), *b"iMs\xe8\xaa\x1c\xf6\x07");
        assert_eq!(
            encode(id, 60, 0)[..],
            *b"\x08\x87\xec\xf3\xd0\x8a\xfd\xdc\xa6i\x10<"
        );
        assert_eq!(key(LeaseId(-1)), [0xff; 8]);
        assert_eq!(
            encode(LeaseId(-1), 5, 0)[..],
            *b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x05"
        );
        let value = encode(id, 60, 7);
        let record = decode(&key(id), &value).unwrap();
        assert_eq!((record.id, record.ttl, record.remaining_ttl), (id.0, 60, 7));
    }

    #[test]
    fn damaged_rows_are_corrupt() {
        let value = encode(LeaseId(1), 60, 0);
        assert!(matches!(
            decode(b"short", &value),
            Err(Error::Corrupt {
                what: "key is not 8 bytes",
                ..
            })
        ));
        assert!(matches!(
            decode(&key(LeaseId(2)), &value),
            Err(Error::Corrupt {
                what: "value is another lease",
                ..
            })
        ));
        for len in 0..value.len() {
            // A cut record either fails to decode or names another lease, unless only fields after the id are lost.
            if let Ok(record) = decode(&key(LeaseId(1)), &value[..len]) {
                assert_eq!(record.id, 1);
            }
        }
        assert!(decode(&key(LeaseId(1)), b"\xff\xff\xff").is_err());
    }
}
