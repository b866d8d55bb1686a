//! Where the database of a received snapshot goes.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_backend::{Backend, Table};
use quorate_core::{
    CONF_STATE_KEY, Carrier, ImageError, InTurn, RECEIVED_END, align_snapshot, image_file,
    install_image_by, install_received, received_file,
};
use quorate_disk::Disk;
use quorate_proto::raftpb::{ConfState, Message};
use quorate_snap::ImageReader;
use quorate_transport::SnapshotForm;

use super::parse_conf_state;

/// Where the database of a received snapshot goes.
#[derive(Clone)]
pub struct Place {
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// The directory of snapshots and of the database.
    pub snap_dir: PathBuf,
    /// The database's path in it.
    pub backend_path: PathBuf,
    /// Of the database.
    pub options: quorate_backend::Options,
}

/// Where an image's database is in the log.
pub(crate) struct Position {
    /// Last entry it holds.
    pub(crate) index: u64,
    /// That entry's term.
    pub(crate) term: u64,
    /// The configuration there.
    pub(crate) conf_state: ConfState,
}

impl Place {
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        snap_dir: &Path,
        backend_path: PathBuf,
        options: quorate_backend::Options,
    ) -> Self {
        Self {
            disk: Arc::clone(disk),
            snap_dir: snap_dir.to_owned(),
            backend_path,
            options,
        }
    }

    /// Puts the image of a snapshot, or the database made of it as it came, in the place of the database and opens it.
    ///
    /// # Errors
    /// As [`install_image_by`].
    pub fn install(&self, index: u64) -> Result<Backend, ImageError> {
        self.install_by(index, &mut InTurn)
    }

    /// As [`Self::install`], by a carrier of the rows.
    ///
    /// # Errors
    /// As [`install_image_by`].
    pub(crate) fn install_by(
        &self,
        index: u64,
        carrier: &mut dyn Carrier,
    ) -> Result<Backend, ImageError> {
        if let Some(backend) = install_received(&self.disk, &self.snap_dir, index, self.options)? {
            return Ok(backend);
        }
        install_image_by(&self.disk, &self.snap_dir, index, self.options, carrier)
    }

    /// Tells in what form a received snapshot has come; `None` when there is none for that index.
    pub(crate) fn form_of(&self, index: u64) -> Option<SnapshotForm> {
        let has = |name: String| {
            let exists = self.disk.exists(&self.snap_dir.join(name));
            exists.unwrap_or(false)
        };
        if has(received_file(index)) {
            Some(SnapshotForm::Rows)
        } else {
            has(image_file(index)).then_some(SnapshotForm::Image)
        }
    }

    /// Brings a received snapshot in line with its image, or with the database that was made of it as it came.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn align(&self, message: &mut Message, image: &Path) -> Result<(), String> {
        let is_state = image.to_string_lossy().ends_with(RECEIVED_END);
        let facts = if is_state {
            self.received_position(image)?
        } else {
            image_position(self.disk.as_ref(), image)?
        };
        if !align_snapshot(message, facts.index, facts.term, facts.conf_state) {
            return Err("what was received is older than its message says".to_owned());
        }
        let name = if is_state { received_file } else { image_file };
        let aligned = self.snap_dir.join(name(facts.index));
        if aligned != image {
            let io = |e: io::Error| e.to_string();
            self.disk.rename(image, &aligned).map_err(io)?;
            self.disk.sync_dir(&self.snap_dir).map_err(io)?;
        }
        Ok(())
    }

    /// Removes what was received for a snapshot that nobody needs.
    ///
    /// # Errors
    /// What the disk says; what stays is removed at the next start.
    pub fn remove(&self, index: u64) -> io::Result<()> {
        let mut removed = Ok(());
        for name in [received_file(index), image_file(index)] {
            let path = self.snap_dir.join(name);
            let result = match self.disk.exists(&path) {
                Ok(true) => self.disk.remove_file(&path),
                other => other.map(drop),
            };
            removed = removed.and(result);
        }
        removed
    }

    /// Reads where the database made of a received state is in the log.
    pub(crate) fn received_position(&self, path: &Path) -> Result<Position, String> {
        // Opened, what is not there would be made.
        if !self.disk.exists(path).map_err(|e| e.to_string())? {
            return Err("it was installed or removed meanwhile".to_owned());
        }
        let opened = Backend::open(Arc::clone(&self.disk), path, self.options);
        let backend = opened.map_err(|e| e.to_string())?;
        let txn = backend.read().map_err(|e| e.to_string())?;
        let conf_state = txn
            .get(Table::Meta, CONF_STATE_KEY)
            .map_err(|e| e.to_string())?
            .and_then(|row| parse_conf_state(&row).ok())
            .ok_or("the state does not say what its configuration is")?;
        let applied = backend.durable();
        Ok(Position {
            index: applied.index,
            term: applied.term,
            conf_state,
        })
    }
}

/// Reads where an image is in the log, without looking at the rest.
fn image_position(disk: &dyn Disk, path: &Path) -> Result<Position, String> {
    let image = ImageReader::open(disk, path).map_err(|e| e.to_string())?;
    let (mut index, mut term, mut conf_state) = (None, None, None);
    for row in image.rows(Table::Meta.name().as_bytes()) {
        let (key, value) = row.map_err(|e| e.to_string())?;
        let number = || <[u8; 8]>::try_from(&value[..]).ok().map(u64::from_be_bytes);
        match &key[..] {
            quorate_backend::CONSISTENT_INDEX_KEY => index = number(),
            quorate_backend::TERM_KEY => term = number(),
            CONF_STATE_KEY => conf_state = parse_conf_state(&value).ok(),
            _ => {}
        }
    }
    match (index, term, conf_state) {
        (Some(index), Some(term), Some(conf_state)) => Ok(Position {
            index,
            term,
            conf_state,
        }),
        _ => Err("the image does not say where it is in the log".to_owned()),
    }
}
