//! Snapshots as they arrive: an image is stored; a state from a member of our own becomes a database on the way.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use quorate_backend::TableRow;
use quorate_core::{Filling, ImageError, ImageHash, StateReader};
use quorate_mvcc::Restoring;
use quorate_transport::{ImageDirectory, ImageFile, ImageStore, SnapshotForm};

use crate::installer::{Installer, fill};

/// Batches of rows that wait for the database; a batch has some MiB.
const BATCHES_AHEAD_MAX: usize = 2;

/// Takes what arrives. A state whose arrival begins ends those that are under way, each when more of it comes: one key index in
/// the making is enough.
pub(crate) struct Arrivals {
    images: Arc<ImageDirectory>,
    installer: Installer,
    /// Number of the newest state.
    newest: Arc<AtomicU64>,
}

impl Arrivals {
    pub(crate) fn new(images: ImageDirectory, installer: Installer) -> Self {
        Self {
            images: Arc::new(images),
            installer,
            newest: Arc::default(),
        }
    }
}

impl ImageStore for Arrivals {
    fn create(&self) -> io::Result<Box<dyn ImageFile>> {
        Ok(Box::new(Arrival {
            form: Form::Unknown(Vec::new()),
            images: Arc::clone(&self.images),
            installer: self.installer.clone(),
            newest: Arc::clone(&self.newest),
            begun: self.installer.metrics.clock(),
        }))
    }
}

struct Arrival {
    form: Form,
    images: Arc<ImageDirectory>,
    installer: Installer,
    newest: Arc<AtomicU64>,
    begun: Instant,
}

enum Form {
    /// Its first bytes, too few to know.
    Unknown(Vec<u8>),
    /// Stored with the hash of its bytes behind it, which is looked at when it is installed.
    Image(Box<dyn ImageFile>, ImageHash),
    State(Box<State>),
}

impl Arrival {
    fn decide(&mut self, begin: &[u8]) -> io::Result<&mut Form> {
        self.form = if StateReader::is_state(begin) {
            Form::State(Box::new(State::begin(&self.installer, &self.newest)?))
        } else {
            Form::Image(self.images.create()?, ImageHash::default())
        };
        Ok(&mut self.form)
    }
}

impl ImageFile for Arrival {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::Unknown(begin) => {
                begin.extend_from_slice(bytes);
                if begin.len() < StateReader::BEGIN_BYTES {
                    return Ok(());
                }
                let begin = std::mem::take(begin);
                self.decide(&begin)?;
                self.append(&begin)
            }
            Form::Image(image, hash) => {
                hash.update(bytes);
                image.append(bytes)
            }
            Form::State(state) => state.append(bytes),
        }
    }

    fn form(&self) -> SnapshotForm {
        match self.form {
            Form::State(_) => SnapshotForm::Rows,
            Form::Unknown(_) | Form::Image(..) => SnapshotForm::Image,
        }
    }

    fn keep(mut self: Box<Self>, index: u64) -> io::Result<PathBuf> {
        if let Form::Unknown(begin) = &mut self.form {
            let begin = std::mem::take(begin);
            self.decide(&[])?;
            self.append(&begin)?;
        }
        let metrics = &self.installer.metrics;
        let kept = match self.form {
            Form::Unknown(_) => unreachable!("it was decided"),
            Form::Image(mut image, hash) => {
                image.append(&hash.finish())?;
                let started = metrics.clock();
                let kept = image.keep(index);
                metrics.received_synced(started);
                kept
            }
            Form::State(state) => state.keep(index),
        }?;
        metrics.received_saved(self.begun);
        Ok(kept)
    }
}

/// A state on its way into a database.
struct State {
    reader: StateReader,
    /// `None` when all rows are there, or no more are taken.
    to_filler: Option<SyncSender<Vec<TableRow>>>,
    filler: Option<JoinHandle<Filled>>,
    installer: Installer,
    number: u64,
    newest: Arc<AtomicU64>,
}

type Filled = Result<(Filling, Restoring), ImageError>;

impl State {
    fn begin(installer: &Installer, newest: &Arc<AtomicU64>) -> io::Result<Self> {
        let number = newest.fetch_add(1, Ordering::Relaxed) + 1;
        let (to_filler, batches) = sync_channel(BATCHES_AHEAD_MAX);
        let this = installer.clone();
        let filler = thread::Builder::new()
            .name("fill".to_owned())
            .spawn(move || fill_with(&this, number, &batches))?;
        Ok(Self {
            reader: StateReader::default(),
            to_filler: Some(to_filler),
            filler: Some(filler),
            installer: installer.clone(),
            number,
            newest: Arc::clone(newest),
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.newest.load(Ordering::Relaxed) != self.number {
            return Err(io::Error::other("another snapshot has begun to arrive"));
        }
        self.reader.push(bytes);
        while let Some(rows) = self.reader.batch().map_err(io::Error::other)? {
            self.pass(rows)?;
        }
        Ok(())
    }

    fn pass(&mut self, rows: Vec<TableRow>) -> io::Result<()> {
        let sent = self.to_filler.as_ref().map(|filler| filler.send(rows));
        if matches!(sent, Some(Ok(()))) {
            return Ok(());
        }
        let why = self.end().err();
        Err(why.unwrap_or_else(|| io::Error::other("the database takes no more rows")))
    }

    /// Waits for what has been made of the rows.
    fn end(&mut self) -> io::Result<(Filling, Restoring)> {
        self.to_filler = None;
        let gone = || io::Error::other("the database is not made any more");
        let filled = self.filler.take().ok_or_else(gone)?.join();
        filled.map_err(|_| gone())?.map_err(io::Error::other)
    }

    /// Makes the database durable. Its key index is noted only then, so that it is that of no other.
    fn keep(mut self: Box<Self>, index: u64) -> io::Result<PathBuf> {
        let (rows, state) = std::mem::take(&mut self.reader)
            .finish()
            .map_err(io::Error::other)?;
        if state.applied.index < index {
            return Err(io::Error::other("the state is older than its message says"));
        }
        self.pass(rows)?;
        let (filling, passed) = self.end()?;
        let metrics = &self.installer.metrics;
        let started = metrics.clock();
        let kept = filling.keep(state);
        metrics.received_synced(started);
        let path = kept.map_err(io::Error::other)?;
        self.installer.note_passed(state.applied.index, passed);
        Ok(path)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The file is gone when this returns.
        let _ = self.end();
    }
}

fn fill_with(installer: &Installer, number: u64, batches: &Receiver<Vec<TableRow>>) -> Filled {
    let place = &installer.place;
    let filling = Filling::begin(&place.disk, &place.snap_dir, number, place.options)?;
    let passed = fill(&filling, &installer.recovery.kv, batches)?;
    Ok((filling, passed))
}

#[cfg(test)]
mod tests;
