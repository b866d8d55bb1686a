//! The states that snapshots on their way stand for, until their images are sent.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::{ImageError, ImageMeasure, ImageStream, SnapshotSource, View};
use quorate_proto::MemberId;
use quorate_rpc::give_way;
use quorate_transport::ImageSource;

use crate::queue::{Event, Queue};

/// Holds each state until its image is opened or a newer one for the same member comes. Cheap to clone.
///
/// A state holds up pages of the backend, so there is at most one a member. A state that cannot be read ends this member: its
/// database gives nothing more until it is opened anew, and a leader that goes on without it leaves those behind that need it.
#[derive(Clone)]
pub(crate) struct States {
    waiting: Arc<Mutex<BTreeMap<MemberId, SnapshotSource>>>,
    view: Arc<View>,
    queue: Queue,
}

impl States {
    /// Makes a place for the states of a member, whose work comes before its images.
    pub(crate) fn new(view: Arc<View>, queue: Queue) -> Self {
        Self {
            waiting: Arc::default(),
            view,
            queue,
        }
    }

    /// Keeps a state for the sender of its snapshot.
    pub(crate) fn put(&self, source: SnapshotSource) {
        self.waiting.lock().insert(source.to, source);
    }

    /// Lets go of the state for a member whose snapshot was sent or given up.
    pub(crate) fn drop_for(&self, id: MemberId) {
        self.waiting.lock().remove(&id);
    }
}

impl ImageSource for States {
    fn open(&self, index: u64) -> io::Result<(u64, Box<dyn Read + Send>)> {
        give_way();
        let source = {
            let mut waiting = self.waiting.lock();
            let found = waiting.iter().find(|(_, s)| s.index == index);
            let found = found.map(|(id, _)| *id);
            found.and_then(|id| waiting.remove(&id))
        };
        let source = source.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the snapshot's state is gone")
        })?;
        let mut pace = Pace::new(Arc::clone(&self.view));
        let mut measure = ImageMeasure::for_member(source.state);
        let failed = |e: ImageError| {
            end_if_unreadable(&self.queue, &e);
            io::Error::other(e)
        };
        while pace.work(|| measure.step()).map_err(failed)? {}
        let stream = measure.finish().map_err(failed)?;
        let bytes = stream.image_bytes();
        let queue = self.queue.clone();
        let paced = Paced {
            stream,
            pace,
            queue,
        };
        Ok((bytes, Box::new(paced)))
    }
}

fn end_if_unreadable(queue: &Queue, error: &ImageError) {
    if error.is_of_database() {
        let why = format!("cannot read the state of a snapshot: {error}");
        queue.push(Event::Fatal(why));
    }
}

/// How long nothing is read after a step, as a multiple of the time it took, while the member applies entries meanwhile: an
/// image then takes a third of a processor at most, and all of one when nobody else needs it.
const PAUSE_FACTOR: u32 = 2;
/// The longest pause: a step that took long because the machine is busy must not make an image endless.
const PAUSE_MAX: Duration = Duration::from_millis(30);
/// Work between two looks at whether there is other work.
const WORK_MIN: Duration = Duration::from_millis(1);

/// Leaves time to whoever waits for writes.
struct Pace {
    view: Arc<View>,
    applied: u64,
    /// Work since the last look.
    worked: Duration,
}

impl Pace {
    fn new(view: Arc<View>) -> Self {
        Self {
            applied: view.applied(),
            worked: Duration::ZERO,
            view,
        }
    }

    fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.worked += begun.elapsed();
        if self.worked >= WORK_MIN {
            let applied = self.view.applied();
            if std::mem::replace(&mut self.applied, applied) != applied {
                thread::sleep(PAUSE_MAX.min(self.worked * PAUSE_FACTOR));
            }
            self.worked = Duration::ZERO;
        }
        done
    }
}

/// An image that is read at a pace.
struct Paced {
    stream: ImageStream,
    pace: Pace,
    queue: Queue,
}

impl Read for Paced {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stream = &mut self.stream;
        let read = self.pace.work(|| stream.read(buf));
        if let Some(failed) = read.as_ref().err().and_then(ImageError::in_read) {
            end_if_unreadable(&self.queue, failed);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Taken;

    /// The events that are left for the engine after an image could not be read for this reason.
    fn events(error: ImageError) -> Vec<Event> {
        let queue = Queue::default();
        let read = io::Error::other(error);
        end_if_unreadable(&queue, ImageError::in_read(&read).unwrap());
        let mut taken = Taken::default();
        queue.take(Instant::now(), false, &mut taken);
        taken.events
    }

    #[test]
    fn a_database_that_cannot_be_read_for_an_image_ends_the_member() {
        let failed = quorate_backend::Error::Poisoned;
        let events_of_database = events(ImageError::Backend(failed));
        assert!(matches!(&events_of_database[..], [Event::Fatal(_)]));
        assert!(events(ImageError::RevisionOverflow).is_empty());
        assert!(ImageError::in_read(&io::Error::other("the link broke")).is_none());
    }
}
