use std::sync::Arc;

use quorate_backend::Backend;
use quorate_disk::SimDisk;
use quorate_mvcc::{Options, Progress, Store, WatchHub, WatchOptions};
use quorate_proto::etcdserverpb as pb;

use super::*;
use crate::model::{Entry, EntryKind};

/// A store and the model beside it, so that real responses can be falsified.
struct Case {
    model: Model,
    store: Store,
    backend: Backend,
}

impl Case {
    fn new() -> Self {
        let disk = Arc::new(SimDisk::new(1));
        let backend = Backend::open(disk, "db".as_ref(), Default::default()).unwrap();
        let (store, _) = Store::restore(&backend, Options::default()).unwrap();
        let model = Model::new(1, 1);
        Self {
            model,
            store,
            backend,
        }
    }

    fn request(&mut self, request: &pb::InternalRaftRequest) {
        let index = self.model.index() + 1;
        let entry = Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: request.encode_to_vec().into(),
        };
        self.model.apply(&entry).unwrap();
        let mut txn = self.backend.begin_apply(index, 1);
        let mut job = None;
        if let Some(put) = &request.put {
            self.store.put(&mut txn, put, |_| false).unwrap();
        }
        if let Some(delete) = &request.delete_range {
            self.store.delete_range(&mut txn, delete).unwrap();
        }
        if let Some(request) = &request.txn {
            self.store.txn(&mut txn, request, |_| false).unwrap();
        }
        if let Some(compact) = &request.compaction {
            job = Some(self.store.compact(&mut txn, compact.revision).unwrap());
        }
        txn.commit(0);
        self.store.publish();
        if let Some(mut job) = job {
            self.backend.seal().unwrap().run().unwrap();
            assert!(matches!(job.run().unwrap(), Progress::Done(_)));
        }
    }

    fn put(&mut self, key: &'static str, value: &'static str) {
        let put = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        self.request(&pb::InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        });
    }

    fn compact(&mut self, revision: i64) {
        self.request(&pb::InternalRaftRequest {
            compaction: Some(pb::CompactionRequest {
                revision,
                physical: false,
            }),
            ..Default::default()
        });
    }

    fn delete_all(&mut self) {
        let delete = pb::DeleteRangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        self.request(&pb::InternalRaftRequest {
            delete_range: Some(delete),
            ..Default::default()
        });
    }

    /// What a watcher of everything from a revision on is told.
    fn responses(&self, request: &WatchCreate) -> Vec<WatchResponse> {
        let options = WatchOptions {
            fragment_bytes: 60,
            batch_revisions_max: 1,
            ..WatchOptions::default()
        };
        let mut hub = WatchHub::new(self.store.reader(), options);
        let stream = hub.open_stream(0);
        hub.create(stream, request.clone());
        while hub.advance().unwrap() {}
        hub.request_progress(stream);
        hub.take(stream, usize::MAX)
    }

    fn hear(
        &self,
        request: &WatchCreate,
        responses: &[WatchResponse],
    ) -> Result<Watched, Violation> {
        let mut watched = Watched::new(request.clone());
        for response in responses {
            if response.watch_id == WatchResponse::NO_WATCH_ID && !response.created {
                let told = watched.progress(&self.model, response.revision);
                told.map_err(|why| Violation::new("watch promises", why))?;
            } else {
                watched.hear(&self.model, response)?;
            }
        }
        Ok(watched)
    }
}

fn everything(start_revision: i64) -> WatchCreate {
    WatchCreate {
        range_end: "\0".into(),
        start_revision,
        prev_kv: true,
        ..Default::default()
    }
}

