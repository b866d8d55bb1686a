//! Watches against the history.

use super::judge::{Complaints, Rule};
use super::record::{Call, Event, Message, Request, Watch};
use super::truth::{Step, Truth, change_of};

/// Checks every watch.
pub(super) fn check_watches(
    calls: &[Call],
    watches: &[Watch],
    truth: &Truth,
    complaints: &mut Complaints,
) {
    let compactions = compactions(calls);
    for watch in watches {
        if let Err(text) = check_watch(&compactions, watch, truth) {
            let who = format!(
                "client {} on member {}, {:?} from {}",
                watch.client, watch.member, watch.range, watch.from
            );
            complaints.add(Rule::Watch, format!("{who}: {text}"));
        }
    }
}

/// When somebody asked for which compaction.
pub(super) fn compactions(calls: &[Call]) -> Vec<(u64, i64)> {
    let compaction = |call: &Call| match call.request {
        Request::Compact(revision) => Some((call.begun_us, revision)),
        _ => None,
    };
    calls.iter().filter_map(compaction).collect()
}

/// The next event that a watch must bring.
struct Cursor<'a> {
    truth: &'a Truth,
    watch: &'a Watch,
    revision: i64,
    place: usize,
}

impl<'a> Cursor<'a> {
    /// Moves to the next event in the watch's range, at or behind where the cursor is.
    fn peek(&mut self) -> Option<(i64, &'a Step)> {
        while self.revision <= self.truth.last() {
            let steps = self.truth.at(self.revision);
            while let Some(step) = steps.get(self.place) {
                if self.watch.range.contains(step.change.key()) {
                    return Some((self.revision, step));
                }
                self.place += 1;
            }
            self.revision += 1;
            self.place = 0;
        }
        None
    }
}

fn check_watch(asked: &[(u64, i64)], watch: &Watch, truth: &Truth) -> Result<(), String> {
    let Some(first) = watch.messages.first() else {
        return Ok(());
    };
    let begin = if watch.from == 0 {
        first.revision + 1
    } else {
        watch.from
    };
    let mut cursor = Cursor {
        truth,
        watch,
        revision: begin.max(2),
        place: 0,
    };
    for message in &watch.messages {
        check_message(asked, &mut cursor, message)?;
    }
    Ok(())
}

fn check_message(
    asked: &[(u64, i64)],
    cursor: &mut Cursor<'_>,
    message: &Message,
) -> Result<(), String> {
    if message.compacted > 0 {
        return check_cancel(asked, cursor, message);
    }
    for event in &message.events {
        check_event(asked, cursor, event, message.at_us)?;
    }
    let Some(last) = message.events.last() else {
        if message.is_created {
            return Ok(());
        }
        return match cursor.peek() {
            Some((next, _)) if next <= message.revision => Err(format!(
                "progress at {} overtakes the event of {next}",
                message.revision
            )),
            _ => {
                cursor.revision = cursor.revision.max(message.revision + 1);
                cursor.place = 0;
                Ok(())
            }
        };
    };
    match cursor.peek() {
        Some((next, _)) if next == last.kv.modified => {
            Err(format!("revision {next} comes in parts"))
        }
        _ => Ok(()),
    }
}

fn check_event(
    asked: &[(u64, i64)],
    cursor: &mut Cursor<'_>,
    event: &Event,
    at_us: u64,
) -> Result<(), String> {
    let at = event.kv.modified;
    let Some((next, step)) = cursor.peek() else {
        return Err(format!("{event:?} comes again or never happened"));
    };
    if at < next {
        return Err(format!(
            "{event:?} comes again, too late or never happened; next is {next}"
        ));
    }
    if at > next {
        return Err(format!("the event of {next} is left out before {event:?}"));
    }
    if change_of(event) != step.change {
        return Err(format!("{event:?} should be {:?}", step.change));
    }
    // What was before is not shown when it has been compacted.
    let is_compacted = |(begun, revision): &(u64, i64)| *begun < at_us && *revision >= at;
    let is_left_out = event.previous.is_none() && asked.iter().any(is_compacted);
    if cursor.watch.previous && event.previous != step.previous && !is_left_out {
        return Err(format!(
            "{event:?} has a wrong key before it, not {:?}",
            step.previous
        ));
    }
    cursor.place += 1;
    Ok(())
}

/// A watch may be cancelled for a compaction that somebody asked for, and that reaches beyond what it has seen.
fn check_cancel(
    asked: &[(u64, i64)],
    cursor: &mut Cursor<'_>,
    message: &Message,
) -> Result<(), String> {
    let is_this =
        |(begun, revision): &(u64, i64)| *begun < message.at_us && *revision == message.compacted;
    if !asked.iter().any(is_this) {
        return Err(format!(
            "cancelled for a compaction at {} that nobody asked for",
            message.compacted
        ));
    }
    if cursor.revision >= message.compacted {
        return Err(format!(
            "cancelled for a compaction at {} although it was at {}",
            message.compacted, cursor.revision
        ));
    }
    Ok(())
}
