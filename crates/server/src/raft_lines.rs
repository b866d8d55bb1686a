//! Lines about elections and votes: what raft-rs tells, in the words of etcd's raft, which tools look for.
//!
//! Source: raft v3.7.0 raft.go.
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;

use quorate_proto::MemberId;
use slog::{Drain, KV as _, Key, Never, OwnedKVList, Serializer};

use crate::log::{Level, Logger, Record};
use crate::tell::RAFT;

/// Takes what raft-rs logs.
pub(crate) struct RaftLines {
    logger: AssertUnwindSafe<Logger>,
    member_id: MemberId,
}

impl RaftLines {
    /// Returns the end that raft-rs logs to.
    pub(crate) fn root(logger: &Logger, member_id: MemberId) -> slog::Logger {
        let lines = Self {
            logger: AssertUnwindSafe(logger.clone()),
            member_id,
        };
        slog::Logger::root(lines, slog::o!())
    }
}

impl Drain for RaftLines {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &slog::Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            slog::Level::Critical | slog::Level::Error => Level::Error,
            slog::Level::Warning => Level::Warn,
            slog::Level::Info => Level::Info,
            slog::Level::Debug | slog::Level::Trace => Level::Debug,
        };
        if !self.logger.is_enabled(level) {
            return Ok(());
        }
        let mut values = Values::default();
        // Only what is written may fail, and nothing is.
        let _ = record.kv().serialize(record, &mut values);
        for text in lines(self.member_id, &record.msg().to_string(), &values) {
            self.logger.write(&Record::new(level, text).named(RAFT));
        }
        Ok(())
    }
}

/// What stands behind a message, as texts.
#[derive(Default)]
struct Values(BTreeMap<String, String>);

impl Values {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |text| text)
    }

    /// Returns a type of messages by etcd's name.
    fn kind(&self, key: &str) -> String {
        let text = self.text(key).replace("Request", "");
        let text = text.replace("Append", "App").replace("Snapshot", "Snap");
        text.replace("Response", "Resp").replace("Propose", "Prop")
    }

    /// Returns the numbers in a list, ascending.
    fn ids(&self, key: &str) -> Vec<MemberId> {
        let numbers = self.text(key).split(|c: char| !c.is_ascii_digit());
        let mut ids: Vec<u64> = numbers.filter_map(|text| text.parse().ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(MemberId).collect()
    }
}

impl Serializer for Values {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.insert(key.to_owned(), value.to_string());
        Ok(())
    }
}

/// Returns the lines that etcd has for a message.
fn lines(own: MemberId, message: &str, values: &Values) -> Vec<String> {
    let of = |key| values.text(key);
    let (term, kind) = (of("term"), values.kind("msg type"));
    if message.starts_with("RawNode created") {
        return Vec::new();
    }
    let text = match message {
        "newRaft" => {
            let peers: Vec<String> = values
                .ids("peers")
                .iter()
                .map(MemberId::to_string)
                .collect();
            return vec![format!(
                "newRaft {own} [peers: [{}], term: {term}, commit: {}, applied: {}, lastindex: {}, lastterm: {}]",
                peers.join(","),
                of("commit"),
                of("applied"),
                of("last index"),
                of("last term"),
            )];
        }
        "starting a new election" => format!("is starting a new election at term {term}"),
        "broadcasting vote request" => {
            let (kind, ids) = (values.kind("type"), values.ids("to"));
            let ask = |to: &MemberId| {
                let (log_term, index) = (of("log_term"), of("log_index"));
                format!(
                    "{own} [logterm: {log_term}, index: {index}] sent {kind} request to {to} at term {term}"
                )
            };
            return ids.iter().map(ask).collect();
        }
        "received votes response" => {
            let (kind, from) = (values.kind("type"), hex(of("from")));
            let what = if of("vote") == "true" {
                ""
            } else {
                " rejection"
            };
            return vec![
                format!("{own} received {kind}{what} from {from} at term {term}"),
                format!(
                    "{own} has received {} {kind} votes and {} vote rejections",
                    of("approvals"),
                    of("rejections")
                ),
            ];
        }
        _ => with_hex_ids(message),
    };
    let text = if let Some(from) = text.strip_prefix("received a message with higher term from ") {
        let message_term = of("message_term");
        format!(
            "[term: {term}] received a {kind} message with higher term from {from} [term: {message_term}]"
        )
    } else if let Some(from) = text.strip_prefix("ignored a message with lower term from ") {
        let message_term = of("msg term");
        format!(
            "[term: {term}] ignored a {kind} message with lower term from {from} [term: {message_term}]"
        )
    } else if let Some(start) = text.strip_suffix(": lease is not expired") {
        let start = start.replace(" ignored vote ", &format!(" ignored {kind} "));
        let left = of("remaining ticks");
        format!("{start} at term {term}: lease is not expired (remaining ticks: {left})")
    } else {
        text.replace(" cast vote for ", &format!(" cast {kind} for "))
            .replace(" rejected vote from ", &format!(" rejected {kind} from "))
    };
    vec![format!("{own} {text}")]
}

