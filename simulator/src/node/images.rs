//! Images of snapshots, and states in their place: made where they are sent, stored and aligned where they are received.
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_core::{ImageError, ImageHash, ImageStream, SnapshotSource, StateStream};
use quorate_disk::{Disk as _, OpenMode};
use quorate_proto::raftpb::Message;

use super::Machine;
use super::start::UNFINISHED_IMAGE;

/// An image on its way, or a state.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Bytes,
    /// Whether it is a state.
    pub(crate) is_state: bool,
    pub(crate) end: End,
}

/// How what is on its way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it was sent.
    Whole,
    /// Before its end.
    Cut,
    /// With a checksum that is wrong.
    Wrong,
}

/// Reads the whole image of the state of a snapshot, or that state itself.
///
/// # Errors
/// Why not, and whether that ends the member, as the server's sender of images says it.
pub(crate) fn make(source: SnapshotSource, is_state: bool) -> Result<Image, (String, bool)> {
    let bytes = if is_state {
        read(StateStream::new(source.state))?
    } else {
        read(ImageStream::open_for_member(source.state).map_err(|e| why(&e))?)?
    };
    Ok(Image {
        bytes,
        is_state,
        end: End::Whole,
    })
}

fn read(mut stream: impl Read) -> Result<Bytes, (String, bool)> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    read.map_err(|e| ImageError::in_read(&e).map_or_else(|| (e.to_string(), false), why))?;
    Ok(bytes.into())
}

fn why(e: &ImageError) -> (String, bool) {
    (e.to_string(), e.is_of_database())
}

/// Bytes that the transport appends at once.
const PIECE_BYTES: usize = 64 << 10;

impl Machine {
    /// Stores a received image, as the transport's directory of images does; returns where it is.
    ///
    /// # Errors
    /// What the disk says; nothing is kept then.
    pub(crate) fn store_image(&mut self, index: u64, image: &[u8]) -> io::Result<PathBuf> {
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
            file.write_all_at(&ImageHash::of(image), offset)?;
            file.sync_all()?;
            if self.disk.exists(&kept)? {
                return Ok(());
            }
            self.disk.rename(&unfinished, &kept)?;
            self.disk.sync_dir(&Self::snap_dir())
        })();
        // It is gone already if the image was kept.
        let _ = self.disk.remove_file(&unfinished);
        written.map(|()| kept)
    }

    /// Brings a received snapshot in line with what came with it, as the server's installer does.
    ///
    /// # Errors
    /// Why it is refused; what came with it is removed then.
    pub(crate) fn align_image(&mut self, message: &mut Message, path: &Path) -> Result<(), String> {
        let running = self.running.as_mut().ok_or("it does not run")?;
        let aligned = running.place.align(message, path);
        if aligned.is_err() {
            running.arrivals.forget_passed(path);
            let _ = self.disk.remove_file(path);
        }
        aligned
    }

    /// Removes what was received for a snapshot that nobody needs.
    pub(crate) fn forget_image(&mut self, index: u64) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        drop(running.arrivals.take_passed(index));
        // What stays is removed at the next start.
        let _ = running.place.remove(index);
    }
}
