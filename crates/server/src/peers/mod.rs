//! Between the engine and the links to other members.
mod arrivals;
mod digests;
mod forward;
mod images;
mod metrics;
mod monitor;
mod receiver;
mod service;
mod start;

use std::collections::BTreeMap;
use std::time::Instant;

use quorate_core::{Actions, PeerChange};
use quorate_proto::MemberId;
use quorate_transport::Transport;

pub(crate) use forward::Forward;
pub(crate) use images::States;
pub(crate) use metrics::source as metrics_source;
pub(crate) use monitor::Monitor;
pub(crate) use start::{Start, start};

/// What the engine holds of the links.
pub(crate) struct Links {
    pub(crate) transport: Transport,
    pub(crate) states: States,
    pub(crate) monitor: Monitor,
    /// Zero of the engine's clock.
    pub(crate) zero: Instant,
}

impl Links {
    /// Does what the member wants of its links.
    pub(crate) fn perform(&self, actions: &mut Actions) {
        for change in std::mem::take(&mut actions.peers) {
            self.change(change);
        }
        for source in std::mem::take(&mut actions.images) {
            self.states.put(source);
        }
        if !actions.send.is_empty() {
            self.transport.send(std::mem::take(&mut actions.send));
        }
        if actions.ask_versions {
            self.monitor.ask_versions();
        }
    }

    fn change(&self, change: PeerChange) {
        let changed = match &change {
            PeerChange::Add { id, urls } => self.transport.add_peer(*id, urls),
            PeerChange::Update { id, urls } => self.transport.update_peer(*id, urls),
            PeerChange::Remove { id } => {
                self.transport.remove_peer(*id);
                Ok(())
            }
            PeerChange::Clear => {
                self.transport.clear_peers();
                Ok(())
            }
        };
        if let Err(e) = changed {
            // The cluster took the URL without looking at it; the member is reached again once it is updated.
            tracing::error!(error = %e, "cannot change the links to a member: {change:?}");
        }
    }

    /// Returns since when links are active, in the engine's time.
    pub(crate) fn ages(&self) -> BTreeMap<MemberId, u64> {
        self.monitor.links(self.zero)
    }
}
