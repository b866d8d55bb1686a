//! Changes of members, of the cluster's version, and what waits until everything committed is applied.
use bytes::Bytes;
use prost::Message as _;
use quorate_backend::ApplyTxn;
use quorate_proto::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use quorate_proto::{LeaseId, MemberId};
use raft::eraftpb::{Entry, EntryType};

use super::Member;
use crate::actions::Notice;
use crate::convert::normal_entry;
use crate::envelope;
use crate::membership::{self, Facts};
use crate::read_index::Then;
use crate::versions::{self, Version};
use crate::waiters::Waiter;
use crate::{DowngradeAction, Error, MemberChange, Outcome, Request, Token};

/// How long something waits until everything committed is applied. Source: etcd v3.7.1 applyTimeout.
const WAIT_APPLIED_MS: u64 = 1_000;
/// How often the leader asks members for their versions. Source: etcd v3.7.1 monitorVersionInterval.
const ASK_VERSIONS_MS: u64 = 4_000;

/// What waits until everything committed when it came is applied.
#[derive(Debug)]
pub(super) struct Parked {
    index: u64,
    ends_ms: u64,
    token: Token,
    what: ParkedWork,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ParkedWork {
    Renew(LeaseId),
    TimeToLive { id: LeaseId, keys: bool },
    Promote(MemberId),
}

/// What the leader knows of versions.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// When members are to be asked next.
    ask_ms: u64,
    /// A version was proposed; until then it is not proposed again.
    proposed_until_ms: u64,
    /// The version that an entry behind the last snapshot needs, and its index.
    needed: Option<(Version, u64)>,
    /// When it may be told again that the storage version stays behind.
    tell_ms: u64,
    /// When the next look at the downgrade under way is due.
    look_ms: u64,
    /// Whether it has come: the next answers are looked at.
    is_look_due: bool,
}

impl Versions {
    pub(super) fn new(look_ms: u64) -> Self {
        Self {
            look_ms,
            ..Self::default()
        }
    }
}

impl Member {
    /// Proposes a change of members, unless etcd's checks refuse it.
    pub(super) fn change_members(
        &mut self,
        token: Token,
        change: MemberChange,
        entries: &mut Vec<Entry>,
    ) {
        if let MemberChange::Promote { id } = change {
            if !self.is_leader() {
                let error = self.not_leader();
                return self.reply(token, Outcome::Failed(error));
            }
            if self.must_wait_for_applied() {
                return self.park(token, ParkedWork::Promote(id));
            }
            if let Err(error) = self.check_learner(id) {
                return self.reply(token, Outcome::Failed(error));
            }
        }
        if let Err(error) = self.check_change(&change) {
            return self.reply(token, Outcome::Failed(error));
        }
        let request_id = self.ids.next();
        let unix_s = (self.config.start_unix_ms + (self.now_ms - self.started_ms)) / 1_000;
        let (change, id) = membership::to_log(change, request_id, unix_s);
        let data: Bytes = change.encode_to_vec().into();
        let waiter = Waiter::Change {
            token,
            id,
            data: data.clone(),
        };
        self.waiters.register_endless(request_id, waiter);
        let mut entry = normal_entry(data);
        entry.set_entry_type(EntryType::EntryConfChange);
        entries.push(entry);
    }

    fn check_change(&self, change: &MemberChange) -> Result<(), Error> {
        if !self.config.strict_reconfig_check {
            return Ok(());
        }
        let facts = Facts {
            cluster: &self.stores.cluster,
            links: &self.links,
            own: self.config.member_id,
            now_ms: self.now_ms,
        };
        facts.check(change)
    }

    /// Checks that a learner has nine tenths of the leader's log. Source: etcd v3.7.1 server.go isLearnerReady.
    fn check_learner(&self, id: MemberId) -> Result<(), Error> {
        let prs = self.node.raft.prs();
        let matched = |id: MemberId| prs.get(id.0).map(|p| p.matched);
        let learner = matched(id).ok_or(Error::Membership(crate::ChangeError::IdNotFound))?;
        let leader = matched(self.config.member_id).unwrap_or(0);
        if learner.saturating_mul(10) < leader.saturating_mul(9) {
            Err(Error::LearnerNotReady)
        } else {
            Ok(())
        }
    }

    /// Says whether something committed is not applied yet.
    pub(super) fn must_wait_for_applied(&self) -> bool {
        self.applied.index < self.node.raft.raft_log.committed
    }

    pub(super) fn park(&mut self, token: Token, what: ParkedWork) {
        if self.parked.len() >= self.config.bounds.parked {
            return self.reply(token, Outcome::Failed(Error::TooManyRequests));
        }
        self.parked.push(Parked {
            index: self.node.raft.raft_log.committed,
            ends_ms: self.now_ms + WAIT_APPLIED_MS,
            token,
            what,
        });
    }

