//! Applying committed entries and telling those who wait for them.
use prost::Message as _;
use quorate_backend::{Applied as AppliedPoint, ApplyTxn, Table};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb;
use raft::eraftpb::{Entry, EntryType};

use super::{Member, Publication};
use crate::actions::{MemberChangeKind, Notice, PeerChange};
use crate::apply::{Context, Effects};
use crate::convert::{CONF_STATE_KEY, conf_state_json, translate_change};
use crate::envelope::{self, Content};
use crate::log::Position;
use crate::waiters::Waiter;
use crate::{Applied, ChangeError, ClusterMember, Error, Outcome, Request, Token, digest};

/// A batch of entries while it is applied.
struct ApplyBatch {
    txn: ApplyTxn,
    effects: Effects,
    replies: Vec<(Waiter, Result<Applied, Error>)>,
    changes: Vec<(Token, Outcome)>,
    /// Whether a request did not fit the quota.
    out_of_space: bool,
}

impl Member {
    /// Applies a batch of committed entries, shows their effects, then tells those who wait.
    ///
    /// One transaction carries the whole batch: the backend holds all of it or nothing.
    pub(super) fn apply_committed(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        self.node.mut_store().set_snapshot_at(None);
        let mut batch = ApplyBatch {
            txn: self.stores.backend.begin_apply(last.index, last.term),
            effects: Effects::default(),
            replies: Vec::new(),
            changes: Vec::new(),
            out_of_space: false,
        };
        self.laps.start();
        for entry in entries {
            if let Err(why) = self.apply_entry(&mut batch, entry) {
                // Half a batch is in memory and nothing of it on disk. Only a restart brings the two together again.
                return self.die(format!("cannot apply entry {}: {why}", entry.index));
            }
        }
        batch.effects.cluster_changed |= self.settle_storage_version(&mut batch.txn);
        let ApplyBatch {
            txn,
            effects,
            replies,
            changes,
            out_of_space,
        } = batch;
        txn.commit(self.applied.digest);
        self.stores.publish();
        self.actions.published = true;
        self.view.set_applied(last.index);
        self.node.mut_store().set_snapshot_at(Some(Position {
            index: last.index,
            term: last.term,
        }));
        // Only now may raft take the next change of its configuration, and only then are callers told of this one.
        self.node.advance_apply_to(last.index);
        self.finish_effects(effects);
        self.actions.replies.extend(changes);
        self.finish_replies(replies, out_of_space);
        self.trim_log();
        if self.stores.backend.pending_bytes() >= self.config.flush_bytes {
            self.start_flush();
        }
    }

    fn apply_entry(&mut self, batch: &mut ApplyBatch, entry: &Entry) -> Result<(), String> {
        let expected = self.applied.index + 1;
        assert_eq!(
            entry.index, expected,
            "committed entries come in order without a gap"
        );
        let refused = match entry.get_entry_type() {
            EntryType::EntryNormal => self.apply_normal(batch, entry)?,
            EntryType::EntryConfChange => self.apply_change(batch, entry)?,
            EntryType::EntryConfChangeV2 => {
                return Err("joint configuration changes are not supported".to_owned());
            }
        };
        let revision = self.stores.kv.current_revision().cast_unsigned();
        // Which branch a transaction took may show in nothing but what it wrote.
        let content = u64::from(batch.txn.take_content());
        let effect = (revision << 1 | u64::from(refused)).rotate_left(32) ^ content;
        let digest = digest::fold_digest(self.applied.digest, entry, effect);
        self.digests.push(entry.index, digest);
        self.applied = AppliedPoint {
            index: entry.index,
            term: entry.term,
            digest,
        };
        Ok(())
    }

