use std::collections::BTreeMap;
use std::sync::Arc;

use super::encode::{BatchBuilder, EventBatch};
use super::group::{Flavour, VariantId};
use super::history::{History, PreviousPairs};
use super::hub::WatchHub;
use super::stream::Sent;
use crate::event_log::{LogRead, bytes_of};
use crate::{Error, EventRecord, RevisionEvents};

/// Most bytes of revisions read from the log in one step.
const STEP_BYTES_MAX: usize = 4 << 20;

/// No further revision is handed out in a step that has queued this many responses.
const STEP_RESPONSES_MAX: usize = 16 << 10;

/// What the synced watchers of a variant get of a run of revisions.
#[derive(Debug)]
struct Parcel {
    to: VariantId,
    events: EventBatch,
    /// Main revision of the last event.
    revision: i64,
}

impl<H: History> WatchHub<H> {
    /// Hands the next revisions of the log to the synced watchers, until the step is full or a stream should drain.
    ///
    /// When it fails, nothing of the run of revisions at hand was queued, and the next call tries it again.
    pub(super) fn step_live(&mut self) -> Result<(), Error> {
        let last = self.source.event_log().last_revision();
        if self.live >= last {
            return Ok(());
        }
        if self.watchers.len() == 0 {
            self.live = last;
            return Ok(());
        }
        let mut revisions = Vec::new();
        let revisions_max = self.options.live_revisions_per_step;
        let read = self.source.event_log().read(
            self.live + 1,
            i64::MAX,
            revisions_max,
            STEP_BYTES_MAX,
            &mut revisions,
        );
        if read == LogRead::Forgotten {
            // The log has run away from this hub: its watchers go on from the backend, each with its own cursor.
            self.rebase(last);
            return Ok(());
        }
        self.streams.take_crowded();
        let mut responses = 0;
        let mut rest = &revisions[..];
        while !rest.is_empty() {
            self.start_future();
            let (run, later) = rest.split_at(self.run_len(rest));
            responses += self.deliver(run)?;
            if self.streams.take_crowded() || responses >= STEP_RESPONSES_MAX {
                break;
            }
            rest = later;
        }
        Ok(())
    }

    /// Returns how many of the revisions go to each watcher in one response: what was published together is told
    /// together, which costs the client, and this member, much less than one response each.
    fn run_len(&self, revisions: &[Arc<RevisionEvents>]) -> usize {
        // Who waits for a revision is a member only once the cursor is right before it.
        let end = self.future.first().map_or(i64::MAX, |&(next, _)| next);
        let mut bytes = 0;
        let fits = |revision: &&Arc<RevisionEvents>| {
            let is_first = bytes == 0;
            bytes += bytes_of(revision);
            is_first || (revision.main < end && bytes <= self.options.live_batch_bytes)
        };
        revisions.iter().take_while(fits).count()
    }

    /// Moves the cursor of all synced watchers over a run of revisions, and returns how many responses were made.
    fn deliver(&mut self, run: &[Arc<RevisionEvents>]) -> Result<usize, Error> {
        let first = run[0].main;
        assert!(
            first == self.live + 1,
            "revision {first} after {}",
            self.live
        );
        let parcels = self.pack(run)?;
        let (mut full, mut told) = (Vec::new(), 0);
        for parcel in &parcels {
            let variant = usize::from(parcel.to.variant);
            let members = &self.groups.variants(parcel.to.group)[variant].members;
            told += members.len();
            for member in members {
                if self.streams.send(
                    member.stream,
                    member.watch_id,
                    member.fragment,
                    parcel.revision,
                    &parcel.events,
                ) == Sent::Full
                {
                    full.push(member.watcher);
                } else if member.notify {
                    self.watchers[member.watcher].quiet = false;
                }
            }
        }
        for watcher in full {
            self.block(watcher, first);
        }
        self.live = run[run.len() - 1].main;
        Ok(told)
    }

