use std::ops::Bound;

use super::history::History;
use super::hub::WatchHub;
use super::message::WatchResponse;
use super::watcher::State;

/// A round of periodic progress that is under way on a stream.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) stream: u32,
    /// The last watcher told.
    pub(super) after: Option<i64>,
}

impl<H: History> WatchHub<H> {
    /// Goes on with rounds of periodic progress: watchers that are synced, have reached their start revision and were
    /// sent nothing since the last round are told how far they are. On a full stream they are not, as in etcd.
    ///
    /// Source: etcd v3.7.1 `server/etcdserver/api/v3rpc/watch.go` `sendLoop`.
    pub(super) fn step_progress(&mut self) {
        let mut left = self.options.watchers_per_step;
        while left > 0 {
            let Some(round) = self.rounds.front_mut() else {
                return;
            };
            let stream = round.stream;
            let from = round.after.map_or(Bound::Unbounded, Bound::Excluded);
            let notified = &self.streams.at(stream).notified;
            let found = notified
                .range((from, Bound::Unbounded))
                .next()
                .map(|(&id, &watcher)| (id, watcher));
            let Some((watch_id, watcher)) = found else {
                self.streams.at_mut(stream).in_round = false;
                self.rounds.pop_front();
                continue;
            };
            round.after = Some(watch_id);
            left -= 1;
            let watcher = &mut self.watchers[watcher];
            let is_synced = matches!(watcher.state, State::Synced { .. })
                && watcher.start_revision <= self.live;
            if watcher.quiet && is_synced && self.streams.at(stream).has_room() {
                let response = WatchResponse {
                    watch_id,
                    revision: self.live,
                    ..WatchResponse::default()
                };
                self.streams.push(stream, response);
            }
            watcher.quiet = true;
        }
    }

    /// Answers a client that asks how far all its watchers are, if they all are at the hub's cursor.
    ///
    /// Source: etcd v3.7.1 `server/storage/mvcc/watchable_store.go` `progressIfSync`.
    pub(super) fn answer_progress(&mut self, at: u32) {
        let live = self.live;
        let stream = self.streams.at_mut(at);
        let all_synced = stream.unsynced == 0 && stream.compacted == 0 && stream.has_started(live);
        if !stream.watchers.is_empty() && all_synced && stream.has_room() {
            let watch_id = WatchResponse::NO_WATCH_ID;
            self.streams.push(
                at,
                WatchResponse {
                    watch_id,
                    revision: live,
                    ..WatchResponse::default()
                },
            );
        }
    }
}
