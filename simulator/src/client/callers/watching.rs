//! Streams of watchers: they stall, they break off, they go on on another member where they were.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_auth::Operation;
use quorate_mvcc::{StreamId, WatchCreate, WatchResponse};
use quorate_proto::etcdserverpb::WatchCreateRequest;

use super::draw::signed;
use super::{Callers, Checked, STREAMS};
use crate::World;
use crate::check::{Heard, Violation, Watched};

/// Streams that are open at a time.
const STREAMS_MAX: usize = 4;
/// Watchers on a stream.
const WATCHERS_MAX: usize = 3;
/// Milliseconds that a client does not read for at most.
const STALL_MS: u64 = 1_500;
/// Milliseconds after which a member notices at most that a client is gone.
const UNNOTICED_MS: u64 = 4_000;

/// An open stream.
#[derive(Debug)]
struct Stream {
    machine: u64,
    id: StreamId,
    watchers: BTreeMap<i64, Watched>,
    next_watch_id: i64,
    /// Watchers whose end was asked for: the answer may cross with an end by a compaction.
    ending: BTreeSet<i64>,
    /// Whether its client does not read now.
    is_stalled: bool,
}

/// All streams, and watchers that wait for one.
#[derive(Debug, Default)]
pub(super) struct Watching {
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    homeless: Vec<Watched>,
    /// Streams whose clients are gone, which their members do not know yet, and when they get to know.
    abandoned: Vec<(u64, StreamId, u64)>,
}

impl Watching {
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.homeless.is_empty() && self.abandoned.is_empty()
    }

    fn number_of(&self, machine: u64, id: StreamId) -> Option<u64> {
        let mut streams = self.streams.iter();
        let found = streams.find(|(_, s)| s.machine == machine && s.id == id);
        found.map(|(number, _)| *number)
    }
}

impl Callers {
    /// Makes a watcher, on a stream that there is or on a new one.
    pub(super) fn watch(&mut self, world: &mut World, machine: u64, client: u64) -> Checked {
        let streams = &self.watching.streams;
        let with_room: Vec<u64> = streams
            .iter()
            .filter(|(_, s)| s.watchers.len() < WATCHERS_MAX)
            .map(|(number, _)| *number)
            .collect();
        let number = match self.random.pick(&with_room) {
            Some(number) if self.random.one_in(2) || streams.len() >= STREAMS_MAX => number,
            _ if streams.len() >= STREAMS_MAX => return Ok(()),
            _ => match self.open(world, machine) {
                Some(number) => number,
                None => return Ok(()),
            },
        };
        let watched = Watched::new(self.draw_watch());
        self.create(world, number, client, watched)
    }

    fn draw_watch(&mut self) -> WatchCreate {
        let (mut key, mut range_end) = self.draw_span();
        if self.random.one_in(4) {
            (key, range_end) = (Bytes::new(), "\0".into());
        }
        let newest = self.model.keys().revision();
        let start_revision = match self.random.below(6) {
            0 | 1 => 0,
            2 => newest + 1,
            3 => newest + signed(self.random.below(20)),
            4 => self.model.compact_at(self.model.index()).max(1),
            _ => 1 + signed(self.random.below(newest.cast_unsigned())),
        };
        WatchCreate {
            key,
            range_end,
            start_revision,
            progress_notify: self.random.one_in(3),
            no_put: self.random.one_in(8),
            no_delete: self.random.one_in(8),
            prev_kv: self.random.one_in(2),
            watch_id: 0,
            fragment: self.random.one_in(3),
        }
    }

    fn open(&mut self, world: &mut World, machine: u64) -> Option<u64> {
        let now_ms = world.member_now_ms(machine);
        if !world.is_ready(machine) {
            return None;
        }
        let id = world.hub(machine)?.open_stream(now_ms);
        self.watching.next_stream += 1;
        let number = self.watching.next_stream;
        let stream = Stream {
            machine,
            id,
            watchers: BTreeMap::new(),
            next_watch_id: 1,
            ending: BTreeSet::new(),
            is_stalled: false,
        };
        self.watching.streams.insert(number, stream);
        Some(number)
    }