    /// Does what waited for what is applied by now, and ends what waited too long.
    pub(super) fn finish_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let (applied, now_ms) = (self.applied.index, self.now_ms);
        let mut entries = Vec::new();
        for parked in std::mem::take(&mut self.parked) {
            let token = parked.token;
            if parked.index <= applied {
                match parked.what {
                    ParkedWork::Renew(id) => self.renew_now(token, id),
                    ParkedWork::TimeToLive { id, keys } => self.time_to_live_now(token, id, keys),
                    ParkedWork::Promote(id) => {
                        self.change_members(token, MemberChange::Promote { id }, &mut entries);
                    }
                }
            } else if parked.ends_ms <= now_ms {
                self.reply(token, Outcome::Failed(Error::TimeoutWaitApplied));
            } else {
                self.parked.push(parked);
            }
        }
        self.propose(entries);
    }

    pub(super) fn cancel_parked(&mut self, token: Token) {
        self.parked.retain(|p| p.token != token);
    }

    pub(super) fn drain_parked(&mut self) -> Vec<Token> {
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().map(|p| p.token).collect()
    }

    /// Begins what is asked about a downgrade; it goes on when reads are linearizable.
    ///
    /// Source: etcd v3.7.1 v3_server.go Downgrade.
    pub(super) fn downgrade(&mut self, token: Token, action: DowngradeAction, version: &str) {
        let target = match action {
            DowngradeAction::Cancel => Some(versions::MIN_CLUSTER_VERSION),
            _ => Version::parse_target(version),
        };
        let Some(target) = target else {
            return self.reply(token, Outcome::Failed(Error::WrongDowngradeVersion));
        };
        if action != DowngradeAction::Cancel && self.stores.cluster.parsed_version().is_none() {
            return self.reply(token, Outcome::Failed(Error::ClusterVersionUnavailable));
        }
        self.join_read(token, Then::Downgrade(action, target));
    }

    /// Goes on with a downgrade: the cluster's version and what is under way are known for sure now.
    pub(super) fn downgrade_now(&mut self, token: Token, action: DowngradeAction, target: Version) {
        let cluster = &self.stores.cluster;
        let under_way = cluster.downgrade().is_some();
        let refused = match action {
            // That there is nothing to end is only worth a line in etcd's log.
            DowngradeAction::Cancel if !under_way => return self.reply(token, Outcome::Done),
            DowngradeAction::Cancel => None,
            _ if cluster.parsed_version().and_then(Version::one_down) != Some(target) => {
                Some(Error::InvalidDowngradeTarget)
            }
            _ if under_way => Some(Error::DowngradeInProcess),
            DowngradeAction::Validate => return self.reply(token, Outcome::Done),
            DowngradeAction::Enable => None,
        };
        if let Some(error) = refused {
            return self.reply(token, Outcome::Failed(error));
        }
        let enabled = action == DowngradeAction::Enable;
        let ver = if enabled {
            target.to_string()
        } else {
            String::new()
        };
        let request = Request::DowngradeInfoSet(DowngradeInfoSetRequest { enabled, ver });
        let mut entries = Vec::new();
        self.propose_own(&request, Waiter::Downgrade(token, action), &mut entries);
        self.propose(entries);
    }

    /// Takes the server versions of other members as they answered, `None` of those that did not, and settles the
    /// cluster's version. Ignored where this member does not lead.
    pub fn handle_member_versions(&mut self, answers: &[(MemberId, Option<String>)]) {
        if self.dead || !self.has_begun_term() {
            return;
        }
        let own = self.config.member_id;
        let version_of = |id: MemberId| {
            if id == own {
                return Version::parse(&self.config.cluster_version);
            }
            let answer = answers.iter().find(|(of, _)| *of == id)?;
            Version::parse(answer.1.as_deref()?)
        };
        let ids = self.stores.cluster.members().map(|m| MemberId(m.id));
        let versions: Vec<_> = ids.map(|id| (id, version_of(id))).collect();
        let mut entries = Vec::new();
        self.settle_version(&versions, &mut entries);
        self.propose(entries);
        self.drive();
    }

    /// Proposes another cluster version, or the end of a downgrade that is complete, when it is time for it.
    fn settle_version(
        &mut self,
        members: &[(MemberId, Option<Version>)],
        entries: &mut Vec<Entry>,
    ) {
        if self.now_ms < self.versions.proposed_until_ms {
            return;
        }
        let looks = std::mem::take(&mut self.versions.is_look_due);
        let cluster = &self.stores.cluster;
        let target = cluster.downgrade();
        let request = match versions::decide(cluster.parsed_version(), target, members) {
            Some(version) => {
                self.actions.notices.push(Notice::VersionProposed {
                    before: cluster.version().to_owned(),
                    version: version.to_string(),
                });
                Request::ClusterVersionSet(ClusterVersionSetRequest {
                    ver: version.to_string(),
                })
            }
            None => match target.filter(|target| looks && versions::all_run(*target, members)) {
                None => return,
                Some(target) => {
                    let notice = Notice::Downgraded(target.to_string());
                    self.actions.notices.push(notice);
                    Request::DowngradeInfoSet(DowngradeInfoSetRequest {
                        enabled: false,
                        ver: String::new(),
                    })
                }
            },
        };
        self.versions.proposed_until_ms = self.now_ms + self.config.request_timeout_ms();
        self.propose_own(&request, Waiter::Internal, entries);
    }

    /// Has the versions of members asked for when it is time; a member that is alone knows them.
    pub(super) fn watch_versions(&mut self, entries: &mut Vec<Entry>) {
        self.look_at_downgrade();
        if self.stores.cluster.members().count() == 1 {
            let own = Version::parse(&self.config.cluster_version);
            return self.settle_version(&[(self.config.member_id, own)], entries);
        }
        if self.now_ms >= self.versions.ask_ms {
            self.versions.ask_ms = self.now_ms + ASK_VERSIONS_MS;
            self.actions.ask_versions = true;
        }
    }

    /// Has a look taken, every so often, at whether a downgrade is complete.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/server.go monitorDowngrade.
    fn look_at_downgrade(&mut self) {
        let every_ms = self.config.downgrade_check_ms;
        if every_ms > 0 && self.now_ms >= self.versions.look_ms {
            self.versions.look_ms = self.now_ms + every_ms;
            if self.stores.cluster.downgrade().is_some() {
                self.versions.is_look_due = true;
                self.versions.ask_ms = 0;
            }
        }
    }

    /// Has them asked for at once: a term began, or the cluster's version has changed.
    pub(super) fn hurry_versions(&mut self) {
        self.versions.ask_ms = 0;
        self.versions.proposed_until_ms = 0;
    }

    /// Takes an entry that needs a version.
    ///
    /// Only etcd's test of downgrades counts: a cluster of this version goes down to the version before at most, which
    /// knows everything else that entries hold.
    pub(super) fn note_needed_version(&mut self, index: u64, data: &[u8]) {
        let Some(version) = envelope::tested_version(data) else {
            return;
        };
        let before = self.versions.needed.map(|(version, _)| version);
        self.versions.needed = Some((before.map_or(version, |b| b.max(version)), index));
    }

    /// Takes what entries behind the last snapshot need that are applied already.
    pub(super) fn note_needed_versions(&mut self) {
        let applied = self.applied.index;
        let applied = self.node.store().entries_until(applied);
        let tests: Vec<_> = applied
            .filter(|e| envelope::tested_version(&e.data).is_some())
            .map(|e| (e.index, e.data.clone()))
            .collect();
        for (index, data) in tests {
            self.note_needed_version(index, &data);
        }
    }

    /// Forgets what entries need that a snapshot covers.
    pub(super) fn forget_needed_version(&mut self, snapshot_index: u64) {
        self.versions
            .needed
            .take_if(|(_, index)| *index <= snapshot_index);
    }

    /// Lets the storage version follow the cluster's, unless the log behind the last snapshot needs more than it; then the
    /// next batch tries again. Says whether it has changed.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/version/monitor.go, server/storage/schema/schema.go UnsafeMigrate. Differs
    /// from etcd: it goes with a batch of entries, and not by itself every four seconds.
    pub(super) fn settle_storage_version(&mut self, txn: &mut ApplyTxn) -> bool {
        let Some(due) = self.stores.cluster.due_storage_version() else {
            return false;
        };
        let version = due.to_owned();
        let is_too_low = |needed| Version::parse(&version).is_none_or(|version| version < needed);
        match self.versions.needed {
            Some((needed, _)) if is_too_low(needed) => {
                if self.now_ms >= self.versions.tell_ms {
                    self.versions.tell_ms = self.now_ms + ASK_VERSIONS_MS;
                    let needed = needed.to_string();
                    let notice = Notice::StorageVersionKept { version, needed };
                    self.actions.notices.push(notice);
                }
                false
            }
            _ => {
                let cluster = &mut self.stores.cluster;
                let before = cluster.follow_storage_version(txn, &version);
                let notice = Notice::StorageVersion { before, version };
                self.actions.notices.push(notice);
                true
            }
        }
    }

    /// Takes a new cluster version: tells of it, and has the log saved when it is lower than before.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/apply/backend.go ClusterVersionSet.
    pub(super) fn note_cluster_version(&mut self, before: &str) {
        let version = self.stores.cluster.version().to_owned();
        let lowered = Version::parse(before) > Version::parse(&version);
        if lowered {
            self.snapshot.forced = Some(self.applied.index);
        }
        self.actions.notices.push(Notice::ClusterVersion {
            before: before.to_owned(),
            version,
        });
        self.check_cluster_version();
    }

    /// Ends the member when the cluster has agreed on more than it can do. Source: etcd v3.7.1 MustDetectDowngrade.
    pub(super) fn check_cluster_version(&mut self) {
        let own = Version::parse(&self.config.cluster_version);
        let storage = Version::parse(self.stores.cluster.storage_version());
        if storage > own {
            return self.die(format!(
                "storage version {} is newer than what server version {} can read",
                self.stores.cluster.storage_version(),
                self.config.cluster_version,
            ));
        }
        let cluster = self.stores.cluster.parsed_version();
        if cluster.is_some() && own < cluster {
            self.die(format!(
                "invalid downgrade; server version {} is lower than determined cluster version {}",
                self.config.cluster_version,
                self.stores.cluster.version()
            ));
        }
    }
}
