use std::collections::BTreeMap;
use std::sync::Arc;

use super::encode::{BatchBuilder, EventBatch};
use super::group::{Flavour, Groups, VariantId};
use super::history::{History, PreviousPairs, Stretch};
use super::hub::WatchHub;
use super::message::WatchResponse;
use super::options::WatchOptions;
use super::range_index::RangeIndex;
use super::stream::Sent;
use super::watcher::State;
use crate::event_log::LogRead;
use crate::{Error, EventRecord};

/// Most ranges that are compared one by one with each key before a search tree is built of them.
const RANGES_COMPARED_MAX: usize = 4;

/// Where the next steps of catching up begin: each goes on behind the last, then round again, so that watchers far apart
/// take turns and those close together share.
#[derive(Debug, Default)]
pub(super) struct Turns {
    in_log: i64,
    in_backend: i64,
}

impl<H: History> WatchHub<H> {
    /// Takes lagging watchers one stretch further: some whose history is in the log, some whose history is not.
    pub(super) fn step_catch_up(&mut self) -> Result<(), Error> {
        if self.lagging.is_empty() {
            if self.unsynced == 0 {
                self.stretches.clear();
            }
            return Ok(());
        }
        let log_first = self.source.event_log().first_revision();
        self.cancel_compacted(log_first);
        let turn = self.turns.in_log.max(log_first);
        if let Some(from) = self
            .lagging_from(turn)
            .or_else(|| self.lagging_from(log_first))
        {
            self.turns.in_log = self.serve(from)?;
        }
        let before_log = |from: &i64| *from < log_first;
        let turn = self.turns.in_backend;
        if let Some(from) = self
            .lagging_from(turn)
            .filter(before_log)
            .or_else(|| self.lagging_from(0).filter(before_log))
        {
            self.turns.in_backend = self.serve(from)?;
        }
        Ok(())
    }

    fn lagging_from(&self, revision: i64) -> Option<i64> {
        self.lagging
            .range((revision, 0)..)
            .next()
            .map(|&(next, _)| next)
    }

    /// Cancels lagging watchers whose history is compacted. What the log still has can be sent nevertheless.
    fn cancel_compacted(&mut self, log_first: i64) {
        let compact_revision = self.source.compact_revision();
        let lost = compact_revision.min(log_first);
        let overtaken: Vec<(i64, u32)> = self
            .lagging
            .range(..(lost, 0))
            .take(self.options.watchers_per_step)
            .copied()
            .collect();
        for (next, watcher) in overtaken {
            if self.streams.at(self.watchers[watcher].stream).has_room() {
                self.cancel_as_compacted(watcher, compact_revision);
            } else {
                self.block(watcher, next);
            }
        }
    }

    /// Feeds the watchers that lag behind from a revision on with the stretch that begins there, and returns where the
    /// next turn begins.
    fn serve(&mut self, from: i64) -> Result<i64, Error> {
        let Some(stretch) = self.read_stretch(from)? else {
            // The watchers in question are cancelled by the next step.
            return Ok(from);
        };
        let in_stretch = (from, 0)..(stretch.to, 0);
        let chosen: Vec<(i64, u32)> = self
            .lagging
            .range(in_stretch.clone())
            .take(self.options.watchers_per_step)
            .copied()
            .collect();
        let mut feed = Feed::new(&stretch);
        let groups = chosen
            .iter()
            .map(|&(_, watcher)| self.watchers[watcher].variant.group);
        feed.match_groups(&self.groups, groups.collect());
        for &(next, watcher) in &chosen {
            self.feed(watcher, next, &mut feed)?;
        }
        let is_done = chosen.len() < self.options.watchers_per_step;
        Ok(if is_done { stretch.to + 1 } else { from })
    }

    /// Sends a lagging watcher what it wants of a stretch, as far as its stream has room.
    fn feed(&mut self, watcher: u32, mut next: i64, feed: &mut Feed<'_>) -> Result<(), Error> {
        let variant = self.watchers[watcher].variant;
        let flavour = self.groups.flavour(variant);
        while next < feed.stretch.to {
            let (events, then) = feed.batch(&self.source, &self.options, variant, flavour, next)?;
            if !events.is_empty() {
                let watcher_ref = &mut self.watchers[watcher];
                let (stream, id, fragment) = (
                    watcher_ref.stream,
                    watcher_ref.watch_id,
                    watcher_ref.fragment,
                );
                if self.streams.send(stream, id, fragment, self.live, &events) == Sent::Full {
                    self.block(watcher, next);
                    return Ok(());
                }
                watcher_ref.quiet = false;
            }
            next = then;
        }
        self.unplace(watcher);
        self.place(watcher, next);
        Ok(())
    }

