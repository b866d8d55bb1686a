//! Lines about what happens to the member, in the words that tools look for in etcd's log.
//!
//! Source: etcd v3.7.1 server/etcdserver/server.go, server/etcdserver/raft.go, server/etcdserver/api/membership/cluster.go,
//! server/etcdserver/version/monitor.go, raft v3.7.0 raft.go and node.go.
use std::time::Duration;

use quorate_core::{MemberChangeKind, Notice};
use quorate_proto::{ClusterId, MemberId};

use crate::config::GoDuration;
use crate::log::{Level, Logger, Record};
use crate::version;

/// The name under which etcd logs what its consensus does.
pub(crate) const RAFT: &str = "raft";
/// What a storage version that is not written down counts as. Source: etcd v3.7.1 server/storage/schema/schema.go.
const UNWRITTEN_STORAGE: (u32, u32) = (3, 5);

/// Writes what an operator should read.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) logger: Logger,
    pub(crate) cluster_id: ClusterId,
    pub(crate) member_id: MemberId,
    pub(crate) name: String,
    pub(crate) client_urls: Vec<String>,
    pub(crate) tick: Duration,
    pub(crate) election_ticks: usize,
    pub(crate) snapshot_count: u64,
    pub(crate) request_timeout: Duration,
}

impl Teller {
    /// Writes the lines of a notice.
    pub(crate) fn tell(&self, notice: &Notice) {
        match notice {
            Notice::LeaderChanged {
                before,
                leader,
                term,
            } => self.leader(*before, *leader, *term),
            Notice::TransferStarted { to } => self.transfer_starts(MemberId(*to)),
            Notice::TransferFinished { to, took_ms } => {
                self.transfer_ends(MemberId(*to), Duration::from_millis(*took_ms));
            }
            Notice::MemberChanged {
                kind,
                id,
                urls,
                is_learner,
            } => self.member(*kind, MemberId(*id), urls, *is_learner),
            Notice::ClusterVersion { before, version } => self.cluster_version(before, version),
            Notice::StorageVersion { before, version } => self.storage_version(before, version),
            other => {
                if let Some(record) = self.record(other) {
                    self.logger.write(&record);
                }
            }
        }
    }

    fn record(&self, notice: &Notice) -> Option<Record> {
        Some(match notice {
            Notice::ElectionAdvanced { ticks, links } => self.election_advanced(*ticks, *links),
            Notice::Published => self.published(),
            Notice::ConfigurationChanged { voters, learners } => {
                let mut text = format!("{} switched to configuration voters=({})", self.member_id, hex(voters));
                if !learners.is_empty() {
                    text = format!("{text} learners=({})", hex(learners));
                }
                Record::new(Level::Info, text).named(RAFT)
            }
            Notice::ChangeApplied { kind, id } => {
                self.own(Level::Info, "applied a configuration change through raft")
                    .text("raft-conf-change", *kind)
                    .text("raft-conf-change-node-id", MemberId(*id).to_string())
            }
            Notice::ConfigurationRefused(why) => {
                self.own(Level::Warn, "refused a configuration change").text("error", why)
            }
            Notice::VersionProposed { before, version } if before.is_empty() => {
                Record::new(Level::Info, "setting up initial cluster version using v3 API")
                    .text("cluster-version", short(version))
            }
            Notice::VersionProposed { before, version } => {
                Record::new(Level::Info, "updating cluster version using v3 API")
                    .text("from", short(before))
                    .text("to", short(version))
            }
            Notice::StorageVersionKept { version, needed } => {
                Record::new(Level::Error, "failed to update storage version")
                    .text("cluster-version", version)
                    .text("error", format!(
                        "cannot downgrade storage, WAL contains newer entries, as the target version ({version}) is lower \
                         than the version ({needed}) detected from WAL logs"
                    ))
            }
            Notice::Downgraded(version) => {
                Record::new(Level::Info, "the cluster has been downgraded").text("cluster-version", version)
            }
            Notice::SnapshotTriggered {
                index,
                before,
                is_forced,
            } => self
                .own(Level::Info, "triggering snapshot")
                .uint("local-member-applied-index", *index)
                .uint("local-member-snapshot-index", *before)
                .uint("local-member-snapshot-count", self.snapshot_count)
                .switch("snapshot-forced", *is_forced),
            Notice::SnapshotSaved { index } => {
                Record::new(Level::Info, "saved snapshot to disk").uint("snapshot-index", *index)
            }
            Notice::SnapshotInstalled {
                index,
                applied_before,
            } => Record::new(Level::Info, "applied snapshot")
                .uint("snapshot-index", *index)
                .uint("applied-index", *applied_before),
            other => return self.slow(other).or_else(|| self.odd(other)),
        })
    }

