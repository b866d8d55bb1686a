//! Looks at a member after every step, and gathers what the cluster has agreed on.
use super::{Committed, Note, Origin, World};
use crate::check::Violation;
use crate::node::DIFFERS;

impl World {
    /// Looks at a member: invariants, and entries that are newly committed.
    pub(super) fn observe(&mut self, number: u64) {
        let Some(machine) = self.machines.get_mut(&number) else {
            return;
        };
        let Some(running) = machine.running.as_mut() else {
            return;
        };
        let view = running.member.view();
        let leads = running.member.leads();
        let (began, ended) = (leads && !running.led, !leads && running.led);
        let committed = view.committed();
        let in_flight = view.proposals_pending() > 0 && view.appended() > committed;
        self.configuration.learn(&view);
        running.led = leads;
        running.applied = view.applied();
        let goes_astray = machine.damage == Some(DIFFERS);
        let mut violation = self.invariants.look(number, running, goes_astray);
        // Who learns late that it won an old term owes nothing of what later terms committed.
        if began && self.invariants.is_newest_term(view.term()) {
            violation = violation.or_else(|| {
                complete(
                    number,
                    &machine.log,
                    &self.committed,
                    running.member.view().applied(),
                )
            });
        }
        let mut fresh = Vec::new();
        while violation.is_none()
            && let Some(first) = machine.log.first_entry()
            && *first.key() <= committed
        {
            let known = usize::try_from(*first.key() - 1)
                .ok()
                .and_then(|at| self.committed.get(at));
            match known {
                Some(known) if *known == *first.get() => {
                    first.remove();
                }
                Some(known) => violation = Some(differs(number, known, first.get())),
                None if *first.key() == self.committed.len() as u64 + 1 => {
                    let entry = first.remove();
                    fresh.push(entry.clone());
                    self.committed.push(entry);
                }
                // What lies before it came with a snapshot that nobody else has told of yet.
                None => break,
            }
        }
        if ended && in_flight {
            self.hit("leader deposed with writes in flight");
        }
        self.tell_committed(number, fresh);
        if let Some(violation) = violation {
            self.fail(violation);
        }
    }

    /// Tells the workload of entries that are newly committed.
    fn tell_committed(&mut self, number: u64, fresh: Vec<Committed>) {
        let term = self.running(number).map_or(0, |r| r.member.view().term());
        for entry in fresh {
            let origin = self.unsettled.get(&(entry.index, entry.term));
            let unknown = Origin {
                applied: entry.index - 1,
                at_ms: self.now_ms,
                ..Origin::default()
            };
            self.origins.push(origin.copied().unwrap_or(unknown));
            if entry.term < term {
                self.hit("log entry committed by another leader");
            }
            self.fold_entry(&entry);
            self.notes.push_back(Note::Committed(entry));
        }
        let newest = self.committed.len() as u64;
        while let Some(first) = self.unsettled.first_entry()
            && first.key().0 <= newest
        {
            first.remove();
        }
    }
}

fn differs(number: u64, known: &Committed, found: &Committed) -> Violation {
    let text = format!(
        "entry {} of term {} was committed, but m{number} commits one of term {} ({} and {} bytes)",
        known.index,
        known.term,
        found.term,
        known.data.len(),
        found.data.len()
    );
    Violation::new("log matching", text)
}

/// A leader has all that was ever committed.
fn complete(
    number: u64,
    log: &std::collections::BTreeMap<u64, Committed>,
    committed: &[Committed],
    applied: u64,
) -> Option<Violation> {
    let newest = committed.last()?;
    let is_known = applied >= newest.index || log.get(&newest.index).is_none_or(|e| e == newest);
    let last = log.last_key_value().map_or(u64::MAX, |(index, _)| *index);
    let is_there = is_known && last >= newest.index;
    (!is_there).then(|| {
        let text = format!(
            "m{number} leads, but entry {} of term {} is committed and not in its log, which ends at {last}",
            newest.index, newest.term
        );
        Violation::new("leader completeness", text)
    })
}