    /// Asks for a watcher on a stream; one that is not permitted is given up.
    fn create(
        &mut self,
        world: &mut World,
        number: u64,
        client: u64,
        mut watched: Watched,
    ) -> Checked {
        let Some(machine) = self.watching.streams.get(&number).map(|s| s.machine) else {
            return Ok(());
        };
        let mut request = watched.resume();
        let wire = WatchCreateRequest {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            ..WatchCreateRequest::default()
        };
        let Some(identity) = self.identity(world, machine, client)? else {
            self.watching.homeless.push(watched);
            return Ok(());
        };
        if !self.door(world, machine, &identity, &Operation::Watch(&wire), &[])? {
            return Ok(());
        }
        let (Some(stream), Some(hub)) =
            (self.watching.streams.get_mut(&number), world.hub(machine))
        else {
            self.watching.homeless.push(watched);
            return Ok(());
        };
        request.watch_id = stream.next_watch_id;
        stream.next_watch_id += 1;
        stream.watchers.insert(request.watch_id, watched);
        let (id, from) = (stream.id, request.start_revision);
        hub.create(id, request);
        world.nudge(machine);
        world.say(|| format!("stream {number} on m{machine} gets a watcher from {from} on"));
        world.hit("watcher asked for");
        Ok(())
    }

    /// Stalls a stream, breaks one off, asks it for progress, or cancels a watcher.
    pub(super) fn disturb(&mut self, world: &mut World, machine: u64) -> Checked {
        let numbers: Vec<u64> = self.watching.streams.keys().copied().collect();
        let Some(number) = self.random.pick(&numbers) else {
            return self.resume(world, machine);
        };
        match self.random.below(6) {
            0 => {
                world.hit("watch stream broken off");
                self.break_off(world, number);
                self.resume(world, machine)
            }
            1 => {
                world.hit("watch stream stalled");
                let ms = self.random.below(STALL_MS);
                if let Some(stream) = self.watching.streams.get_mut(&number) {
                    stream.is_stalled = true;
                }
                world.wake(ms, STREAMS + number);
                Ok(())
            }
            2 => {
                self.cancel_one(world, number);
                Ok(())
            }
            _ => {
                if let Some(stream) = self.watching.streams.get(&number)
                    && let Some(hub) = world.hub(stream.machine)
                {
                    hub.request_progress(stream.id);
                    world.nudge(stream.machine);
                }
                Ok(())
            }
        }
    }

    fn cancel_one(&mut self, world: &mut World, number: u64) {
        let Some(stream) = self.watching.streams.get_mut(&number) else {
            return;
        };
        let ids: Vec<i64> = stream.watchers.keys().copied().collect();
        if let Some(watch_id) = self.random.pick(&ids)
            && let Some(hub) = world.hub(stream.machine)
        {
            stream.ending.insert(watch_id);
            hub.cancel(stream.id, watch_id);
            world.nudge(stream.machine);
        }
    }

    /// Ends a stream; its watchers wait for another.
    fn break_off(&mut self, world: &mut World, number: u64) {
        let Some(stream) = self.watching.streams.remove(&number) else {
            return;
        };
        if let Some(hub) = world.hub(stream.machine) {
            hub.close_stream(stream.id);
            world.nudge(stream.machine);
        }
        self.watching.homeless.extend(stream.watchers.into_values());
    }

    /// Takes that connections to a member broke: watchers go on elsewhere, and nobody reads what the member still has for them.
    pub(super) fn abandon(&mut self, world: &mut World, machine: u64) {
        for (number, stream) in std::mem::take(&mut self.watching.streams) {
            if stream.machine != machine {
                self.watching.streams.insert(number, stream);
                continue;
            }
            world.hit("watch stream left open by a client that is gone");
            let until_ms = world.now_ms() + self.random.below(UNNOTICED_MS);
            let left = (machine, stream.id, until_ms);
            self.watching.abandoned.push(left);
            self.watching.homeless.extend(stream.watchers.into_values());
        }
    }

    /// Closes streams whose clients are gone, once their members know.
    fn close_abandoned(&mut self, world: &mut World) {
        let (now_ms, is_stopped) = (world.now_ms(), self.is_stopped);
        let is_due = |at: &mut (u64, StreamId, u64)| is_stopped || at.2 <= now_ms;
        for (machine, id, _) in self.watching.abandoned.extract_if(.., is_due) {
            if let Some(hub) = world.hub(machine) {
                hub.close_stream(id);
                world.nudge(machine);
            }
        }
    }

    pub(super) fn streams_ended(&mut self, machine: u64) {
        self.watching.abandoned.retain(|(at, ..)| *at != machine);
        let streams = std::mem::take(&mut self.watching.streams);
        for (number, stream) in streams {
            if stream.machine == machine {
                self.watching.homeless.extend(stream.watchers.into_values());
            } else {
                self.watching.streams.insert(number, stream);
            }
        }
    }

    /// Gives watchers without a stream a new one.
    fn resume(&mut self, world: &mut World, machine: u64) -> Checked {
        if self.watching.homeless.is_empty() {
            return Ok(());
        }
        let Some(number) = self.open(world, machine) else {
            return Ok(());
        };
        for watched in std::mem::take(&mut self.watching.homeless) {
            world.hit("watcher resumed elsewhere");
            self.create(world, number, 0, watched)?;
        }
        Ok(())
    }

