//! The image of a received snapshot in the place of the database.
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_backend::{Applied, Backend, CONSISTENT_INDEX_KEY, TERM_KEY, Table};
use quorate_disk::Disk;
use quorate_snap::{ImageReader, Seal};

use super::error::at;
use super::import::import_image_by;
use super::{BACKEND_FILE, Carrier, ImageError, Import, InTurn, received_file};
use crate::{DIGEST_KEY, digest_of_row};

/// Name of the new database until it is whole.
const UNFINISHED_FILE: &str = "quorate.db.install";

/// Returns the name of a received image in `member/snap`. Source: etcd v3.7.1 snapshotter DBFilePath.
pub fn image_file(index: u64) -> String {
    format!("{index:016x}.snap.db")
}

/// Makes a database of a received image, puts it in the place of the one that is there, and opens it. The image has been
/// stored with its hash ([`ImageHash`](crate::ImageHash)) behind it: nothing else would notice a wrong bit in it.
///
/// The one that was there may be open; it stays usable through its handles.
///
/// # Errors
/// What is wrong with the image, or why the database cannot be written; the one that was there is still there then,
/// except when only opening the new one failed.
///
/// # Durability
/// A crash leaves the old database or the new one, whole, and the image as long as the old one is there. The image is
/// gone when it returns.
pub fn install_image(
    disk: &Arc<dyn Disk>,
    snap_dir: &Path,
    index: u64,
    options: quorate_backend::Options,
) -> Result<Backend, ImageError> {
    install_image_by(disk, snap_dir, index, options, &mut InTurn)
}

/// As [`install_image`], by a carrier that may use more threads than this one, and sees all rows on their way.
///
/// # Errors
/// As [`install_image`].
pub fn install_image_by(
    disk: &Arc<dyn Disk>,
    snap_dir: &Path,
    index: u64,
    options: quorate_backend::Options,
    carrier: &mut dyn Carrier,
) -> Result<Backend, ImageError> {
    let image_path = snap_dir.join(image_file(index));
    let unfinished = snap_dir.join(UNFINISHED_FILE);
    let finished = snap_dir.join(BACKEND_FILE);
    if disk.exists(&unfinished).map_err(at(&unfinished))? {
        disk.remove_file(&unfinished).map_err(at(&unfinished))?;
    }
    let image = ImageReader::open(&**disk, &image_path).map_err(ImageError::Image)?;
    if image.check_seal().map_err(ImageError::Image)? != Seal::Whole {
        return Err(ImageError::BrokenSeal(image_path));
    }
    let applied = position(&image)?;
    if applied.index < index {
        return Err(ImageError::Row {
            bucket: Table::Meta.name().to_owned(),
            what: "older than its snapshot",
        });
    }
    let backend = Backend::open(disk.clone(), &unfinished, options).map_err(ImageError::Backend)?;
    let import = Import {
        applied: Some(applied),
        ..Import::default()
    };
    import_image_by(&image, &backend, import, carrier)?;
    drop(backend);
    disk.rename(&unfinished, &finished).map_err(at(&finished))?;
    disk.sync_dir(snap_dir).map_err(at(snap_dir))?;
    disk.remove_file(&image_path).map_err(at(&image_path))?;
    Backend::open(disk.clone(), &finished, options).map_err(ImageError::Backend)
}

/// Puts the database that was made of a state while it arrived in the place of the one that is there, and opens it; `None` when
/// there is none for that index, but perhaps an image.
///
/// # Errors
/// As [`install_image`].
///
/// # Durability
/// A crash leaves the old database and the received one, or the latter in the former's place.
pub fn install_received(
    disk: &Arc<dyn Disk>,
    snap_dir: &Path,
    index: u64,
    options: quorate_backend::Options,
) -> Result<Option<Backend>, ImageError> {
    let received = snap_dir.join(received_file(index));
    let finished = snap_dir.join(BACKEND_FILE);
    if !disk.exists(&received).map_err(at(&received))? {
        return Ok(None);
    }
    let backend = Backend::open(disk.clone(), &received, options).map_err(ImageError::Backend)?;
    if backend.durable().index < index {
        return Err(ImageError::Row {
            bucket: Table::Meta.name().to_owned(),
            what: "older than its snapshot",
        });
    }
    drop(backend);
    disk.rename(&received, &finished).map_err(at(&finished))?;
    disk.sync_dir(snap_dir).map_err(at(snap_dir))?;
    let image = snap_dir.join(image_file(index));
    if disk.exists(&image).map_err(at(&image))? {
        disk.remove_file(&image).map_err(at(&image))?;
    }
    let backend = Backend::open(disk.clone(), &finished, options).map_err(ImageError::Backend)?;
    Ok(Some(backend))
}

/// Reads where the image is, and the digest if it says so.
fn position(image: &ImageReader) -> Result<Applied, ImageError> {
    let (mut index, mut term, mut digest) = (0, 0, None);
    for row in image.rows(Table::Meta.name().as_bytes()) {
        let (key, value) = row.map_err(ImageError::Image)?;
        if key == CONSISTENT_INDEX_KEY {
            index = number(&value)?;
        } else if key == TERM_KEY {
            term = number(&value)?;
        } else if key == DIGEST_KEY {
            digest = Some(value);
        }
    }
    Ok(Applied {
        index,
        term,
        digest: digest_of_row(digest.as_deref(), index),
    })
}

fn number(value: &Bytes) -> Result<u64, ImageError> {
    let bytes = <[u8; 8]>::try_from(&value[..]).map_err(|_| ImageError::Row {
        bucket: Table::Meta.name().to_owned(),
        what: "not a number",
    })?;
    Ok(u64::from_be_bytes(bytes))
}
