//! The one compression that etcd's server understands.
use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Its name in headers.
pub(crate) const NAME: &str = "gzip";

/// Unpacks all members of a gzip stream, up to `max_bytes`; `None` when there is more.
///
/// # Errors
///
/// When it is no gzip stream, or is cut.
pub(crate) fn unpack(packed: &[u8], max_bytes: usize) -> io::Result<Option<Bytes>> {
    let mut plain = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    MultiGzDecoder::new(packed)
        .take(limit.saturating_add(1))
        .read_to_end(&mut plain)?;
    Ok((plain.len() <= max_bytes).then(|| plain.into()))
}

/// Packs bytes.
pub(crate) fn pack(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(plain).and_then(|()| encoder.finish());
    packed.expect("a vector takes what is written").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_in_one_member_or_many() {
        for plain in [&b""[..], b"x", &[7; 100_000]] {
            let packed = pack(plain);
            assert_eq!(unpack(&packed, plain.len()).unwrap().unwrap(), plain);
            let twice = [&packed[..], &packed].concat();
            let all = unpack(&twice, 1 << 20).unwrap().unwrap();
            assert_eq!(all, [plain, plain].concat());
        }
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit_and_garbage_is_an_error() {
        let bomb = pack(&vec![0; 50_000_000]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb, 1_000).unwrap(), None);
        assert!(unpack(b"garbage", 1_000).is_err());
        assert!(unpack(&pack(b"cut")[..15], 1_000).is_err());
    }
}