    /// What is late.
    fn slow(&self, notice: &Notice) -> Option<Record> {
        Some(match notice {
            Notice::SlowApply {
                took_ns,
                expected_ns,
                request,
                error,
            } => {
                let record = Record::new(Level::Warn, "apply request took too long")
                    .text("took", duration(*took_ns))
                    .text("expected-duration", duration(*expected_ns))
                    .text("prefix", "")
                    .text("request", request)
                    .text("response", "");
                match error {
                    Some(error) => record.text("error", error),
                    None => record,
                }
            }
            Notice::LateHeartbeat { exceeded_ms } => {
                let expected = GoDuration::from(self.tick * 2).to_string();
                Record::new(
                    Level::Warn,
                    "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk",
                )
                .text("heartbeat-interval", GoDuration::from(self.tick).to_string())
                .text("expected-duration", expected)
                .text("exceeded-duration", millis(*exceeded_ms))
            }
            Notice::ReadIndexLate {
                request_id,
                retry_ms,
            } => Record::new(
                Level::Warn,
                "waiting for ReadIndex response took too long, retrying",
            )
            .uint("sent-request-id", *request_id)
            .text("retry-timeout", millis(*retry_ms)),
            Notice::ReadIndexTimedOut { count } => Record::new(
                Level::Warn,
                "timed out waiting for read index response (local node might have slow network)",
            )
            .uint("reads", *count as u64),
            Notice::SlowDisk { to } => self
                .own(
                    Level::Warn,
                    "the log was not stored for an election timeout; leadership is handed over",
                )
                .text("transferee-member-id", MemberId(*to).to_string()),
            _ => return None,
        })
    }

    /// What does not happen every day.
    fn odd(&self, notice: &Notice) -> Option<Record> {
        Some(match notice {
            Notice::QuotaExceeded => {
                Record::new(Level::Warn, "message exceeded backend quota; raising alarm")
            }
            Notice::AutoCompacted { revision } => {
                Record::new(Level::Info, "completed auto compaction").int("revision", *revision)
            }
            Notice::FailedApply {
                took_ns,
                request,
                error,
            } => Record::new(Level::Warn, "failed to apply request")
                .text("took", duration(*took_ns))
                .text("request", request)
                .text("response", "")
                .text("error", error),
            Notice::MessageRefused { from, why } => self
                .own(Level::Warn, "refused a message of another member")
                .text("remote-peer-id", MemberId(*from).to_string())
                .text("error", why.to_string()),
            Notice::LeasesExpired { count } => {
                Record::new(Level::Debug, "leases expired").uint("count", *count as u64)
            }
            _ => return None,
        })
    }

    /// Starts a line that says whose it is.
    #[track_caller]
    fn own(&self, level: Level, message: &'static str) -> Record {
        Record::new(level, message).text("local-member-id", self.member_id.to_string())
    }

    #[track_caller]
    fn of_cluster(&self, message: &'static str) -> Record {
        Record::new(Level::Info, message)
            .text("cluster-id", self.cluster_id.to_string())
            .text("local-member-id", self.member_id.to_string())
    }

    fn leader(&self, before: u64, leader: u64, term: u64) {
        let own = self.member_id;
        let (from, to) = (MemberId(before), MemberId(leader));
        let text = match (before, leader) {
            (_, 0) => format!("raft.node: {own} lost leader {from} at term {term}"),
            (0, _) => format!("raft.node: {own} elected leader {to} at term {term}"),
            _ => format!("raft.node: {own} changed leader from {from} to {to} at term {term}"),
        };
        self.logger
            .write(&Record::new(Level::Info, text).named(RAFT));
    }

    /// Tells that leadership is to move away.
    pub(crate) fn transfer_starts(&self, to: MemberId) {
        self.logger.write(
            &self
                .own(Level::Info, "leadership transfer starting")
                .text("current-leader-member-id", self.member_id.to_string())
                .text("transferee-member-id", to.to_string()),
        );
    }

    /// Tells that it has moved.
    pub(crate) fn transfer_ends(&self, to: MemberId, took: Duration) {
        self.logger.write(
            &self
                .own(Level::Info, "leadership transfer finished")
                .text("old-leader-member-id", self.member_id.to_string())
                .text("new-leader-member-id", to.to_string())
                .text("took", GoDuration::from(took).to_string()),
        );
    }

