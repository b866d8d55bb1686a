//! Watchers: ordered, unique, complete, resumable, whole revisions, progress that is true.
//!
//! A compaction at a revision drops what its keys were within it before they became what they were last. Such events come or
//! do not, and may look like those that must come, so all the ways are followed in which a revision may have been read.
use std::collections::BTreeSet;

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
    /// How many changes of `next` may lie behind the watcher; empty before anything of it was delivered.
    parts: BTreeSet<usize>,
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
            parts: BTreeSet::new(),
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
        self.parts.clear();
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
                "{} {why}; it is at {}+{:?}: {response:?}",
                self.name(),
                self.next,
                self.parts
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
        if let Some(missing) = self.due(model).filter(|due| *due <= revision) {
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
            if self.parts.is_empty() || revision != self.next {
                self.end_revision(model)?;
                self.begin_revision(model, revision)?;
            }
            self.event(model, compact, &event)?;
        }
        self.is_fragmented = response.fragment;
        if response.fragment && !self.request.fragment {
            return Err("gets fragments it did not ask for".to_owned());
        }
        if !response.fragment {
            self.end_revision(model)?;
        }
        Ok(Heard::Events(response.events.len()))
    }

    /// Goes to a revision of which something comes.
    fn begin_revision(&mut self, model: &Model, revision: i64) -> Result<(), String> {
        let is_early = |due: &i64| *due < revision;
        if let Some(due) = self.due(model).filter(is_early) {
            return Err(format!("is told of {revision} when {due} is due"));
        }
        if revision < self.next {
            return Err(format!("is told of {revision} again"));
        }
        self.next = revision;
        self.parts.insert(0);
        Ok(())
    }

    /// Takes one event of `next`.
    fn event(&mut self, model: &Model, compact: i64, event: &Event) -> Result<(), String> {
        let changes = self.changes(model);
        let mut parts = BTreeSet::new();
        let mut why = None;
        for part in &self.parts {
            for (at, change) in changes.iter().enumerate().skip(*part) {
                match self.compare(model, compact, change, event) {
                    Ok(()) => _ = parts.insert(at + 1),
                    Err(other) => _ = why.get_or_insert(other),
                }
                if !is_superseded(model, change) {
                    break;
                }
            }
        }
        if parts.is_empty() {
            let nothing = || format!("is told {event:?}, which nothing brought for it");
            return Err(why.unwrap_or_else(nothing));
        }
        self.parts = parts;
        Ok(())
    }

    /// Takes that no more of `next` comes, if anything of it has come.
    fn end_revision(&mut self, model: &Model) -> Result<(), String> {
        let changes = self.changes(model);
        let is_whole = |part: &usize| changes[*part..].iter().all(|c| is_superseded(model, c));
        if !self.parts.is_empty() {
            if !self.parts.iter().any(is_whole) {
                return Err(format!("gets only a part of {}", self.next));
            }
            self.next += 1;
            self.parts.clear();
        }
        Ok(())
    }

    /// Returns what `next` brings for the watcher.
    fn changes<'a>(&self, model: &'a Model) -> Vec<&'a Change> {
        let changes = model.changes_of(self.next).iter();
        changes.filter(|c| self.wants(c)).collect()
    }

    fn wants(&self, change: &Change) -> bool {
        let left_out = match change.pair {
            Some(_) => self.request.no_put,
            None => self.request.no_delete,
        };
        self.span.has(&change.key) && !left_out
    }

    /// Returns the first revision of which something must come, from where the watcher is.
    fn due(&self, model: &Model) -> Option<i64> {
        let wanted = |change: &Change| self.wants(change) && !is_superseded(model, change);
        model.keys().next_change(self.next, wanted)
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