    /// Applies a normal entry; says whether it was refused for a reason that is the same on every member.
    fn apply_normal(&mut self, batch: &mut ApplyBatch, entry: &Entry) -> Result<bool, String> {
        if entry.data.is_empty() {
            self.begin_term(entry.term);
            return Ok(false);
        }
        let header = envelope::header(&entry.data);
        let waiter = header.as_ref().and_then(|h| self.waiters.take(h.id));
        let decoded;
        let (identity, request) = match (&waiter, header) {
            // The request was decoded when it was proposed.
            (Some(Waiter::Client { request, .. }), Some(header)) => {
                (envelope::identity_of(header), request)
            }
            _ => {
                let envelope = envelope::decode(&entry.data)?;
                match envelope.content {
                    Content::NoOp => {
                        self.note_needed_version(entry.index, &entry.data);
                        return Ok(false);
                    }
                    // Going on without it would leave this member with another state than the others.
                    Content::Unknown => {
                        return Err("it holds a request of a newer version".to_owned());
                    }
                    Content::Request(request) => decoded = request,
                }
                (envelope.identity, &*decoded)
            }
        };
        let ctx = Context {
            index: entry.index,
            now_ms: self.now_ms,
            persist_checkpoints: self.config.lease_checkpoint,
        };
        let effects = &mut batch.effects;
        let result = self.stores.apply(
            &mut batch.txn,
            ctx,
            &identity,
            request,
            &self.quota,
            effects,
        );
        self.measure_apply(request, &result);
        if let Err(error) = &result
            && error.is_fatal()
        {
            return Err(error.to_string());
        }
        if let Some(job) = effects.compaction.take() {
            self.compaction.scheduled += 1;
            self.compaction.waiting.push_back((entry.index, job));
        }
        // Whether there is space is each member's own affair: the request was applied all the same.
        let refused = matches!(&result, Err(e) if !matches!(e, Error::NoSpace));
        batch.out_of_space |= matches!(result, Err(Error::NoSpace));
        if let Some(waiter) = waiter {
            batch.replies.push((waiter, result));
        }
        Ok(refused)
    }

    /// Says whether this member leads and has applied everything of earlier terms.
    pub(super) fn has_begun_term(&self) -> bool {
        self.is_leader() && self.term_begun == self.node.raft.term
    }

    /// Takes an empty entry. The first of a term tells its leader that everything of earlier terms is applied now; later ones
    /// stand for changes of members that raft did not take while another was under way, and mean nothing: were the lessor
    /// promoted again, every lease would get its time anew.
    ///
    /// Differs from etcd: there every empty entry promotes the lessor of a leader.
    fn begin_term(&mut self, term: u64) {
        if self.is_leader() && term == self.node.raft.term && self.term_begun != term {
            self.term_begun = term;
            self.stores
                .lessor
                .promote(self.now_ms, self.config.election_timeout_ms());
            self.hurry_versions();
        }
        self.ask_read_index(true);
    }

    /// Applies a configuration change; says whether it was refused.
    ///
    /// The bytes stay etcd's everywhere; this is the one place where they are translated for raft.
    fn apply_change(&mut self, batch: &mut ApplyBatch, entry: &Entry) -> Result<bool, String> {
        let change = raftpb::ConfChange::decode(entry.data.clone()).map_err(|e| e.to_string())?;
        let refused = self.stores.cluster.validate(&change).err();
        if refused == Some(ChangeError::UnknownType) {
            return Err("it is a configuration change of a newer version".to_owned());
        }
        let own = self.config.member_id;
        let peer = if let Some(error) = refused {
            let why = error.to_string();
            self.actions.notices.push(Notice::ConfigurationRefused(why));
            None
        } else {
            let before = self.stores.cluster.member(change.node_id()).cloned();
            let applied = self.stores.cluster.apply_change(&mut batch.txn, &change);
            self.tell_change(&change, before);
            Some(applied)
        };
        if let Some(translated) = translate_change(&change, refused.is_some()) {
            let conf = self
                .node
                .apply_conf_change(&translated)
                .map_err(|e| e.to_string())?;
            batch
                .txn
                .put(Table::Meta, CONF_STATE_KEY, conf_state_json(&conf).into());
            let sorted = |ids: &[u64]| {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids
            };
            self.actions.notices.push(Notice::ConfigurationChanged {
                voters: sorted(&conf.voters),
                learners: sorted(&conf.learners),
            });
            if self.is_leader() && !conf.voters.contains(&own.0) {
                // A leader without a progress of its own panics inside raft when the next entry commits.
                let term = self.node.raft.term;
                self.node.raft.become_follower(term, 0);
            }
            self.node.mut_store().set_conf_state(conf);
        }
        match peer {
            Some(PeerChange::Remove { id }) if id == own => self.actions.removed = true,
            Some(PeerChange::Add { id, .. } | PeerChange::Update { id, .. }) if id == own => {}
            Some(peer) => self.actions.peers.push(peer),
            None => {}
        }
        self.conf_index = entry.index;
        self.show_cluster();
        if let Some(Waiter::Change { token, id, .. }) = self.waiters.take(change.id.unwrap_or(0)) {
            let outcome = match refused {
                Some(error) => Outcome::Failed(Error::Membership(error)),
                None => {
                    let kind = change.r#type().as_str_name();
                    let notice = Notice::ChangeApplied { kind, id: id.0 };
                    self.actions.notices.push(notice);
                    Outcome::Members {
                        id,
                        members: self.stores.cluster.to_wire(),
                    }
                }
            };
            batch.changes.push((token, outcome));
        }
        Ok(refused.is_some())
    }