    /// Tells that it did not move in time.
    pub(crate) fn transfer_fails(&self) {
        self.logger
            .write(&self.own(Level::Warn, "leadership transfer failed").text(
                "error",
                "etcdserver: request timed out, leader transfer took too long",
            ));
    }

    fn member(&self, kind: MemberChangeKind, id: MemberId, urls: &[String], is_learner: bool) {
        let id = id.to_string();
        let record = match kind {
            MemberChangeKind::Added => self
                .of_cluster("added member")
                .text("added-peer-id", id)
                .list("added-peer-peer-urls", urls.iter().cloned())
                .switch("added-peer-is-learner", is_learner),
            MemberChangeKind::Promoted => self
                .of_cluster("promote member")
                .text("promoted-member-id", id),
            MemberChangeKind::Removed => self
                .of_cluster("removed member")
                .text("removed-remote-peer-id", id)
                .list("removed-remote-peer-urls", urls.iter().cloned())
                .switch("removed-remote-peer-is-learner", is_learner),
            MemberChangeKind::Updated => self
                .of_cluster("updated member")
                .text("updated-remote-peer-id", id)
                .list("updated-remote-peer-urls", urls.iter().cloned())
                .switch("updated-remote-peer-is-learner", is_learner),
        };
        self.logger.write(&record);
    }

    fn cluster_version(&self, before: &str, version: &str) {
        let record = if before.is_empty() {
            self.of_cluster("set initial cluster version")
                .text("cluster-version", short(version))
        } else {
            self.of_cluster("updated cluster version")
                .text("from", short(before))
                .text("to", short(version))
        };
        self.logger.write(&record);
        self.logger.write(
            &Record::new(Level::Info, "enabled capabilities for version")
                .text("cluster-version", short(version)),
        );
    }

    fn storage_version(&self, before: &str, version: &str) {
        let known = |text: &str| version::major_minor(text).unwrap_or(UNWRITTEN_STORAGE);
        let (mut from, to) = (known(before), known(version));
        self.logger.write(
            &Record::new(Level::Info, "cluster version differs from storage version.")
                .text("cluster-version", version)
                .text("storage-version", format!("{}.{}.0", from.0, from.1)),
        );
        // Between minor versions it goes step by step.
        while from.0 == to.0 && from.1 != to.1 {
            from.1 = if from.1 < to.1 {
                from.1 + 1
            } else {
                from.1 - 1
            };
            self.logger.write(
                &Record::new(Level::Info, "updated storage version")
                    .text("new-storage-version", format!("{}.{}.0", from.0, from.1)),
            );
        }
        if to < version::MAJOR_MINOR {
            self.logger.write(
                &Record::new(Level::Info, "The server is ready to downgrade")
                    .text("target-version", version)
                    .text("server-version", version::ETCD_VERSION),
            );
        }
    }

    fn election_advanced(&self, ticks: usize, links: usize) -> Record {
        let forward = self.tick * u32::try_from(ticks).unwrap_or(u32::MAX);
        let timeout = self.tick * u32::try_from(self.election_ticks).unwrap_or(u32::MAX);
        self.own(
            Level::Info,
            "initialized peer connections; fast-forwarding election ticks",
        )
        .uint("forward-ticks", ticks as u64)
        .text("forward-duration", GoDuration::from(forward).to_string())
        .uint("election-ticks", self.election_ticks as u64)
        .text("election-timeout", GoDuration::from(timeout).to_string())
        .uint("active-remote-members", links as u64)
    }

    fn published(&self) -> Record {
        let attributes = format!(
            "{{Name:{} ClientURLs:[{}]}}",
            self.name,
            self.client_urls.join(" ")
        );
        self.own(
            Level::Info,
            "published local member to cluster through raft",
        )
        .text("local-member-attributes", attributes)
        .text("cluster-id", self.cluster_id.to_string())
        .text(
            "publish-timeout",
            GoDuration::from(self.request_timeout).to_string(),
        )
    }
}

/// Returns a version of a cluster as etcd prints it, without the patch.
pub(crate) fn short(version: &str) -> &str {
    version.strip_suffix(".0").unwrap_or(version)
}

fn duration(ns: u64) -> String {
    GoDuration::from(Duration::from_nanos(ns)).to_string()
}

fn millis(ms: u64) -> String {
    GoDuration::from(Duration::from_millis(ms)).to_string()
}

