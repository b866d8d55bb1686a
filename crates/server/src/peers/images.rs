//! The states that snapshots on their way stand for, until their images are sent.
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_core::{ImageMeasure, ImageStream, SnapshotSource, View};
use quorate_proto::MemberId;
use quorate_rpc::give_way;
use quorate_transport::ImageSource;

/// Holds each state until its image is opened or a newer one for the same member comes. Cheap to clone.
///
/// A state holds up pages of the backend, so there is at most one a member.
#[derive(Clone)]
pub(crate) struct States {
    waiting: Arc<Mutex<BTreeMap<MemberId, SnapshotSource>>>,
    view: Arc<View>,
}

impl States {
    /// Makes a place for the states of a member, whose work comes before its images.
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self {
            waiting: Arc::default(),
            view,
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
        while pace.work(|| measure.step()).map_err(io::Error::other)? {}
        let stream = measure.finish().map_err(io::Error::other)?;
        let bytes = stream.image_bytes();
        Ok((bytes, Box::new(Paced { stream, pace })))
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
}

impl Read for Paced {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stream = &mut self.stream;
        self.pace.work(|| stream.read(buf))
    }
}