    pub(super) fn unstall(&mut self, world: &mut World, number: u64) -> Checked {
        let Some(stream) = self.watching.streams.get_mut(&number) else {
            return Ok(());
        };
        stream.is_stalled = false;
        let (machine, id) = (stream.machine, stream.id);
        self.take(world, machine, id)
    }

    /// Reads what a stream has.
    pub(super) fn take(&mut self, world: &mut World, machine: u64, id: StreamId) -> Checked {
        let Some(number) = self.watching.number_of(machine, id) else {
            return Ok(());
        };
        let bytes_max = self.random.choose(&[1, 300, 1 << 20]);
        let Some(stream) = self.watching.streams.get_mut(&number) else {
            return Ok(());
        };
        if stream.is_stalled {
            return Ok(());
        }
        let Some(hub) = world.hub(machine) else {
            return Ok(());
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        for response in hub.take(id, bytes_max) {
            self.hear(world, number, &response)?;
        }
        world.nudge(machine);
        Ok(())
    }

    fn hear(&mut self, world: &mut World, number: u64, response: &WatchResponse) -> Checked {
        let Some(stream) = self.watching.streams.get_mut(&number) else {
            return Ok(());
        };
        let machine = stream.machine;
        world.say(|| {
            format!(
                "stream {number} on m{machine} hears of watcher {} at revision {}: {} events{}{}",
                response.watch_id,
                response.revision,
                response.events.len(),
                if response.created { ", created" } else { "" },
                if response.canceled { ", canceled" } else { "" },
            )
        });
        world.witness(response);
        if response.watch_id == WatchResponse::NO_WATCH_ID {
            return progress(stream, &self.model, response, world);
        }
        let Some(watched) = stream.watchers.get_mut(&response.watch_id) else {
            if response.canceled && stream.ending.contains(&response.watch_id) {
                return Ok(());
            }
            let text = format!(
                "stream {number} on m{machine} hears of a watcher it has not: {response:?}"
            );
            return Err(Violation::new("watch promises", text));
        };
        if response.fragment {
            world.hit("watch response in fragments");
        }
        match watched.hear(&self.model, response)? {
            Heard::Created => world.hit("watcher created"),
            Heard::Events(_) => world.hit("watcher told of events"),
            Heard::Progress => world.hit("watcher told of progress"),
            Heard::Canceled => {
                world.hit("watcher canceled");
                stream.watchers.remove(&response.watch_id);
            }
            Heard::Compacted => {
                world.hit("watcher overtaken by a compaction");
                stream.watchers.remove(&response.watch_id);
            }
        }
        Ok(())
    }

    /// Lets streams go on that have nowhere to go, and ends what is complete once nothing new is begun.
    pub(super) fn look_after_streams(&mut self, world: &mut World) -> Checked {
        self.close_abandoned(world);
        let ready = world.ready();
        let is_due = self.is_stopped || self.random.one_in(5);
        if let Some(machine) = self.random.pick(&ready)
            && is_due
        {
            self.resume(world, machine)?;
        }
        if !self.is_stopped {
            return Ok(());
        }
        let numbers: Vec<u64> = self.watching.streams.keys().copied().collect();
        for number in numbers {
            let Some(stream) = self.watching.streams.get_mut(&number) else {
                continue;
            };
            stream.is_stalled = false;
            let (machine, id) = (stream.machine, stream.id);
            self.take(world, machine, id)?;
            let Some(stream) = self.watching.streams.get(&number) else {
                continue;
            };
            if stream.watchers.values().all(|w| w.is_complete(&self.model)) {
                world.hit("watch stream complete at the end");
                if let Some(hub) = world.hub(machine) {
                    hub.close_stream(id);
                    world.nudge(machine);
                }
                self.watching.streams.remove(&number);
            }
        }
        Ok(())
    }
}

/// Takes progress of a whole stream.
fn progress(
    stream: &mut Stream,
    model: &crate::model::Model,
    response: &WatchResponse,
    world: &mut World,
) -> Checked {
    let broken = |why: String| {
        let text = format!("a stream {why}: {response:?}");
        Violation::new("watch promises", text)
    };
    let is_progress = !response.created && !response.canceled && response.events.is_empty();
    if !is_progress {
        return Err(broken("is told something of no watcher".to_owned()));
    }
    // One that was asked for behind the progress is not meant.
    for watched in stream.watchers.values_mut().filter(|w| w.is_created()) {
        watched.progress(model, response.revision).map_err(broken)?;
    }
    world.hit("stream told of progress");
    Ok(())
}
