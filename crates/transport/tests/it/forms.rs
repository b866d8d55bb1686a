//! In which form a snapshot goes to a member, and whose it is once it is stored.
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use quorate_proto::MemberId;
use quorate_transport::{ImageFile, ImageStore};

use crate::member::{TestMember, config, runtime, snapshot, wait, wait_for_links};

/// A store that refuses what comes, or not.
struct Fussy(Arc<AtomicBool>);

impl ImageStore for Fussy {
    fn create(&self) -> io::Result<Box<dyn ImageFile>> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("a form that is not known"));
        }
        Ok(Box::new(Taken))
    }
}

struct Taken;

impl ImageFile for Taken {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn keep(self: Box<Self>, index: u64) -> io::Result<PathBuf> {
        Ok(format!("/{index}").into())
    }
}

#[test]
fn a_member_that_did_not_take_what_only_our_kind_sends_gets_an_image_next() {
    let runtime = runtime();
    let refuses = Arc::new(AtomicBool::new(true));
    let one = TestMember::start(&runtime, config(1));
    let store = Arc::new(Fussy(Arc::clone(&refuses)));
    let two = TestMember::start_with(&runtime, config(2), Some(store));
    one.add(&two);
    two.add(&one);
    wait_for_links(&runtime, &[&one, &two]);
    wait(&runtime, "they know each other's kind", || {
        one.transport.is_kindred(MemberId(2))
    });
    *one.images.bytes.lock().unwrap() = 300_000;
    let mut index = 3;
    let mut send = |ok: bool| {
        refuses.store(!ok, Ordering::Relaxed);
        one.heard(|h| h.snapshots_sent.clear());
        one.transport.send(vec![snapshot(1, 2, index)]);
        wait(&runtime, "the end of a snapshot", || {
            one.heard(|h| h.snapshots_sent == [(2, ok)])
        });
        index += 1;
        one.images.asked.lock().unwrap().pop().unwrap()
    };
    let to_kindred = [true, false, true, false, false, true].map(&mut send);
    assert_eq!(to_kindred, [true, true, false, true, false, false]);
    assert!(send(true), "as before, after one that arrived");
}

#[test]
fn members_without_checksums_get_images() {
    let runtime = runtime();
    let mut of_others = config(1);
    of_others.checksums = false;
    let one = TestMember::start(&runtime, of_others);
    let two = TestMember::start(&runtime, config(2));
    one.add(&two);
    two.add(&one);
    wait_for_links(&runtime, &[&one, &two]);
    for (from, to) in [(&one, &two), (&two, &one)] {
        *from.images.bytes.lock().unwrap() = 100_000;
        from.transport.send(vec![snapshot(from.id, to.id, 3)]);
        wait(&runtime, "it arrives", || {
            from.heard(|h| h.snapshots_sent == [(to.id, true)])
        });
        assert_eq!(*from.images.asked.lock().unwrap(), [false]);
    }
}

/// A store that takes its time to make an image durable.
struct Slow {
    keeping: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

struct SlowImage(Sender<()>, Receiver<()>);

impl ImageStore for Slow {
    fn create(&self) -> io::Result<Box<dyn ImageFile>> {
        let (began, may_end) = self.keeping.lock().unwrap().take().unwrap();
        Ok(Box::new(SlowImage(began, may_end)))
    }
}

impl ImageFile for SlowImage {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn keep(self: Box<Self>, index: u64) -> io::Result<PathBuf> {
        self.0.send(()).unwrap();
        self.1.recv().unwrap();
        Ok(format!("/{index}").into())
    }
}

#[test]
fn an_image_that_is_kept_is_somebodys_even_when_its_sender_is_gone() {
    let runtime = runtime();
    let (began, has_begun) = channel();
    let (end, may_end) = channel();
    let store = Arc::new(Slow {
        keeping: Mutex::new(Some((began, may_end))),
    });
    let one = TestMember::start(&runtime, config(1));
    let two = TestMember::start_with(&runtime, config(2), Some(store));
    one.add(&two);
    two.add(&one);
    wait_for_links(&runtime, &[&one, &two]);
    *one.images.bytes.lock().unwrap() = 100_000;
    one.transport.send(vec![snapshot(1, 2, 3)]);
    wait(&runtime, "all of it is there", || {
        has_begun.try_recv().is_ok()
    });
    one.transport.stop();
    wait(&runtime, "nobody waits for the answer", || {
        two.metrics(1).snapshots_being_received == 0
    });
    assert_eq!(two.heard(|h| h.snapshots.len()), 0);
    end.send(()).unwrap();
    wait(&runtime, "raft is told", || {
        two.heard(|h| h.snapshots.len() == 1)
    });
}
