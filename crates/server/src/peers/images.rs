//! The states that snapshots on their way stand for, until their images are sent.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::{ImageError, ImageMeasure, SnapshotSource, StateStream, View};
use quorate_proto::MemberId;
use quorate_rpc::{Pace, give_way};
use quorate_transport::{ImageSource, OpenedImage, SnapshotForm};

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
    fn open(&self, index: u64, to_kindred: bool) -> io::Result<OpenedImage> {
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
        let mut worker = Worker {
            pace: Pace::new(Arc::clone(&self.view)),
            worked: Duration::ZERO,
        };
        let queue = self.queue.clone();
        if to_kindred {
            let stream = StateStream::new(source.state);
            let body = Box::new(Paced {
                stream,
                worker,
                queue,
            });
            return Ok(OpenedImage {
                form: SnapshotForm::Rows,
                bytes: None,
                body,
            });
        }
        let mut measure = ImageMeasure::for_member(source.state);
        let failed = |e: ImageError| {
            end_if_unreadable(&self.queue, &e);
            io::Error::other(e)
        };
        while worker.work(|| measure.step()).map_err(failed)? {}
        let stream = measure.finish().map_err(failed)?;
        let bytes = Some(stream.image_bytes());
        let body = Box::new(Paced {
            stream,
            worker,
            queue,
        });
        Ok(OpenedImage {
            form: SnapshotForm::Image,
            bytes,
            body,
        })
    }
}

fn end_if_unreadable(queue: &Queue, error: &ImageError) {
    if error.is_of_database() {
        let why = format!("cannot read the state of a snapshot: {error}");
        queue.push(Event::Fatal(why));
    }
}

/// Work between two looks at whether there is other work.
const WORK_MIN: Duration = Duration::from_millis(1);

/// Leaves time to whoever waits for writes.
struct Worker {
    pace: Pace,
    /// Work since the last look.
    worked: Duration,
}

impl Worker {
    fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.worked += begun.elapsed();
        if self.worked >= WORK_MIN {
            thread::sleep(self.pace.pause(std::mem::take(&mut self.worked)));
        }
        done
    }
}

/// An image, or a state in its place, that is read at a pace.
struct Paced<S> {
    stream: S,
    worker: Worker,
    queue: Queue,
}

impl<S: Read> Read for Paced<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stream = &mut self.stream;
        let read = self.worker.work(|| stream.read(buf));
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
