//! The bytes of a mapped file.

use std::ops::Deref;

/// The bytes of a whole file: a memory map, or a copy when the disk is simulated.
#[derive(Debug)]
pub struct Mapped(Source);

#[derive(Debug)]
enum Source {
    Map(memmap2::Mmap),
    Copy(Vec<u8>),
}

impl Mapped {
    /// Maps a real file; an empty one cannot be mapped and gives no bytes.
    pub(crate) fn map(file: &std::fs::File) -> std::io::Result<Mapped> {
        if file.metadata()?.len() == 0 {
            return Ok(Mapped::copy(Vec::new()));
        }
        Ok(Mapped(Source::Map(map_file(file)?)))
    }

    /// Holds bytes that were copied.
    pub(crate) fn copy(bytes: Vec<u8>) -> Mapped {
        Mapped(Source::Copy(bytes))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Map(map) => map,
            Source::Copy(bytes) => bytes,
        }
    }
}

#[expect(unsafe_code, reason = "mapping a file has no safe form")]
fn map_file(file: &std::fs::File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only. What is mapped are files of our own data directory, which one process at a time holds
    // locked, and `File::map` demands that the file is not cut or written while the map lives.
    unsafe { memmap2::Mmap::map(file) }
}
