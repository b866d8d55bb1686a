//! Threads between the rows of an image and the database that is made of them.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use quorate_backend::TableRow;
use quorate_core::{Carrier, ImageError};
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

    fn index(&self, batches: &Receiver<Arc<Vec<TableRow>>>) -> Option<Restoring> {
        let mut restoring = Restoring::new(self.options);
        for rows in batches {
            restoring.add_rows(&rows).ok()?;
        }
        Some(restoring)
    }
}

impl Carrier for Threads<'_> {
    fn carry(
        &mut self,
        read: &mut (dyn FnMut() -> Result<Option<Vec<TableRow>>, ImageError> + Send),
        write: &mut dyn FnMut(&[TableRow]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let this = &*self;
        let (to_writer, batches) = sync_channel(BATCHES_AHEAD_MAX);
        let (to_index, passing) = sync_channel(BATCHES_AHEAD_MAX);
        let (passed, carried) = thread::scope(|scope| {
            let reading = start(scope, "read-image", move || read_all(read, &to_writer))?;
            let indexing = start(scope, "index-image", move || this.index(&passing))?;
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