    /// Tells what became of a member.
    fn tell_change(&mut self, change: &raftpb::ConfChange, before: Option<ClusterMember>) {
        let id = change.node_id();
        let now = self.stores.cluster.member(id).cloned();
        let kind = match (&before, &now) {
            (Some(_), None) => MemberChangeKind::Removed,
            (Some(before), Some(now)) if before.is_learner && !now.is_learner => {
                MemberChangeKind::Promoted
            }
            (Some(_), Some(_)) => MemberChangeKind::Updated,
            (None, _) => MemberChangeKind::Added,
        };
        let member = now.or(before).unwrap_or_default();
        self.actions.notices.push(Notice::MemberChanged {
            kind,
            id,
            urls: member.peer_urls,
            is_learner: member.is_learner,
        });
    }

    fn finish_effects(&mut self, effects: Effects) {
        self.view.tally().deletes.add(effects.revoked_keys);
        if effects.cluster_changed {
            let before = self.view.cluster_version();
            self.show_cluster();
            if *before != *self.stores.cluster.version() {
                self.note_cluster_version(&before);
            }
            self.hurry_versions();
        }
        if effects.alarms_changed {
            self.view.set_alarms(self.stores.alarm_list());
        }
        if !effects.revoked.is_empty() && !self.late_renewals.is_empty() {
            let (gone, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late_renewals)
                .into_iter()
                .partition(|(id, _)| effects.revoked.contains(id));
            self.late_renewals = waiting;
            for (_, token) in gone {
                self.reply(token, Outcome::LeaseRenewed { ttl_s: 0 });
            }
        }
        self.start_compaction();
    }

    /// Notes, the first time, that the cluster knows what this member publishes of itself.
    pub(super) fn finish_publishing(&mut self) {
        if self.published != Publication::Done {
            self.published = Publication::Done;
            self.actions.notices.push(Notice::Published);
            self.actions.ready = true;
        }
    }

    fn finish_replies(
        &mut self,
        replies: Vec<(Waiter, Result<Applied, Error>)>,
        out_of_space: bool,
    ) {
        let mut short_of_space = Vec::new();
        for (waiter, result) in replies {
            match waiter {
                Waiter::Client { token, request } => match result {
                    Err(Error::NoSpace)
                        if !self.stores.alarms.is_active(pb::AlarmType::Nospace) =>
                    {
                        short_of_space.push((token, Outcome::Failed(Error::NoSpace)));
                    }
                    Err(error) => self.reply(token, Outcome::Failed(error)),
                    Ok(applied) => self.reply_applied(token, &request, applied),
                },
                Waiter::Publish => self.finish_publishing(),
                Waiter::Alarm(callers) => self.actions.replies.extend(callers),
                Waiter::AutoCompaction(revision) => self.finish_auto_compaction(revision, &result),
                Waiter::Renewal(id, token) => self.renew(token, id),
                Waiter::Downgrade(token, _) => self.reply(token, Outcome::Done),
                // Only configuration changes are waited for by it, and they are answered where they are applied.
                Waiter::Internal | Waiter::Change { .. } => {}
            }
        }
        self.view.set_pending(self.waiters.len() as u64);
        let alarm_is_due = out_of_space && !self.stores.alarms.is_active(pb::AlarmType::Nospace);
        if alarm_is_due || !short_of_space.is_empty() {
            // The alarm is raised first and the callers are told afterwards, as etcd does.
            self.actions.notices.push(Notice::QuotaExceeded);
            let alarm = Request::Alarm(pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate.into(),
                member_id: self.config.member_id.0,
                alarm: pb::AlarmType::Nospace.into(),
            });
            let mut entries = Vec::new();
            self.propose_own(&alarm, Waiter::Alarm(short_of_space), &mut entries);
            self.propose(entries);
        }
    }

    fn finish_auto_compaction(&mut self, revision: i64, result: &Result<Applied, Error>) {
        if matches!(
            result,
            Ok(_) | Err(Error::Mvcc(quorate_mvcc::Error::Compacted))
        ) {
            self.auto_compactor.succeeded(self.now_ms, revision);
            self.actions
                .notices
                .push(Notice::AutoCompacted { revision });
        }
    }

    /// Answers a caller; one that asked for a physical compaction waits until it is done.
    fn reply_applied(&mut self, token: Token, request: &Request, applied: Applied) {
        let outcome = Outcome::Applied(applied);
        match request {
            Request::Compaction(r) if r.physical => {
                self.compaction
                    .callers
                    .push_back((self.compaction.scheduled, token, outcome));
            }
            _ => self.reply(token, outcome),
        }
    }
}
