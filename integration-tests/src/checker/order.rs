//! The order in time.

use super::judge::{Complaints, Place, Rule};
use super::record::Recording;

/// Moments at which a revision was known to exist, in order of time.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// Time and the highest revision seen until then.
    rising: Vec<(u64, i64)>,
}

impl Sightings {
    fn new(mut seen: Vec<(u64, i64)>) -> Sightings {
        seen.sort_unstable();
        let mut rising: Vec<(u64, i64)> = Vec::new();
        for (at, revision) in seen {
            if rising.last().is_none_or(|(_, highest)| revision > *highest) {
                rising.push((at, revision));
            }
        }
        Sightings { rising }
    }

    /// Everything anybody saw: answers and events.
    pub(super) fn of_all(recording: &Recording) -> Sightings {
        let answered = recording
            .calls
            .iter()
            .filter_map(|call| Some((call.ended_us, call.reply.answer()?.revision)));
        let messages = recording.watches.iter().flat_map(|watch| &watch.messages);
        let watched = messages.map(|message| {
            let events = message.events.iter().map(|event| event.kv.modified);
            (message.at_us, events.fold(message.revision, i64::max))
        });
        Sightings::new(answered.chain(watched).collect())
    }

    /// The highest revision seen before `at`.
    pub(super) fn before(&self, at: u64) -> i64 {
        let earlier = self.rising.partition_point(|(seen, _)| *seen < at);
        earlier
            .checked_sub(1)
            .map_or(0, |place| self.rising[place].1)
    }

    /// When `revision` or a later one was first seen.
    pub(super) fn first(&self, revision: i64) -> Option<u64> {
        let place = self.rising.partition_point(|(_, seen)| *seen < revision);
        self.rising.get(place).map(|(at, _)| *at)
    }
}

/// Checks that what began after a revision had been seen has its place behind it.
pub(super) fn check_time(
    recording: &Recording,
    sightings: &Sightings,
    places: &[Place],
    complaints: &mut Complaints,
) {
    for (call, place) in recording.calls.iter().zip(places) {
        let known = sightings.before(call.begun_us);
        let (found, is_late) = match place {
            Place::Write(revision) => (*revision, *revision <= known),
            Place::Read(revision) => (*revision, *revision < known),
            Place::Free | Place::Local(_) => continue,
        };
        if is_late {
            complaints.add(
                Rule::Order,
                format!("revision {known} had been seen when this began, which has its place at {found}: {call:?}"),
            );
        }
    }
}

/// Checks that serializable reads of a member in one life show at least what it had answered with before.
pub(super) fn check_members(recording: &Recording, places: &[Place], complaints: &mut Complaints) {
    let mut lives: std::collections::BTreeMap<(usize, u64), Vec<usize>> =
        std::collections::BTreeMap::new();
    for (number, call) in recording.calls.iter().enumerate() {
        if let (Some(life), Some(_)) = (call.life, call.reply.answer()) {
            lives.entry((call.member, life)).or_default().push(number);
        }
    }
    for numbers in lives.into_values() {
        let calls = || numbers.iter().map(|number| &recording.calls[*number]);
        // A lease's answer carries a revision that says nothing about what reads will show.
        let is_of_keys = |number: &usize| !matches!(places[*number], Place::Free);
        let of_keys = numbers.iter().filter(|number| is_of_keys(number));
        let seen = of_keys.filter_map(|number| {
            let call = &recording.calls[*number];
            Some((call.ended_us, call.reply.answer()?.revision))
        });
        let seen = Sightings::new(seen.collect());
        for (call, number) in calls().zip(&numbers) {
            let Place::Local(revision) = places[*number] else {
                continue;
            };
            let known = seen.before(call.begun_us);
            if revision < known {
                complaints.add(
                    Rule::Backwards,
                    format!("the member had answered at {known} when this began: {call:?}"),
                );
            }
        }
    }
}
