//! Defragmentations of a member's database: each step is an event beside all others.
use quorate_backend::{DefragmentOptions, Defragmenting, Error};

use super::{Event, World};

impl World {
    /// Begins to defragment a member's database in steps of so many bytes, unless it is being done. Whoever asked need not
    /// wait, as with the server.
    pub fn defragment(&mut self, number: u64, step_bytes: u64) {
        let Some(running) = self.running(number) else {
            return;
        };
        if running.defragmentation.is_some() {
            return;
        }
        let options = DefragmentOptions {
            step_bytes: usize::try_from(step_bytes).unwrap_or(usize::MAX),
            gain_bytes_min: 0,
        };
        // It refuses only after a failed write, which ends the member at its next flush.
        if let Ok(job) = running.member.stores().backend.defragment(options) {
            running.defragmentation = Some(job);
            self.say(|| format!("m{number} begins to defragment its database"));
            self.after_disk(number, Event::Defragment);
        }
    }

    pub(super) fn defragment_step(&mut self, number: u64) -> Result<(), String> {
        let Some(running) = self.running(number) else {
            return Ok(());
        };
        let Some(job) = running.defragmentation.take() else {
            return Ok(());
        };
        let (compacts, flushes) = (running.compaction.is_some(), running.flush.is_some());
        match job.step() {
            Ok(Defragmenting::More(job)) => {
                running.defragmentation = Some(job);
                self.after_disk(number, Event::Defragment);
            }
            Ok(Defragmenting::Done(done)) => {
                self.say(|| format!("m{number} has defragmented its database: {done:?}"));
                for (is, name) in [
                    (done.copied, "database defragmented"),
                    (done.copied && compacts, "defragmented while compacting"),
                    (done.copied && flushes, "defragmented while flushing"),
                ] {
                    if is {
                        self.hit(name);
                    }
                }
            }
            Err(Error::Replaced) => {
                self.say(|| {
                    format!("m{number} gives up defragmenting a database that is replaced")
                });
            }
            // The member goes on; should nothing more become durable, its next flush says so.
            Err(error) if self.may_fail(number) => {
                self.say(|| format!("m{number} fails to defragment its database: {error}"));
            }
            Err(error) => return Err(format!("cannot defragment the database: {error}")),
        }
        Ok(())
    }

    fn after_disk(&mut self, number: u64, event: Event) {
        let ms = self.disk_ms(number, 1);
        self.after(ms, number, event);
    }
}
