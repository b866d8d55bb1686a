//! What writers did, as a model to hold against what a server says happened.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::client::Client;
use crate::failure::{Failure, Outcome};

/// A value and the lease of its key, 0 for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) value: Bytes,
    pub(crate) lease: i64,
}

/// What one revision did to each key it touched; `None` deleted it.
pub(crate) type Changes = BTreeMap<Bytes, Option<Held>>;

/// Every key and what it holds.
pub(crate) type State = BTreeMap<Bytes, Held>;

/// Carries `changes` out on `state`.
pub(crate) fn apply(state: &mut State, changes: &Changes) {
    for (key, held) in changes {
        match held {
            Some(held) => state.insert(key.clone(), held.clone()),
            None => state.remove(key),
        };
    }
}

/// A short text for changes.
pub(crate) fn describe(changes: &Changes) -> String {
    let one = |(key, held): (&Bytes, &Option<Held>)| match held {
        Some(held) => format!(
            "{}={} bytes, lease {}",
            String::from_utf8_lossy(key),
            held.value.len(),
            held.lease
        ),
        None => format!("{} deleted", String::from_utf8_lossy(key)),
    };
    changes.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Revisions in order, as a watch shows them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    revisions: Vec<(i64, Changes)>,
}

impl Log {
    /// The last revision seen, 0 for none.
    pub(crate) fn last(&self) -> i64 {
        self.revisions.last().map_or(0, |(revision, _)| *revision)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(i64, Changes)> {
        self.revisions.iter()
    }

    /// Adds what one answer of a watch brings.
    ///
    /// # Errors
    /// The events go back, come twice or split a revision.
    pub(crate) fn add(&mut self, events: Vec<Event>) -> Outcome {
        let before = self.last();
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let kv = event.kv.unwrap_or_default();
            let revision = kv.mod_revision;
            if revision <= before || revision < self.last() {
                let text = format!(
                    "the watch shows revision {revision} after {}",
                    self.last().max(before)
                );
                return Err(Failure::new(text));
            }
            if revision > self.last() {
                self.revisions.push((revision, Changes::new()));
            }
            let held = is_put.then(|| held(&kv));
            let changes = &mut self.revisions.last_mut().expect("just pushed").1;
            if changes.insert(kv.key.clone(), held).is_some() {
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                return Err(Failure::new(format!(
                    "the watch shows {key} twice in revision {revision}"
                )));
            }
        }
        Ok(())
    }
}

fn held(kv: &KeyValue) -> Held {
    Held {
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

/// A request to watch every key from `revision` on.
pub(crate) fn watch_all(revision: i64) -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: revision,
            ..WatchCreateRequest::default()
        })),
    }
}

/// Reads on from the end of `log` until revision `to`.
pub(crate) async fn read_log(client: &Client, log: &mut Log, from: i64, to: i64) -> Outcome {
    if log.last().max(from - 1) >= to {
        return Ok(());
    }
    let start = from.max(log.last() + 1);
    let (_requests, mut answers) = client.stream("Watch/Watch", watch_all(start)).await?;
    while log.last() < to {
        let answer: WatchResponse = answers
            .message()
            .await?
            .ok_or_else(|| Failure::new("the watch ended"))?;
        if answer.canceled {
            return Err(Failure::new(format!("the watch was cancelled: {answer:?}")));
        }
        log.add(answer.events)?;
    }
    Ok(())
}

/// Everything the server holds, and its revision.
pub(crate) async fn read_state(client: &Client) -> Outcome<(i64, State)> {
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call("KV/Range", all).await?;
    let revision = answer.header.unwrap_or_default().revision;
    let state = answer
        .kvs
        .iter()
        .map(|kv| (kv.key.clone(), held(kv)))
        .collect();
    Ok((revision, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &'static str, revision: i64) -> Event {
        let kv = KeyValue {
            key: key.into(),
            mod_revision: revision,
            ..KeyValue::default()
        };
        Event {
            kv: Some(kv),
            ..Event::default()
        }
    }

    #[test]
    fn a_log_refuses_what_a_watch_must_not_do() {
        let mut log = Log::default();
        log.add(vec![event("a", 2), event("b", 2), event("a", 3)])
            .unwrap();
        assert_eq!((log.last(), log.iter().count()), (3, 2));
        assert!(log.add(vec![event("c", 3)]).is_err(), "a revision is split");
        assert!(log.add(vec![event("a", 2)]).is_err(), "the watch goes back");
        assert!(
            Log::default()
                .add(vec![event("a", 4), event("a", 4)])
                .is_err(),
            "an event comes twice"
        );
        assert!(
            Log::default()
                .add(vec![event("a", 5), event("a", 4)])
                .is_err(),
            "events are out of order"
        );
    }
}
