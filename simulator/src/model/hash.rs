//! The hash of a history, as etcd makes it.
use std::collections::BTreeMap;

use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;

use super::{Change, Keys};

/// The reflected polynomial of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What eight steps make of each byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    loop {
        let mut crc = byte as u32;
        let mut step = 0;
        while step < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            step += 1;
        }
        table[byte as usize] = crc;
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

/// Hashes the history up to a revision in a store that is compacted up to `compact`.
///
/// `None` when nothing lives at that revision: then the hash depends on how far a compaction has got.
pub(super) fn hash(keys: &Keys, revision: i64, compact: i64) -> Option<u32> {
    let mut kept: BTreeMap<&[u8], &Change> = BTreeMap::new();
    for change in keys.versions().filter(|c| c.revision <= revision) {
        kept.insert(&change.key, change);
    }
    kept.retain(|_, newest| newest.pair.is_some());
    if kept.is_empty() && compact > 0 {
        return None;
    }
    let is_kept = |c: &Change| {
        let newest = kept.get(&c.key[..]);
        newest.is_some_and(|k| (k.revision, k.sub) == (c.revision, c.sub))
    };
    let mut rows: Vec<&Change> = keys
        .versions()
        .filter(|c| c.revision <= revision)
        .filter(|c| c.revision > compact || kept.is_empty() || is_kept(c))
        .filter(|c| c.pair.is_some() || c.revision != compact)
        .collect();
    rows.sort_by_key(|c| (c.revision, c.sub));
    let mut crc = Crc(u32::MAX);
    crc.feed(b"key");
    for row in rows {
        crc.feed(&row.revision.to_be_bytes());
        crc.feed(b"_");
        crc.feed(&row.sub.to_be_bytes());
        let record = match &row.pair {
            Some(pair) => pair.encode_to_vec(),
            None => {
                crc.feed(b"t");
                let key = row.key.clone();
                let pair = KeyValue {
                    key,
                    ..KeyValue::default()
                };
                pair.encode_to_vec()
            }
        };
        crc.feed(&record);
    }
    Some(!crc.0)
}

struct Crc(u32);

impl Crc {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            self.0 = (self.0 >> 8) ^ TABLE[usize::from(low ^ byte)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_castagnoli() {
        let mut crc = Crc(u32::MAX);
        crc.feed(b"123456789");
        assert_eq!(!crc.0, 0xe306_9283);
    }

    #[test]
    fn what_a_compaction_drops_is_not_hashed_and_what_it_keeps_is() {
        let mut keys = Keys::default();
        for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
            let mut write = keys.write();
            write.put(&key.into(), value.into(), 0);
            write.finish();
        }
        let whole = hash(&keys, 4, -1);
        // Revision 2 goes with a compaction at 4, and only then.
        assert_eq!(hash(&keys, 4, 1), whole);
        assert_ne!(hash(&keys, 4, 4), whole);
        assert_ne!(hash(&keys, 3, -1), whole);
        let mut write = keys.write();
        write.delete(&Span::new(&"\0".into(), &"\0".into()));
        write.finish();
        assert_eq!(hash(&keys, 5, 5), None);
        assert!(hash(&keys, 5, -1).is_some());
    }
}
