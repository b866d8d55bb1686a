//! The hash that is sent and stored behind an image.

use sha2::{Digest as _, Sha256};

/// Bytes of the hash behind an image.
pub const IMAGE_HASH_BYTES: usize = 32;

/// SHA-256 over the bytes of an image, in the pieces they come in.
#[derive(Clone, Default)]
pub struct ImageHash(Sha256);

impl ImageHash {
    /// Returns the hash of these bytes.
    #[must_use]
    pub fn of(image: &[u8]) -> [u8; IMAGE_HASH_BYTES] {
        let mut hash = Self::default();
        hash.update(image);
        hash.finish()
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> [u8; IMAGE_HASH_BYTES] {
        self.0.finalize().into()
    }
}

impl std::fmt::Debug for ImageHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageHash").finish_non_exhaustive()
    }
}