fn hex(number: &str) -> String {
    number
        .parse()
        .map_or_else(|_| number.to_owned(), |id| MemberId(id).to_string())
}

/// Writes ids of members as etcd does; raft-rs writes them as plain numbers, behind these words.
fn with_hex_ids(message: &str) -> String {
    let mut is_id = false;
    let words = message.split(' ').map(|word| {
        let was_id = std::mem::replace(
            &mut is_id,
            matches!(word, "vote:" | "for" | "from" | "to" | "as"),
        );
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        if was_id && !digits.is_empty() {
            format!("{}{}", hex(digits), &word[digits.len()..])
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, values: &[(&str, &str)], expected: &[&str]) {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let lines = lines(MemberId(0xa7), message, &Values(values.collect()));
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_election_reads_as_in_etcds_log() {
        check(
            "became follower at term 2",
            &[],
            &["a7 became follower at term 2"],
        );
        check(
            "starting a new election",
            &[("term", "2")],
            &["a7 is starting a new election at term 2"],
        );
        check(
            "broadcasting vote request",
            &[
                ("type", "MsgRequestPreVote"),
                ("term", "2"),
                ("log_term", "2"),
                ("log_index", "426"),
                ("to", "[255, 16]"),
            ],
            &[
                "a7 [logterm: 2, index: 426] sent MsgPreVote request to 10 at term 2",
                "a7 [logterm: 2, index: 426] sent MsgPreVote request to ff at term 2",
            ],
        );
        check(
            "received votes response",
            &[
                ("vote", "true"),
                ("from", "255"),
                ("rejections", "0"),
                ("approvals", "2"),
                ("type", "MsgRequestVoteResponse"),
                ("term", "3"),
            ],
            &[
                "a7 received MsgVoteResp from ff at term 3",
                "a7 has received 2 MsgVoteResp votes and 0 vote rejections",
            ],
        );
        check(
            "[logterm: 1, index: 3, vote: 0] cast vote for 255 [logterm: 1, index: 3] at term 1",
            &[("msg type", "MsgRequestPreVote")],
            &[
                "a7 [logterm: 1, index: 3, vote: 0] cast MsgPreVote for ff [logterm: 1, index: 3] at term 1",
            ],
        );
        check(
            "received a message with higher term from 255",
            &[
                ("term", "1"),
                ("message_term", "2"),
                ("msg type", "MsgRequestVote"),
            ],
            &["a7 [term: 1] received a MsgVote message with higher term from ff [term: 2]"],
        );
        check(
            "[logterm: 3, index: 428, vote: 167] ignored vote from 255 [logterm: 3, index: 428]: lease is not expired",
            &[
                ("term", "3"),
                ("remaining ticks", "10"),
                ("msg type", "MsgRequestPreVote"),
            ],
            &[
                "a7 [logterm: 3, index: 428, vote: a7] ignored MsgPreVote from ff [logterm: 3, index: 428] at term 3: lease is \
               not expired (remaining ticks: 10)",
            ],
        );
    }

    #[test]
    fn a_transfer_and_a_start_read_as_in_etcds_log() {
        check(
            "[term 4] starts to transfer leadership to 255",
            &[],
            &["a7 [term 4] starts to transfer leadership to ff"],
        );
        check(
            "sends MsgTimeoutNow to 255 immediately as 255 already has up-to-date log",
            &[],
            &["a7 sends MsgTimeoutNow to ff immediately as ff already has up-to-date log"],
        );
        check(
            "newRaft",
            &[
                ("term", "2"),
                ("commit", "15"),
                ("applied", "0"),
                ("last index", "16"),
                ("last term", "2"),
                (
                    "peers",
                    "Configuration { incoming: Configuration { voters: {255, 16} } }",
                ),
            ],
            &[
                "newRaft a7 [peers: [10,ff], term: 2, commit: 15, applied: 0, lastindex: 16, lastterm: 2]",
            ],
        );
        check("RawNode created with id 167.", &[], &[]);
    }
}