fn hex(ids: &[u64]) -> String {
    let texts: Vec<String> = ids.iter().map(|id| MemberId(*id).to_string()).collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::log::Format;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(notices: &[Notice]) -> Vec<serde_json::Value> {
        let sink = Sink::default();
        let sinks: Vec<Box<dyn Write + Send>> = vec![Box::new(sink.clone())];
        let teller = Teller {
            logger: Logger::with_sinks(Level::Info, Format::Json, sinks).unwrap(),
            cluster_id: ClusterId(0xc1),
            member_id: MemberId(0xa),
            name: "m1".to_owned(),
            client_urls: vec!["http://c:1".to_owned()],
            tick: Duration::from_millis(100),
            election_ticks: 10,
            snapshot_count: 50,
            request_timeout: Duration::from_secs(7),
        };
        notices.iter().for_each(|notice| teller.tell(notice));
        assert!(teller.logger.flush());
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn messages(notices: &[Notice]) -> Vec<String> {
        let lines = lines(notices);
        lines
            .iter()
            .map(|line| line["msg"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn leaders_come_and_go_in_the_words_of_etcds_raft() {
        let change = |before, leader, term| Notice::LeaderChanged {
            before,
            leader,
            term,
        };
        let all = [change(0, 10, 2), change(10, 0, 3), change(11, 12, 4)];
        assert_eq!(
            messages(&all),
            [
                "raft.node: a elected leader a at term 2",
                "raft.node: a lost leader a at term 3",
                "raft.node: a changed leader from b to c at term 4",
            ]
        );
        let line = &lines(&all[..1])[0];
        assert_eq!(
            (line["level"].as_str(), line["logger"].as_str()),
            (Some("info"), Some("raft"))
        );
        let conf = |learners: &[u64]| Notice::ConfigurationChanged {
            voters: vec![10, 11],
            learners: learners.to_vec(),
        };
        assert_eq!(
            messages(&[conf(&[]), conf(&[255])]),
            [
                "a switched to configuration voters=(a b)",
                "a switched to configuration voters=(a b) learners=(ff)",
            ]
        );
    }

    #[test]
    fn members_are_named_with_their_urls() {
        let change = |kind| Notice::MemberChanged {
            kind,
            id: 0xb,
            urls: vec!["http://p:1".to_owned()],
            is_learner: true,
        };
        let line = &lines(&[change(MemberChangeKind::Added)])[0];
        assert_eq!(line["msg"], "added member");
        assert_eq!(line["cluster-id"], "c1");
        assert_eq!(line["local-member-id"], "a");
        assert_eq!(line["added-peer-id"], "b");
        assert_eq!(
            line["added-peer-peer-urls"],
            serde_json::json!(["http://p:1"])
        );
        assert_eq!(line["added-peer-is-learner"], true);
        assert_eq!(
            messages(&[
                change(MemberChangeKind::Promoted),
                change(MemberChangeKind::Removed),
                change(MemberChangeKind::Updated)
            ]),
            ["promote member", "removed member", "updated member"]
        );
    }

    #[test]
    fn the_storage_version_is_told_of_step_by_step() {
        let storage = |before: &str, version: &str| {
            let (before, version) = (before.to_owned(), version.to_owned());
            let lines = lines(&[Notice::StorageVersion { before, version }]);
            let text = |line: &serde_json::Value| {
                let version = line["new-storage-version"].as_str().unwrap_or_default();
                format!("{}{version}", line["msg"].as_str().unwrap())
            };
            lines.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            storage("", "3.7.0"),
            [
                "cluster version differs from storage version.",
                "updated storage version3.6.0",
                "updated storage version3.7.0",
            ]
        );
        assert_eq!(
            storage("3.7.0", "3.6.0"),
            [
                "cluster version differs from storage version.",
                "updated storage version3.6.0",
                "The server is ready to downgrade",
            ]
        );
    }

    #[test]
    fn a_snapshot_and_the_publication_carry_etcds_fields() {
        let lines = lines(&[
            Notice::Published,
            Notice::SnapshotTriggered {
                index: 52,
                before: 1,
                is_forced: true,
            },
            Notice::SnapshotSaved { index: 52 },
        ]);
        assert_eq!(
            lines[0]["local-member-attributes"],
            "{Name:m1 ClientURLs:[http://c:1]}"
        );
        assert_eq!(lines[0]["publish-timeout"], "7s");
        assert_eq!(lines[1]["snapshot-forced"], true);
        assert_eq!(lines[1]["local-member-applied-index"], 52);
        assert_eq!(lines[2]["msg"], "saved snapshot to disk");
    }
}
