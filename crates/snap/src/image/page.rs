//! Headers, meta pages and elements, to bytes and back.

/// Bytes of a page that we write. etcd takes the system's page size, which is this one on Linux on amd64.
pub(super) const PAGE_BYTES: usize = 4096;
/// Smallest and largest page, in bytes, that we read: those of all systems that etcd runs on.
pub(super) const PAGE_BYTES_READ: std::ops::RangeInclusive<u32> = 1024..=65_536;
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket's row before the page that may be in it.
pub(super) const BUCKET_BYTES: usize = 16;
/// Number of the first page behind the meta pages.
pub(super) const FIRST_PAGE: u64 = 2;
/// Stands in place of the list of free pages.
pub(super) const NO_FREE_LIST: u64 = u64::MAX;
/// The version that we write and the newest that we read.
pub(super) const VERSION: u32 = 2;
const MAGIC: u32 = 0xed0c_daed;
/// Bytes of a meta page behind its header that its checksum covers.
const META_SUMMED_BYTES: usize = 56;
/// Bytes of a meta page that have a meaning.
pub(super) const META_BYTES: usize = HEADER_BYTES + META_SUMMED_BYTES + 8;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
}

const META_KIND: u16 = 4;
/// Flag of a leaf's element that is a bucket.
pub(super) const BUCKET_FLAG: u32 = 1;

impl Kind {
    pub(super) fn number(self) -> u16 {
        match self {
            Kind::Branch => 1,
            Kind::Leaf => 2,
        }
    }

    pub(super) fn of(number: u16) -> Option<Kind> {
        match number {
            1 => Some(Kind::Branch),
            2 => Some(Kind::Leaf),
            _ => None,
        }
    }
}

/// The first bytes of a page or run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) page: u64,
    pub(super) kind: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.page.to_le_bytes());
        out.extend(self.kind.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.overflow.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            page: u64_at(bytes, 0)?,
            kind: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// A meta page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    pub(super) root: u64,
    pub(super) free_list: u64,
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

/// What the bytes of a meta page are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetaFound {
    Whole(Meta),
    /// Whole, but of another version.
    OtherVersion(u32),
    /// The magic is right, the checksum is not.
    Damaged,
    Foreign,
}

impl Meta {
    /// Writes the page's bytes up to the checksum's end.
    pub(super) fn encode(self, page: u64, out: &mut Vec<u8>) {
        let header = Header {
            page,
            kind: META_KIND,
            count: 0,
            overflow: 0,
        };
        header.encode(out);
        let start = out.len();
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend(self.page_bytes.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        for number in [self.root, 0, self.free_list, self.pages, self.transaction] {
            out.extend(number.to_le_bytes());
        }
        let sum = checksum(out.get(start..).unwrap_or_default());
        out.extend(sum.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> MetaFound {
        let Some(meta) = bytes.get(HEADER_BYTES..META_BYTES) else {
            return MetaFound::Foreign;
        };
        Meta::decode_fields(meta).unwrap_or(MetaFound::Foreign)
    }

    fn decode_fields(meta: &[u8]) -> Option<MetaFound> {
        if u32_at(meta, 0)? != MAGIC {
            return Some(MetaFound::Foreign);
        }
        if u64_at(meta, META_SUMMED_BYTES)? != checksum(meta.get(..META_SUMMED_BYTES)?) {
            return Some(MetaFound::Damaged);
        }
        let version = u32_at(meta, 4)?;
        if version != VERSION {
            return Some(MetaFound::OtherVersion(version));
        }
        Some(MetaFound::Whole(Meta {
            page_bytes: u32_at(meta, 8)?,
            root: u64_at(meta, 16)?,
            free_list: u64_at(meta, 32)?,
            pages: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
        }))
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_pages_have_these_bytes() {
        let meta = Meta {
            page_bytes: 4096,
            root: 3,
            free_list: NO_FREE_LIST,
            pages: 4,
            transaction: 1,
        };
        let mut bytes = Vec::new();
        meta.encode(1, &mut bytes);
        assert_eq!(bytes.len(), META_BYTES);
        let head =
            b"\x01\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\xed\xda\x0c\xed\x02\0\0\0\0\x10\0\0\0\0\0\0";
        assert!(bytes.starts_with(head));
        assert_eq!(Meta::decode(&bytes), MetaFound::Whole(meta));
        for at in 20..META_BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Meta::decode(&bad), MetaFound::Damaged, "{at}");
        }
        assert_eq!(Meta::decode(&bytes[..70]), MetaFound::Foreign);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
