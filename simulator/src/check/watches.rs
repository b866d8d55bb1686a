//! Watchers: ordered, unique, complete, resumable, whole revisions, progress that is true.
use bytes::Bytes;
use prost::Message as _;
use quorate_mvcc::{WatchCreate, WatchResponse};
use quorate_proto::mvccpb::{Event, KeyValue};

use super::Violation;
use crate::model::{Change, Model, Span};

/// `Event.EventType.DELETE`.
const DELETE: i32 = 1;

/// One watcher as its client sees it, over all members that it was served by.
#[derive(Clone, Debug)]
pub struct Watched {
    request: WatchCreate,
    span: Span,
    /// The first revision of which nothing was told yet.
    ///
    /// **Invariant:** everything that was asked for below it was delivered, each once.
    next: i64,
    /// How many events of `next` were delivered, when it comes in fragments.
    part: usize,
    /// Whether the answer to the create request has come on the present stream.
    is_created: bool,
    is_fragmented: bool,
}

/// What a response came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The watcher is there.
    Created,
    /// Events, so many.
    Events(usize),
    /// Nothing new up to here.
    Progress,
    /// The watcher is gone.
    Canceled,
    /// The watcher is gone, since what it needs was compacted.
    Compacted,
}

impl Watched {
    /// Takes what is asked of a new watcher.
    pub fn new(request: WatchCreate) -> Self {
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            request.key.clone()
        };
        Self {
            span: Span::new(&key, &request.range_end),
            next: request.start_revision,
            request,
            part: 0,
            is_created: false,
            is_fragmented: false,
        }
    }

    /// Returns the first revision of which nothing was told yet; 0 before the watcher was ever there.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Says whether the answer to the create request has come on the present stream.
    pub fn is_created(&self) -> bool {
        self.is_created
    }

    /// Returns what to ask another member for, to go on where this stream ended.
    pub fn resume(&mut self) -> WatchCreate {
        self.is_created = false;
        self.is_fragmented = false;
        // A revision of which only a part came is asked for again as a whole.
        self.part = 0;
        self.request.start_revision = self.next;
        self.request.clone()
    }

    /// Takes a response.
    ///
    /// # Errors
    /// It breaks a promise.
    pub fn hear(&mut self, model: &Model, response: &WatchResponse) -> Result<Heard, Violation> {
        self.hear_one(model, response).map_err(|why| {
            let text = format!(
                "{} {why}; it is at {}+{}: {response:?}",
                self.name(),
                self.next,
                self.part
            );
            Violation::new("watch promises", text)
        })
    }

    fn name(&self) -> String {
        format!(
            "the watcher of {}..{}",
            self.request.key.escape_ascii(),
            self.request.range_end.escape_ascii()
        )
    }

    fn hear_one(&mut self, model: &Model, response: &WatchResponse) -> Result<Heard, String> {
        let newest = model.keys().revision();
        if response.revision > newest {
            return Err(format!(
                "is told revision {}, ahead of {newest}",
                response.revision
            ));
        }
        if response.created {
            return self.created(response);
        }
        if response.canceled && response.compact_revision == 0 {
            return Ok(Heard::Canceled);
        }
        if !self.is_created {
            return Err("hears before it was created".to_owned());
        }
        if response.canceled {
            return self.compacted(model, response);
        }
        if response.events.is_empty() {
            return self.progress(model, response.revision);
        }
        self.events(model, response)
    }

    fn created(&mut self, response: &WatchResponse) -> Result<Heard, String> {
        if self.is_created {
            return Err("is created twice".to_owned());
        }
        if response.canceled {
            return Ok(Heard::Canceled);
        }
        self.is_created = true;
        if self.next == 0 {
            self.next = response.revision + 1;
        }
        Ok(Heard::Created)
    }

    fn compacted(&self, model: &Model, response: &WatchResponse) -> Result<Heard, String> {
        let at = response.compact_revision;
        if !model.was_compacted_at(at) {
            return Err(format!("is told of a compaction at {at} that never was"));
        }
        if self.next >= at {
            return Err("is ended, although nothing it needs is compacted".to_owned());
        }
        if response.revision != 0 || !response.cancel_reason.is_empty() {
            return Err("is ended with more than a compact revision".to_owned());
        }
        Ok(Heard::Compacted)
    }

    /// Takes the promise that everything up to a revision was delivered.
    ///
    /// # Errors
    /// It was not.
    pub fn progress(&mut self, model: &Model, revision: i64) -> Result<Heard, String> {
        if self.is_fragmented {
            return Err("hears of progress between fragments".to_owned());
        }
        if let Some((missing, _)) = self.due(model).filter(|(due, _)| *due <= revision) {
            return Err(format!(
                "is told of progress to {revision} without what {missing} brought"
            ));
        }
        if revision + 1 < self.request.start_revision {
            return Err(format!(
                "is told of progress to {revision}, before its start"
            ));
        }
        self.next = self.next.max(revision + 1);
        Ok(Heard::Progress)
    }

    fn events(&mut self, model: &Model, response: &WatchResponse) -> Result<Heard, String> {
        let compact = model.compact_at(model.index());
        for event in response.events.iter() {
            let event = Event::decode(event).map_err(|e| e.to_string())?;
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision > response.revision {
                return Err(format!("is told of {revision} under {}", response.revision));
            }
            if self.may_be_dropped(model, &event) {
                continue;
            }
            let Some((due, changes)) = self.due(model) else {
                return Err(format!(
                    "is told of {revision}, which brought nothing for it"
                ));
            };
            let Some(change) = changes.get(self.part).filter(|_| due == revision) else {
                return Err(format!("is told of {revision} when {due} is due"));
            };
            self.compare(model, compact, change, &event)?;
            let is_last = self.part + 1 == changes.len();
            self.next = if is_last { due + 1 } else { due };
            self.part = if is_last { 0 } else { self.part + 1 };
        }
        self.is_fragmented = response.fragment;
        if response.fragment && !self.request.fragment {
            return Err("gets fragments it did not ask for".to_owned());
        }
        if self.part > 0 && !response.fragment {
            return Err(format!("gets only {} events of {}", self.part, self.next));
        }
        Ok(Heard::Events(response.events.len()))
    }

    /// Returns the first revision that brings something, from where the watcher is, and what it brings.
    fn due<'a>(&self, model: &'a Model) -> Option<(i64, Vec<&'a Change>)> {
        let wanted = |change: &Change| {
            let left_out = match change.pair {
                Some(_) => self.request.no_put,
                None => self.request.no_delete,
            };
            self.span.has(&change.key) && !left_out && !is_superseded(model, change)
        };
        model.keys().next_change(self.next, wanted)
    }

    /// Says whether an event need not come, and may.
    fn may_be_dropped(&self, model: &Model, event: &Event) -> bool {
        let (Some(kv), is_delete) = (&event.kv, event.r#type == DELETE) else {
            return false;
        };
        let changes = model.changes_of(kv.mod_revision).iter();
        let mut dropped = changes.filter(|c| is_superseded(model, c));
        let is_it = |c: &Change| c.key == kv.key && c.pair.is_none() == is_delete;
        kv.mod_revision >= self.next && dropped.any(is_it)
    }

    /// Says whether everything there is was delivered.
    pub fn is_complete(&self, model: &Model) -> bool {
        self.is_created && self.due(model).is_none()
    }

    fn compare(
        &self,
        model: &Model,
        compact: i64,
        change: &Change,
        event: &Event,
    ) -> Result<(), String> {
        let is_delete = change.pair.is_none();
        let expected = change.pair.clone().unwrap_or_else(|| KeyValue {
            key: change.key.clone(),
            mod_revision: change.revision,
            ..KeyValue::default()
        });
        if (event.r#type == DELETE) != is_delete || event.kv.as_ref() != Some(&expected) {
            return Err(format!("is told {event:?} where {expected:?} is due"));
        }
        let is_creation = !is_delete && expected.create_revision == expected.mod_revision;
        let before = change.revision - 1;
        let prev = (self.request.prev_kv && !is_creation)
            .then(|| model.keys().at(&change.key, before))
            .flatten();
        let may_miss = before < compact;
        if event.prev_kv.as_ref() == prev || (event.prev_kv.is_none() && may_miss) {
            return Ok(());
        }
        Err(format!(
            "is told of {:?} before revision {}, where {prev:?} was",
            event.prev_kv, change.revision
        ))
    }
}

/// Says whether a compaction at the very revision of a change has dropped it, since its key changed again within it.
fn is_superseded(model: &Model, change: &Change) -> bool {
    let changes = model.changes_of(change.revision);
    let is_later = |c: &Change| c.key == change.key && c.sub > change.sub;
    changes.iter().any(is_later) && model.was_compacted_at(change.revision)
}

#[cfg(test)]
mod tests;