    /// Reads the stretch from a revision on, up to the hub's cursor; none when it is compacted.
    fn read_stretch(&mut self, from: i64) -> Result<Option<Arc<Stretch>>, Error> {
        let (rows_max, bytes_max) = (self.options.stretch_rows, self.options.stretch_bytes);
        let to = self.live + 1;
        let mut revisions = Vec::new();
        if self
            .source
            .event_log()
            .read(from, to, rows_max, bytes_max, &mut revisions)
            == LogRead::Read
        {
            return Ok(Some(Arc::new(Stretch::new(from, to, revisions))));
        }
        if let Some(stretch) = self.stretches.find(from) {
            return Ok(Some(stretch));
        }
        let revisions = self.source.history(from, to, rows_max, bytes_max)?;
        // Rows may have been removed while they were read, but the compact revision moves before that.
        if from < self.source.compact_revision() {
            return Ok(None);
        }
        let stretch = Arc::new(Stretch::new(from, to, revisions));
        self.stretches.keep(&stretch, self.options.stretches_kept);
        Ok(Some(stretch))
    }

    /// Tells a watcher that it was overtaken by a compaction. It keeps its number until the client cancels it.
    ///
    /// Source: etcd v3.7.1 `server/storage/mvcc/watcher_group.go` `chooseAll`.
    pub(super) fn cancel_as_compacted(&mut self, watcher: u32, compact_revision: i64) {
        self.unplace(watcher);
        let found = &mut self.watchers[watcher];
        found.state = State::Compacted;
        let response = WatchResponse {
            watch_id: found.watch_id,
            canceled: true,
            compact_revision,
            ..WatchResponse::default()
        };
        let stream = found.stream;
        self.streams.at_mut(stream).compacted += 1;
        self.streams.push(stream, response);
    }
}

/// Hands out parts of a stretch, each encoded once.
struct Feed<'a> {
    stretch: &'a Stretch,
    /// All events, in order.
    events: Vec<&'a EventRecord>,
    /// Positions in `events` that each group watches, ascending.
    matches: BTreeMap<u32, Vec<u32>>,
    previous: PreviousPairs,
    /// What was handed out, by variant and the first match in it.
    batches: BTreeMap<(VariantId, usize), (EventBatch, i64)>,
}

impl<'a> Feed<'a> {
    fn new(stretch: &'a Stretch) -> Feed<'a> {
        Feed {
            stretch,
            events: stretch
                .revisions
                .iter()
                .flat_map(|revision| &revision.events)
                .collect(),
            matches: BTreeMap::new(),
            previous: PreviousPairs::default(),
            batches: BTreeMap::new(),
        }
    }

    /// Finds the events that each of the groups watches.
    fn match_groups(&mut self, groups: &Groups, mut wanted: Vec<u32>) {
        wanted.sort_unstable();
        wanted.dedup();
        self.matches = wanted.iter().map(|&group| (group, Vec::new())).collect();
        if wanted.len() <= RANGES_COMPARED_MAX {
            for (&group, found) in &mut self.matches {
                let range = groups.range(group);
                found.extend(
                    (0..)
                        .zip(&self.events)
                        .filter(|(_, event)| range.contains(&event.key))
                        .map(|(at, _)| at),
                );
            }
            return;
        }
        let mut index = RangeIndex::new(u64::from(wanted[0]));
        for &group in &wanted {
            index.insert(groups.range(group), group);
        }
        for (at, event) in (0..).zip(&self.events) {
            index.each_holding(&event.key, |group| {
                if let Some(found) = self.matches.get_mut(&group) {
                    found.push(at);
                }
            });
        }
    }

    /// Encodes the next events for a watcher whose cursor is `next`, and returns them with the cursor after them.
    fn batch(
        &mut self,
        source: &impl History,
        options: &WatchOptions,
        variant: VariantId,
        flavour: Flavour,
        next: i64,
    ) -> Result<(EventBatch, i64), Error> {
        let matches = &self.matches[&variant.group];
        let first = matches.partition_point(|&at| self.events[at as usize].revision.main < next);
        if let Some(batch) = self.batches.get(&(variant, first)) {
            return Ok(batch.clone());
        }
        let mut builder = BatchBuilder::default();
        let (mut revisions, mut current, mut then) = (0, 0, self.stretch.to);
        for &at in &matches[first..] {
            let event = self.events[at as usize];
            if !flavour.wants(event.kind) {
                continue;
            }
            if event.revision.main != current {
                if revisions == options.batch_revisions_max.max(1)
                    || (revisions > 0 && builder.len_bytes() >= options.batch_bytes)
                {
                    then = event.revision.main;
                    break;
                }
                revisions += 1;
                current = event.revision.main;
            }
            let prev = if flavour.prev_kv {
                self.previous.of(source, at, event)?
            } else {
                None
            };
            builder.push(event, prev.as_ref());
        }
        let batch = (builder.finish(), then);
        self.batches.insert((variant, first), batch.clone());
        Ok(batch)
    }
}
