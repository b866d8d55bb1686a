//! Images of snapshots: made where they are sent, stored and aligned where they are received.
use std::io::{self, Read as _};

use bytes::Bytes;
use quorate_core::{ImageError, ImageStream, SnapshotSource, align_snapshot};
use quorate_disk::{Disk as _, OpenMode};
use quorate_proto::raftpb::Message;
use quorate_server::bootstrap::image_position;

use super::Machine;
use super::start::UNFINISHED_IMAGE;

/// An image on its way.
pub(crate) type Image = Bytes;

/// Reads the whole image that a state stands for.
///
/// # Errors
/// Why not, and whether that ends the member, as the server's sender of images says it.
pub(crate) fn make(source: SnapshotSource) -> Result<Image, (String, bool)> {
    let why = |e: &ImageError| (e.to_string(), e.is_of_database());
    let mut bytes = Vec::new();
    let mut stream = ImageStream::open_for_member(source.state).map_err(|e| why(&e))?;
    let read = stream.read_to_end(&mut bytes);
    read.map_err(|e| ImageError::in_read(&e).map_or_else(|| (e.to_string(), false), why))?;
    Ok(bytes.into())
}

/// Bytes that the transport appends at once.
const PIECE_BYTES: usize = 64 << 10;

impl Machine {
    /// Stores a received image, as the transport's directory of images does.
    ///
    /// # Errors
    /// What the disk says; nothing is kept then.
    pub(crate) fn store_image(&mut self, index: u64, image: &[u8]) -> io::Result<()> {
        let kept = Self::image_path(index);
        self.images += 1;
        let name = format!("{}{UNFINISHED_IMAGE}", self.images);
        let unfinished = Self::snap_dir().join(name);
        let file = self.disk.open(&unfinished, OpenMode::Create)?;
        let written = (|| {
            let mut offset = 0;
            for piece in image.chunks(PIECE_BYTES) {
                file.write_all_at(piece, offset)?;
                offset += piece.len() as u64;
            }
            file.sync_all()?;
            if self.disk.exists(&kept)? {
                return Ok(());
            }
            self.disk.rename(&unfinished, &kept)?;
            self.disk.sync_dir(&Self::snap_dir())
        })();
        // It is gone already if the image was kept.
        let _ = self.disk.remove_file(&unfinished);
        written
    }

    /// Brings a received snapshot in line with its image, as the server's installer does.
    ///
    /// # Errors
    /// Why it is refused; the image is removed then.
    pub(crate) fn align_image(&self, message: &mut Message) -> Result<(), String> {
        let said = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
        let path = Self::image_path(said.and_then(|m| m.index).unwrap_or(0));
        let aligned = (|| {
            let facts = image_position(&self.disk, &path)?;
            if !align_snapshot(message, facts.index, facts.term, facts.conf_state) {
                return Err("its image is older than the message says".to_owned());
            }
            let aligned = Self::image_path(facts.index);
            if aligned != path {
                let io = |e: io::Error| e.to_string();
                self.disk.rename(&path, &aligned).map_err(io)?;
                self.disk.sync_dir(&Self::snap_dir()).map_err(io)?;
            }
            Ok(())
        })();
        if aligned.is_err() {
            let _ = self.disk.remove_file(&path);
        }
        aligned
    }

    /// Removes the image of a snapshot that nobody needs.
    pub(crate) fn forget_image(&self, index: u64) {
        // What stays is removed at the next start.
        let _ = self.disk.remove_file(&Self::image_path(index));
    }
}
