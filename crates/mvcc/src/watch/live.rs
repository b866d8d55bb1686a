use std::collections::BTreeMap;

use super::encode::{BatchBuilder, EventBatch};
use super::group::{Flavour, VariantId};
use super::history::{History, PreviousPairs};
use super::hub::WatchHub;
use super::stream::Sent;
use crate::event_log::LogRead;
use crate::{Error, RevisionEvents};

/// Most bytes of revisions read from the log in one step.
const STEP_BYTES_MAX: usize = 4 << 20;

/// No further revision is handed out in a step that has queued this many responses.
const STEP_RESPONSES_MAX: usize = 16 << 10;

/// What the synced watchers of a variant get of one revision.
#[derive(Debug)]
struct Parcel {
    to: VariantId,
    events: EventBatch,
}

impl<H: History> WatchHub<H> {
    /// Hands the next revisions of the log to the synced watchers, until the step is full or a stream should drain.
    ///
    /// When it fails, nothing of the revision at hand was queued, and the next call tries it again.
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
        for revision in &revisions {
            responses += self.deliver(revision)?;
            if self.streams.take_crowded() || responses >= STEP_RESPONSES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Moves the cursor of all synced watchers over one revision, and returns how many are told of it.
    fn deliver(&mut self, revision: &RevisionEvents) -> Result<usize, Error> {
        assert!(
            revision.main == self.live + 1,
            "revision {} after {}",
            revision.main,
            self.live
        );
        self.start_future();
        let parcels = self.pack(revision)?;
        let (mut full, mut told) = (Vec::new(), 0);
        for Parcel { to, events } in &parcels {
            let members = &self.groups.variants(to.group)[usize::from(to.variant)].members;
            told += members.len();
            for member in members {
                if self.streams.send(
                    member.stream,
                    member.watch_id,
                    member.fragment,
                    revision.main,
                    events,
                ) == Sent::Full
                {
                    full.push(member.watcher);
                } else if member.notify {
                    self.watchers[member.watcher].quiet = false;
                }
            }
        }
        for watcher in full {
            self.block(watcher, revision.main);
        }
        self.live = revision.main;
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

    /// Encodes what each variant with members gets of a revision.
    fn pack(&self, revision: &RevisionEvents) -> Result<Vec<Parcel>, Error> {
        let mut matches: Vec<(u32, u32)> = Vec::new();
        for (event, record) in (0..).zip(&revision.events) {
            self.groups
                .each_holding(&record.key, |group| matches.push((group, event)));
        }
        if revision.events.len() > 1 {
            matches.sort_unstable();
        }
        let mut packer = Packer::new(&self.source, revision);
        let mut parcels = Vec::new();
        for of_group in matches.chunk_by(|a, b| a.0 == b.0) {
            let group = of_group[0].0;
            for (variant, found) in (0..).zip(self.groups.variants(group)) {
                if found.members.is_empty() {
                    continue;
                }
                let events = packer.pack(of_group, found.flavour)?;
                if !events.is_empty() {
                    parcels.push(Parcel {
                        to: VariantId { group, variant },
                        events,
                    });
                }
            }
        }
        Ok(parcels)
    }
}

/// Encodes events of one revision, each set of them once.
struct Packer<'a, H> {
    source: &'a H,
    revision: &'a RevisionEvents,
    previous: PreviousPairs,
    /// All events of the revision, without and with the pairs they replaced.
    whole: [Option<EventBatch>; 2],
    /// Single events, by their position and whether they carry the pair they replaced.
    singles: BTreeMap<(u32, bool), EventBatch>,
}

impl<'a, H: History> Packer<'a, H> {
    fn new(source: &'a H, revision: &'a RevisionEvents) -> Self {
        Packer {
            source,
            revision,
            previous: PreviousPairs::default(),
            whole: [None, None],
            singles: BTreeMap::new(),
        }
    }

    /// Encodes those of the matched events that the flavour wants.
    fn pack(&mut self, matched: &[(u32, u32)], flavour: Flavour) -> Result<EventBatch, Error> {
        let kind = |event: u32| self.revision.events[event as usize].kind;
        let mut wanted = matched
            .iter()
            .map(|&(_, event)| event)
            .filter(|&event| flavour.wants(kind(event)));
        let count = wanted.clone().count();
        if count == self.revision.events.len() {
            if let Some(whole) = &self.whole[usize::from(flavour.prev_kv)] {
                return Ok(whole.clone());
            }
            let whole = self.encode(matched, flavour)?;
            self.whole[usize::from(flavour.prev_kv)] = Some(whole.clone());
            return Ok(whole);
        }
        if count != 1 {
            return self.encode(matched, flavour);
        }
        let single = (wanted.next().unwrap_or_default(), flavour.prev_kv);
        if let Some(batch) = self.singles.get(&single) {
            return Ok(batch.clone());
        }
        let batch = self.encode(matched, flavour)?;
        self.singles.insert(single, batch.clone());
        Ok(batch)
    }

    fn encode(&mut self, matched: &[(u32, u32)], flavour: Flavour) -> Result<EventBatch, Error> {
        let mut builder = BatchBuilder::default();
        for &(_, event) in matched {
            let record = &self.revision.events[event as usize];
            if !flavour.wants(record.kind) {
                continue;
            }
            let prev = if flavour.prev_kv {
                self.previous.of(self.source, event, record)?
            } else {
                None
            };
            builder.push(record, prev.as_ref());
        }
        Ok(builder.finish())
    }
}
