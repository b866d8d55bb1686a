//! Threads between the rows of an image and the database that is made of them.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use quorate_backend::TableRow;
use quorate_core::{Carrier, Filling, ImageError};
use quorate_mvcc::{Options, Restoring};

/// Batches that wait for the writer or for the index, each; a batch has some MiB.
const BATCHES_AHEAD_MAX: usize = 3;

/// Reads, writes and makes the key index at the same time, on three threads.
#[derive(Debug)]
pub(super) struct Threads<'a> {
    options: &'a Options,
    /// The index of all rows carried, unless they make no sense to it: whoever reads them back finds out why.
    pub(super) passed: Option<Restoring>,
}

impl<'a> Threads<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            passed: None,
        }
    }
}

fn index(options: &Options, batches: &Receiver<Arc<Vec<TableRow>>>) -> Option<Restoring> {
    let mut restoring = Restoring::new(options);
    for rows in batches {
        restoring.add_rows(&rows).ok()?;
    }
    Some(restoring)
}

/// Fills a database with rows as they come, makes their key index and brings them to the disk, on three threads.
///
/// # Errors
/// When the database cannot be written or brought to the disk, or the rows make no sense to the index.
pub(crate) fn fill(
    filling: &Filling,
    options: &Options,
    batches: &Receiver<Vec<TableRow>>,
) -> Result<Restoring, ImageError> {
    let (to_index, passing) = sync_channel(BATCHES_AHEAD_MAX);
    let (to_disk, due) = sync_channel(1);
    let backend = filling.backend();
    thread::scope(|scope| {
        let indexing = start(scope, "index-image", move || index(options, &passing))?;
        let syncing = start(scope, "sync-image", move || {
            due.iter().try_for_each(|()| backend.write_back())
        })?;
        let mut filled = Ok(());
        for batch in batches {
            let batch = Arc::new(batch);
            if to_index.send(Arc::clone(&batch)).is_err() {
                break;
            }
            filled = filling.append(&batch);
            if filled.is_err() {
                break;
            }
            // Little at a time, so that other syncs on the same disk need not wait for long. One that is under way takes some of
            // it along.
            let _ = to_disk.try_send(());
        }
        drop((to_index, to_disk));
        let synced = join(syncing).map_err(ImageError::Backend);
        let passed = join(indexing);
        // After a failed sync nothing more can be appended, so that is the reason.
        synced.and(filled)?;
        passed.ok_or(ImageError::State("of revisions that no store writes"))
    })
}

impl Carrier for Threads<'_> {
    fn carry(
        &mut self,
        read: &mut (dyn FnMut() -> Result<Option<Vec<TableRow>>, ImageError> + Send),
        write: &mut dyn FnMut(&[TableRow]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let options = self.options;
        let (to_writer, batches) = sync_channel(BATCHES_AHEAD_MAX);
        let (to_index, passing) = sync_channel(BATCHES_AHEAD_MAX);
        let (passed, carried) = thread::scope(|scope| {
            let reading = start(scope, "read-image", move || read_all(read, &to_writer))?;
            let indexing = start(scope, "index-image", move || index(options, &passing))?;
            let mut written = Ok(());
            for batch in batches {
                let batch = Arc::new(batch);
                // An index that gave up takes no more; the rows are written all the same.
                let _ = to_index.send(Arc::clone(&batch));
                written = write(&batch);
                if written.is_err() {
                    break;
                }
            }
            drop(to_index);
            let read = join(reading);
            Ok::<_, ImageError>((join(indexing), written.and(read)))
        })?;
        self.passed = passed;
        carried
    }
}

/// Hands all batches on, until there are no more or nobody takes them.
fn read_all(
    read: &mut (dyn FnMut() -> Result<Option<Vec<TableRow>>, ImageError> + Send),
    to_writer: &SyncSender<Vec<TableRow>>,
) -> Result<(), ImageError> {
    while let Some(batch) = read()? {
        if to_writer.send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ImageError> {
    let thread = thread::Builder::new().name(name.to_owned());
    let no_thread = |source: io::Error| ImageError::Io {
        path: PathBuf::new(),
        source,
    };
    thread.spawn_scoped(scope, work).map_err(no_thread)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
