//! Answers as text, in each of the output formats.

mod fields;
mod json;
mod simple;
mod table;

pub(crate) use json::Members;
pub(crate) use simple::event_type;
pub(crate) use table::humanized;

use prost::Message;
use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse,
    AuthUserGetResponse, AuthUserListResponse, DeleteRangeResponse, DowngradeResponse,
    HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeResponse, ResponseHeader,
    StatusResponse, TxnResponse,
};
use quorate_proto::mvccpb::Event;

use crate::failure::{Failure, Outcome};
use crate::go::json::Json;

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// Turns answers into what is printed on standard output.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    /// Byte strings and ids in hexadecimal.
    pub(crate) hex: bool,
    /// No keys in the simple format.
    pub(crate) value_only: bool,
}

/// One answer on a watch, as the user sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) header: Option<ResponseHeader>,
    /// `None` prints as null.
    pub(crate) events: Option<Vec<Event>>,
    pub(crate) compact_revision: i64,
    pub(crate) canceled: bool,
    pub(crate) cancel_reason: String,
}

/// What one endpoint answered.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) endpoint: String,
    pub(crate) answer: T,
}

/// How healthy an endpoint is.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) is_healthy: bool,
    pub(crate) took: String,
    /// Empty when it is healthy.
    pub(crate) error: String,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) hash: u32,
    pub(crate) revision: i64,
    pub(crate) total_keys: usize,
    pub(crate) total_bytes: u64,
    /// The storage version; empty when there is none.
    pub(crate) version: String,
}

/// The answer to a change of members.
#[derive(Debug)]
pub(crate) struct MemberChange<'a, M> {
    pub(crate) header: Option<&'a ResponseHeader>,
    pub(crate) message: &'a M,
    /// The simple format's line.
    pub(crate) line: String,
}

type Printed = Outcome<Vec<u8>>;
/// Appends an answer to what is printed.
type Writer<'a> = dyn Fn(&mut Vec<u8>) + 'a;

