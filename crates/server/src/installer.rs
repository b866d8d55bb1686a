//! Threads for what comes with a received snapshot and takes its time: looking into its image, installing it, closing what it
//! replaces.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use quorate_core::{Stores, received_file};
use quorate_mvcc::Restoring;
use quorate_proto::raftpb::Message;

use threads::Threads;

use crate::bootstrap::Place;
use crate::metrics::Metrics;
use crate::queue::{Event, Queue};
use crate::recovery;

mod threads;

pub(crate) use threads::fill;

/// Does it beside the engine. Cheap to clone. The engine has at most one installation under way.
#[derive(Clone)]
pub(crate) struct Installer {
    pub(crate) place: Arc<Place>,
    pub(crate) recovery: Arc<recovery::Options>,
    pub(crate) queue: Queue,
    pub(crate) metrics: Metrics,
    /// The key index made of the newest state that arrived, with the index whose received database it belongs to.
    pub(crate) passed: Arc<Mutex<Option<(u64, Restoring)>>>,
}

impl Installer {
    /// Runs work on a thread of its own.
    fn run(&self, name: &str, work: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&this));
        if let Err(e) = thread {
            self.queue
                .push(Event::Fatal(format!("cannot start a thread: {e}")));
        }
    }

    /// Brings a received snapshot in line with its image and hands it to the engine.
    pub(crate) fn receive(&self, mut message: Message, image: PathBuf) {
        self.run("snapshot", move |this| {
            match this.take_in(&mut message, &image) {
                Ok(()) => this.queue.push(Event::PeerSnapshot(Box::new(message))),
                Err(why) => {
                    tracing::warn!(error = %why, path = %image.display(), "refused a snapshot from the leader");
                }
            }
        });
    }

    /// Brings a message in line with its image; one that is refused leaves nothing.
    pub(crate) fn take_in(&self, message: &mut Message, image: &Path) -> Result<(), String> {
        let aligned = self.place.align(message, image);
        if aligned.is_err() {
            let is_of_it = |of: u64| image.ends_with(received_file(of));
            drop(self.passed.lock().take_if(|(of, _)| is_of_it(*of)));
            // What stays is removed at the next start.
            let _ = self.place.disk.remove_file(image);
        }
        aligned
    }

    /// Installs a snapshot's image and hands the restored stores to the engine.
    pub(crate) fn install(&self, index: u64) {
        self.metrics.set_installing(true);
        self.run("install", move |this| {
            let form = this.place.form_of(index).map(tracing::field::display);
            tracing::info!(
                "incoming-leader-snapshot-index" = index,
                form,
                "applying snapshot"
            );
            let restored = this.restore(index);
            match restored {
                Ok(stores) => {
                    this.queue.push(Event::Installed(Box::new(stores)));
                }
                // The next start installs it, or says why it cannot.
                Err(why) => this
                    .queue
                    .push(Event::Fatal(format!("cannot install a snapshot: {why}"))),
            }
        });
    }

    fn restore(&self, index: u64) -> Result<Stores, String> {
        let mut threads = Threads::new(&self.recovery.kv);
        let backend = self.place.install_by(index, &mut threads);
        let backend = backend.map_err(|e| e.to_string())?;
        tracing::info!("applySnapshot: opened snapshot backend");
        let passed = threads.passed.or_else(|| self.take_passed(index));
        recovery::restore_passed(&backend, &self.recovery, passed).map_err(|e| e.to_string())
    }

    /// Keeps the key index of a state that has arrived, until it is installed or another one arrives.
    pub(crate) fn note_passed(&self, index: u64, passed: Restoring) {
        *self.passed.lock() = Some((index, passed));
    }

    pub(crate) fn take_passed(&self, index: u64) -> Option<Restoring> {
        let passed = self.passed.lock().take_if(|(of, _)| *of == index);
        passed.map(|(_, passed)| passed)
    }

    /// Removes the image of a snapshot that nobody needs.
    pub(crate) fn forget(&self, index: u64) {
        self.run("forget", move |this| this.remove(index));
    }

    pub(crate) fn remove(&self, index: u64) {
        drop(self.take_passed(index));
        if let Err(e) = self.place.remove(index) {
            tracing::warn!(error = %e, index, "cannot remove the image of a snapshot");
        }
    }

    /// Ends an installation and closes the stores that were replaced; readers that still hold them keep them open as long as they
    /// need.
    pub(crate) fn close(&self, old: Stores) {
        self.metrics.set_installing(false);
        self.run("close", move |_| drop(old));
    }
}

#[cfg(test)]
pub(crate) mod tests;