/// Puts of a and b, and in revision 4 a deletion of both, a put of a and its deletion.
fn deleted_twice() -> Case {
    let mut case = Case::new();
    case.put("a", "1");
    case.put("b", "1");
    let delete = |range_end: &'static str| {
        pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "a".into(),
            range_end: range_end.into(),
            ..Default::default()
        })
    };
    let put = pb::request_op::Request::RequestPut(pb::PutRequest {
        key: "a".into(),
        value: "2".into(),
        ..Default::default()
    });
    let ops = [delete("\0"), put, delete("")].map(|op| pb::RequestOp { request: Some(op) });
    case.request(&pb::InternalRaftRequest {
        txn: Some(pb::TxnRequest {
            success: ops.to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    });
    case
}

/// Puts of a, b, a, and a deletion of both: revisions 2 to 5.
fn story() -> Case {
    let mut case = Case::new();
    case.put("a", "1");
    case.put("b", "1");
    case.put("a", "2");
    case.delete_all();
    case
}

#[test]
fn what_is_right_is_taken_and_complete() {
    let case = story();
    for start in [0, 1, 2, 4, 5, 6] {
        let request = everything(start);
        let watched = case.hear(&request, &case.responses(&request)).unwrap();
        assert!(watched.is_complete(&case.model), "from {start}");
        assert_eq!(watched.next(), 6);
    }
    let fragments = WatchCreate {
        fragment: true,
        ..everything(2)
    };
    let responses = case.responses(&fragments);
    assert!(responses.iter().any(|r| r.fragment));
    assert!(
        case.hear(&fragments, &responses)
            .unwrap()
            .is_complete(&case.model)
    );
}

#[test]
fn a_lost_a_repeated_and_a_swapped_response_are_refused() {
    let case = story();
    let request = everything(2);
    let right = case.responses(&request);
    let events = |r: &WatchResponse| !r.events.is_empty();
    for (at, _) in right.iter().enumerate().filter(|(_, r)| events(r)) {
        let mut lost = right.clone();
        lost.remove(at);
        assert!(case.hear(&request, &lost).is_err(), "lost {at}");
        let mut twice = right.clone();
        twice.insert(at, right[at].clone());
        assert!(case.hear(&request, &twice).is_err(), "twice {at}");
    }
    let mut swapped = right.clone();
    swapped.swap(1, 2);
    assert!(case.hear(&request, &swapped).is_err());
    let mut early = right.clone();
    early.swap(0, 1);
    assert!(case.hear(&request, &early).is_err());
}

#[test]
fn a_revision_in_parts_is_refused_unless_fragments_were_asked_for() {
    let case = story();
    let request = WatchCreate {
        fragment: true,
        ..everything(2)
    };
    let mut responses = case.responses(&request);
    assert!(case.hear(&everything(2), &responses).is_err());
    for response in &mut responses {
        response.fragment = false;
    }
    assert!(case.hear(&request, &responses).is_err());
}

#[test]
fn progress_that_is_not_true_is_refused() {
    let mut case = story();
    let request = everything(0);
    let progress = |revision| WatchResponse {
        revision,
        ..Default::default()
    };
    let mut watched = Watched::new(request.clone());
    watched
        .hear(&case.model, &case.responses(&request)[0])
        .unwrap();
    watched.hear(&case.model, &progress(5)).unwrap();
    case.put("c", "1");
    assert!(watched.clone().hear(&case.model, &progress(6)).is_err());
    assert!(watched.clone().hear(&case.model, &progress(7)).is_err());
    assert_eq!(watched.hear(&case.model, &progress(5)), Ok(Heard::Progress));
    assert!(!watched.is_complete(&case.model));
}

#[test]
fn an_event_that_says_something_else_is_refused() {
    let case = story();
    let request = everything(2);
    let other = {
        let mut other = Case::new();
        other.put("a", "1");
        other.put("b", "other");
        other.put("a", "2");
        other.delete_all();
        other.responses(&request)
    };
    assert!(case.hear(&request, &other).is_err());
    let without_prev = WatchCreate {
        prev_kv: false,
        ..request.clone()
    };
    assert!(case.hear(&request, &case.responses(&without_prev)).is_err());
    assert!(case.hear(&without_prev, &case.responses(&request)).is_err());
    let no_put = WatchCreate {
        no_put: true,
        ..request.clone()
    };
    assert!(case.hear(&no_put, &case.responses(&request)).is_err());
    assert!(
        case.hear(&no_put, &case.responses(&no_put))
            .unwrap()
            .is_complete(&case.model)
    );
}

#[test]
fn only_a_true_compaction_ends_a_watcher() {
    let mut case = story();
    case.compact(4);
    let request = everything(3);
    let responses = case.responses(&request);
    assert!(responses.iter().any(|r| r.compact_revision == 4));
    let mut watched = Watched::new(request);
    watched.hear(&case.model, &responses[0]).unwrap();
    let told = watched.hear(&case.model, &responses[1]);
    assert_eq!(told, Ok(Heard::Compacted));

    let ended = |compact_revision| WatchResponse {
        canceled: true,
        compact_revision,
        ..Default::default()
    };
    let mut at_four = Watched::new(everything(4));
    at_four
        .hear(&case.model, &case.responses(&everything(4))[0])
        .unwrap();
    assert!(at_four.clone().hear(&case.model, &ended(4)).is_err());
    assert!(at_four.hear(&case.model, &ended(5)).is_err());
}

#[test]
fn a_watcher_goes_on_elsewhere_where_it_was() {
    let case = story();
    let request = everything(2);
    let mut watched = Watched::new(request.clone());
    for response in &case.responses(&request)[..3] {
        watched.hear(&case.model, response).unwrap();
    }
    let resumed = watched.resume();
    assert_eq!(resumed.start_revision, 4);
    for response in case.responses(&resumed) {
        if !response.created && response.watch_id == WatchResponse::NO_WATCH_ID {
            continue;
        }
        watched.hear(&case.model, &response).unwrap();
    }
    assert!(watched.is_complete(&case.model));
    assert_eq!(watched.resume().start_revision, 6);
    assert!(
        watched
            .hear(&case.model, &case.responses(&request)[1])
            .is_err()
    );
}

#[test]
fn what_a_compaction_drops_of_its_revision_may_come_and_the_rest_must() {
    // 1020072: the deletion of a that stays was taken for the one before it that is dropped.
    let mut case = deleted_twice();
    let events = |responses: &[WatchResponse]| -> usize {
        let revisions = responses.iter().filter(|r| r.revision == 4);
        revisions.map(|r| r.events.len()).sum()
    };
    for fragment in [false, true] {
        let request = WatchCreate {
            fragment,
            ..everything(4)
        };
        let mut case = deleted_twice();
        let whole = case.responses(&request);
        assert_eq!(events(&whole), 4);
        let watched = case.hear(&request, &whole).unwrap();
        assert!(watched.is_complete(&case.model));
        case.compact(4);
        // Behind a restart events come from what the compaction has left.
        (case.store, _) = Store::restore(&case.backend, Options::default()).unwrap();
        let dropped = case.responses(&request);
        assert_eq!(events(&dropped), 2);
        for responses in [&whole, &dropped] {
            let watched = case.hear(&request, responses).unwrap();
            assert!(watched.is_complete(&case.model));
            assert_eq!(watched.next(), 5);
        }
        // Where nothing is compacted, nothing may be missing.
        let fresh = deleted_twice();
        assert!(fresh.hear(&request, &dropped).is_err());
        // Of what stays, nothing may be missing either.
        for at in 0..dropped.len() {
            let mut lost = dropped.clone();
            let has_events = !lost.remove(at).events.is_empty();
            let heard = case.hear(&request, &lost);
            assert!(!has_events || heard.is_err(), "{at}");
        }
    }
    case.compact(4);
    for no_put in [false, true] {
        let request = WatchCreate {
            no_put,
            no_delete: !no_put,
            ..everything(4)
        };
        let watched = case.hear(&request, &case.responses(&request)).unwrap();
        assert!(watched.is_complete(&case.model));
    }
}