    /// Makes members of the watchers that wait for the revision after the cursor.
    fn start_future(&mut self) {
        while let Some(&(next, watcher)) = self.future.first() {
            if next > self.live + 1 {
                break;
            }
            self.unplace(watcher);
            self.place(watcher, next);
        }
    }

    /// Encodes what each variant with members gets of a run of revisions.
    fn pack(&self, run: &[Arc<RevisionEvents>]) -> Result<Vec<Parcel>, Error> {
        let events: Vec<&EventRecord> = run.iter().flat_map(|revision| &revision.events).collect();
        let mut matches: Vec<(u32, u32)> = Vec::new();
        for (at, event) in (0..).zip(&events) {
            self.groups
                .each_holding(&event.key, |group| matches.push((group, at)));
        }
        if events.len() > 1 {
            matches.sort_unstable();
        }
        let mut packer = Packer::new(&self.source, events);
        let mut parcels = Vec::new();
        for of_group in matches.chunk_by(|a, b| a.0 == b.0) {
            let group = of_group[0].0;
            for (variant, found) in (0..).zip(self.groups.variants(group)) {
                if found.members.is_empty() {
                    continue;
                }
                if let Some((events, revision)) = packer.pack(of_group, found.flavour)? {
                    parcels.push(Parcel {
                        to: VariantId { group, variant },
                        events,
                        revision,
                    });
                }
            }
        }
        Ok(parcels)
    }
}

/// Encodes events of one run of revisions, each set of them once.
struct Packer<'a, H> {
    source: &'a H,
    /// All of the run, in order.
    events: Vec<&'a EventRecord>,
    previous: PreviousPairs,
    /// All events of the run, without and with the pairs they replaced.
    whole: [Option<EventBatch>; 2],
    /// Other sets of events, by their positions and whether they carry the pairs they replaced.
    parts: BTreeMap<(Vec<u32>, bool), EventBatch>,
}

impl<'a, H: History> Packer<'a, H> {
    fn new(source: &'a H, events: Vec<&'a EventRecord>) -> Self {
        Packer {
            source,
            events,
            previous: PreviousPairs::default(),
            whole: [None, None],
            parts: BTreeMap::new(),
        }
    }

    /// Encodes those of the matched events that the flavour wants, and returns them with the revision of the last one;
    /// `None` when there is none.
    fn pack(
        &mut self,
        matched: &[(u32, u32)],
        flavour: Flavour,
    ) -> Result<Option<(EventBatch, i64)>, Error> {
        let wanted: Vec<u32> = matched
            .iter()
            .map(|&(_, at)| at)
            .filter(|&at| flavour.wants(self.events[at as usize].kind))
            .collect();
        let Some(last) = wanted.last() else {
            return Ok(None);
        };
        let revision = self.events[*last as usize].revision.main;
        let is_whole = wanted.len() == self.events.len();
        let known = if is_whole {
            self.whole[usize::from(flavour.prev_kv)].clone()
        } else {
            None
        };
        if let Some(batch) = known {
            return Ok(Some((batch, revision)));
        }
        let part = (wanted, flavour.prev_kv);
        if let Some(batch) = self.parts.get(&part) {
            return Ok(Some((batch.clone(), revision)));
        }
        let batch = self.encode(&part.0, flavour)?;
        if is_whole {
            self.whole[usize::from(flavour.prev_kv)] = Some(batch.clone());
        } else {
            self.parts.insert(part, batch.clone());
        }
        Ok(Some((batch, revision)))
    }

    fn encode(&mut self, wanted: &[u32], flavour: Flavour) -> Result<EventBatch, Error> {
        let mut builder = BatchBuilder::default();
        for &at in wanted {
            let event = self.events[at as usize];
            let prev = if flavour.prev_kv {
                self.previous.of(self.source, at, event)?
            } else {
                None
            };
            builder.push(event, prev.as_ref());
        }
        Ok(builder.finish())
    }
}
