use super::group::Member;
use super::history::History;
use super::hub::WatchHub;
use super::watcher::State;

impl<H: History> WatchHub<H> {
    /// Moves the cursor of the synced watchers without sending them anything: each that needs what lies between goes its
    /// own way.
    pub(super) fn rebase(&mut self, live: i64) {
        if live == self.live {
            return;
        }
        let is_moved = |state: State| match state {
            State::Synced { .. } => true,
            State::Future { next } => next <= live + 1,
            State::Lagging { next } => next > live,
            State::Blocked { .. } | State::Compacted => false,
        };
        let moved: Vec<u32> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| is_moved(watcher.state))
            .map(|(at, _)| at)
            .collect();
        let cursors: Vec<(u32, i64)> = moved
            .into_iter()
            .map(|watcher| (watcher, self.unplace(watcher)))
            .collect();
        self.live = live;
        for (watcher, next) in cursors {
            self.place(watcher, next);
        }
    }

    /// Takes a watcher from where it stands and returns its cursor; the caller puts it somewhere at once.
    pub(super) fn unplace(&mut self, at: u32) -> i64 {
        let watcher = &mut self.watchers[at];
        let (stream, variant) = (watcher.stream, watcher.variant);
        match watcher.state {
            State::Synced { position } => {
                if let Some(moved) = self.groups.part(variant, position) {
                    self.watchers[moved].state = State::Synced { position };
                }
                self.live + 1
            }
            State::Future { next } => {
                self.future.remove(&(next, at));
                next
            }
            State::Lagging { next } => {
                self.lagging.remove(&(next, at));
                self.unsynced -= 1;
                self.streams.at_mut(stream).unsynced -= 1;
                next
            }
            State::Blocked { next, ticket } => {
                self.unsynced -= 1;
                let stream = self.streams.at_mut(stream);
                stream.unsynced -= 1;
                stream.blocked.remove(&ticket);
                next
            }
            State::Compacted => {
                self.streams.at_mut(stream).compacted -= 1;
                self.live + 1
            }
        }
    }

    /// Puts a watcher where its cursor belongs.
    pub(super) fn place(&mut self, at: u32, next: i64) {
        let watcher = &mut self.watchers[at];
        watcher.state = if next > self.live + 1 {
            self.future.insert((next, at));
            State::Future { next }
        } else if next == self.live + 1 {
            let member = Member {
                watch_id: watcher.watch_id,
                stream: watcher.stream,
                watcher: at,
                fragment: watcher.fragment,
                notify: watcher.notify,
            };
            State::Synced {
                position: self.groups.join(watcher.variant, member),
            }
        } else {
            self.lagging.insert((next, at));
            self.unsynced += 1;
            self.streams.at_mut(watcher.stream).unsynced += 1;
            State::Lagging { next }
        };
    }

    /// Lets a watcher wait until its stream drains.
    pub(super) fn block(&mut self, at: u32, next: i64) {
        self.unplace(at);
        self.tickets += 1;
        let ticket = self.tickets;
        let watcher = &mut self.watchers[at];
        watcher.state = State::Blocked { next, ticket };
        self.unsynced += 1;
        let stream = self.streams.at_mut(watcher.stream);
        stream.unsynced += 1;
        stream.blocked.insert(ticket, at);
    }
}