impl Printer {
    /// # Errors
    /// There is no such format.
    pub(crate) fn new(format: &str, hex: bool) -> Outcome<Printer> {
        let format = match format {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Failure::bad_feature("unsupported output format")),
        };
        Ok(Printer {
            format,
            hex,
            value_only: false,
        })
    }

    fn unsupported(&self) -> Failure {
        let name = match self.format {
            Format::Fields => "fields",
            Format::Json => "json",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
            Format::Simple => "simple",
        };
        Failure::bad_feature(format!("{name} not supported as output format"))
    }

    /// Prints `message` by one of the two writers of lines, or as JSON or Protobuf.
    fn message<M: Message + Json>(
        &self,
        message: &M,
        simple: impl FnOnce(&mut Vec<u8>),
        fields: Option<&Writer<'_>>,
    ) -> Printed {
        self.shown(message, &message.encode_to_vec(), simple, fields)
    }

    fn shown(
        &self,
        value: &impl Json,
        encoded: &[u8],
        simple: impl FnOnce(&mut Vec<u8>),
        fields: Option<&Writer<'_>>,
    ) -> Printed {
        let mut out = Vec::new();
        match (self.format, fields) {
            (Format::Simple, _) => simple(&mut out),
            (Format::Fields, Some(fields)) => fields(&mut out),
            (Format::Json, _) => json::line(value, &mut out),
            (Format::Protobuf, _) => out.extend_from_slice(encoded),
            (Format::Fields | Format::Table, _) => return Err(self.unsupported()),
        }
        Ok(out)
    }

    pub(crate) fn put(&self, answer: &PutResponse) -> Printed {
        self.message(
            answer,
            |out| simple::put(self, answer, out),
            Some(&|out| fields::put(self, answer, out)),
        )
    }

    pub(crate) fn range(&self, answer: &RangeResponse) -> Printed {
        self.message(
            answer,
            |out| simple::range(self, answer, out),
            Some(&|out| fields::range(self, answer, out)),
        )
    }

    pub(crate) fn delete(&self, answer: &DeleteRangeResponse) -> Printed {
        self.message(
            answer,
            |out| simple::delete(self, answer, out),
            Some(&|out| fields::delete(self, answer, out)),
        )
    }

    pub(crate) fn txn(&self, answer: &TxnResponse) -> Printed {
        self.message(
            answer,
            |out| simple::txn(self, answer, out),
            Some(&|out| fields::txn(self, answer, out)),
        )
    }

    pub(crate) fn watch(&self, answer: &Watched) -> Printed {
        self.shown(
            answer,
            &answer.to_message().encode_to_vec(),
            |out| simple::watch(self, answer, out),
            Some(&|out| fields::watch(self, answer, out)),
        )
    }

    pub(crate) fn lease_grant(&self, answer: &LeaseGrantResponse) -> Printed {
        self.shown(
            &json::Granted(answer),
            &header_bytes(answer.header.as_ref()),
            |out| simple::lease_grant(answer, out),
            Some(&|out| fields::lease(self, answer.header.as_ref(), answer.id, answer.ttl, out)),
        )
    }

    pub(crate) fn lease_keep_alive(&self, answer: &LeaseKeepAliveResponse) -> Printed {
        self.shown(
            &json::Renewed(answer),
            &header_bytes(answer.header.as_ref()),
            |out| simple::lease_keep_alive(answer, out),
            Some(&|out| fields::lease(self, answer.header.as_ref(), answer.id, answer.ttl, out)),
        )
    }

    pub(crate) fn lease_time_to_live(
        &self,
        answer: &LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Printed {
        self.shown(
            &json::Remaining(answer),
            &header_bytes(answer.header.as_ref()),
            |out| simple::lease_time_to_live(answer, keys, out),
            Some(&|out| fields::lease_time_to_live(self, answer, out)),
        )
    }

    pub(crate) fn lease_list(&self, answer: &LeaseLeasesResponse) -> Printed {
        self.shown(
            &json::Leases(answer),
            &header_bytes(answer.header.as_ref()),
            |out| simple::lease_list(answer, out),
            Some(&|out| fields::lease_list(self, answer, out)),
        )
    }

    pub(crate) fn alarm(&self, answer: &AlarmResponse) -> Printed {
        self.message(
            answer,
            |out| simple::alarm(answer, out),
            Some(&|out| fields::alarm(self, answer, out)),
        )
    }

    /// An answer whose simple form is one line and whose fields are its header.
    pub(crate) fn line<M: Message + Json>(
        &self,
        message: &M,
        header: Option<&ResponseHeader>,
        line: &[u8],
    ) -> Printed {
        let simple = |out: &mut Vec<u8>| {
            out.extend_from_slice(line);
            out.push(b'\n');
        };
        self.message(
            message,
            simple,
            Some(&|out| fields::header(self, header, out)),
        )
    }

    pub(crate) fn role_get(&self, role: &[u8], answer: &AuthRoleGetResponse) -> Printed {
        self.message(
            answer,
            |out| simple::role_get(role, answer, out),
            Some(&|out| fields::role_get(self, answer, out)),
        )
    }

    pub(crate) fn role_list(&self, answer: &AuthRoleListResponse) -> Printed {
        self.message(
            answer,
            |out| simple::names(&answer.roles, out),
            Some(&|out| fields::role_list(self, answer, out)),
        )
    }

    pub(crate) fn user_get(&self, user: &[u8], answer: &AuthUserGetResponse) -> Printed {
        self.message(answer, |out| simple::user_get(user, answer, out), None)
    }

    pub(crate) fn user_list(&self, answer: &AuthUserListResponse) -> Printed {
        self.message(answer, |out| simple::names(&answer.users, out), None)
    }

    pub(crate) fn auth_status(&self, answer: &AuthStatusResponse) -> Printed {
        self.message(answer, |out| simple::auth_status(answer, out), None)
    }

    pub(crate) fn downgrade(&self, what: &str, answer: &DowngradeResponse) -> Printed {
        let simple = |out: &mut Vec<u8>| {
            let line = format!(
                "Downgrade {what} success, cluster version {}\n",
                answer.version
            );
            out.extend_from_slice(line.as_bytes());
        };
        self.message(answer, simple, None)
    }

    pub(crate) fn move_leader(
        &self,
        from: u64,
        to: u64,
        answer: &quorate_proto::etcdserverpb::MoveLeaderResponse,
    ) -> Printed {
        let simple = |out: &mut Vec<u8>| {
            let line = format!("Leadership transferred from {from:x} to {to:x}\n");
            out.extend_from_slice(line.as_bytes());
        };
        self.message(answer, simple, None)
    }

    pub(crate) fn member_list(&self, answer: &MemberListResponse) -> Printed {
        if self.format == Format::Table {
            return Ok(table::render(&table::MEMBER_HEADS, &table::members(answer)));
        }
        if self.format == Format::Json && self.hex {
            let mut out = Vec::new();
            json::line(
                &json::HexMembers(answer.header.as_ref(), &answer.members),
                &mut out,
            );
            return Ok(out);
        }
        let simple = |out: &mut Vec<u8>| simple::rows(&table::members(answer), out);
        self.message(
            answer,
            simple,
            Some(&|out| fields::member_list(self, answer, out)),
        )
    }

    /// The answer to adding, removing, updating or promoting a member.
    pub(crate) fn member_change<M: Message + Json + Members>(
        &self,
        change: &MemberChange<'_, M>,
    ) -> Printed {
        if self.format == Format::Json && self.hex {
            let mut out = Vec::new();
            json::line(&json::HexChange(change.header, change.message), &mut out);
            return Ok(out);
        }
        let simple = |out: &mut Vec<u8>| out.extend_from_slice(change.line.as_bytes());
        self.message(change.message, simple, None)
    }

    pub(crate) fn endpoint_health(&self, answers: &[At<Health>]) -> Printed {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple::endpoint_health(answers, &mut out),
            Format::Fields => fields::endpoint_health(answers, &mut out),
            Format::Json => json::line(&json::EndpointHealths(answers), &mut out),
            Format::Table => {
                return Ok(table::render(&table::HEALTH_HEADS, &table::health(answers)));
            }
            Format::Protobuf => return Err(self.unsupported()),
        }
        Ok(out)
    }

    pub(crate) fn endpoint_status(&self, answers: &[At<StatusResponse>]) -> Printed {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple::rows(&table::status(answers), &mut out),
            Format::Fields => fields::endpoint_status(self, answers, &mut out),
            Format::Json => json::line(&json::EndpointAnswers("Status", answers), &mut out),
            Format::Table => {
                return Ok(table::render(&table::STATUS_HEADS, &table::status(answers)));
            }
            Format::Protobuf => return Err(self.unsupported()),
        }
        Ok(out)
    }

    pub(crate) fn endpoint_hash_kv(&self, answers: &[At<HashKvResponse>]) -> Printed {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple::rows(&table::hash_kv(answers), &mut out),
            Format::Fields => fields::endpoint_hash_kv(self, answers, &mut out),
            Format::Json => json::line(&json::EndpointAnswers("HashKV", answers), &mut out),
            Format::Table => {
                return Ok(table::render(&table::HASH_HEADS, &table::hash_kv(answers)));
            }
            Format::Protobuf => return Err(self.unsupported()),
        }
        Ok(out)
    }

    pub(crate) fn backup_status(&self, backup: &Backup) -> Printed {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple::rows(&[table::backup(backup)], &mut out),
            Format::Fields => fields::backup_status(backup, &mut out),
            Format::Json => json::line(backup, &mut out),
            Format::Table => {
                return Ok(table::render(
                    &table::BACKUP_HEADS,
                    &[table::backup(backup)],
                ));
            }
            Format::Protobuf => return Err(self.unsupported()),
        }
        Ok(out)
    }
}

/// What the Protobuf format prints of leases: etcdctl's own types have only the header in common with the messages.
fn header_bytes(header: Option<&ResponseHeader>) -> Vec<u8> {
    header.map(Message::encode_to_vec).unwrap_or_default()
}
