//! An entry of the log, taken apart by hand.
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};
use quorate_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

/// The field that a client adds to its request to find it again in the log.
///
/// No message of etcd has it. Servers ignore fields they do not know and put the client's own bytes into the log.
pub const TAG_FIELD: u32 = 15_000;

/// Where the header lies in an entry.
const HEADER_FIELD: u32 = 100;

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, or nothing: the first entry of a term.
    Normal,
    /// A change of members.
    ConfChange,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place in the log.
    pub index: u64,
    /// Term of its leader.
    pub term: u64,
    /// What the data is.
    pub kind: EntryKind,
    /// `InternalRaftRequest` or `ConfChange`.
    pub data: Bytes,
}

/// Who put an entry into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposer {
    /// Request id; its upper 16 bits are the lower ones of the member's id.
    pub request_id: u64,
    /// The client's mark; 0 without one.
    pub tag: u64,
}

impl Proposer {
    /// Says whether this member made the proposal, as far as 16 bits can tell.
    pub fn is(&self, member_id: u64) -> bool {
        self.request_id >> 48 == member_id & 0xffff
    }
}

/// A normal entry's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) proposer: Proposer,
    pub(super) username: String,
    pub(super) auth_revision: u64,
    pub(super) request: InternalRaftRequest,
}

/// Encodes a request with a mark in it.
pub fn tagged(request: &impl prost::Message, tag: u64) -> Bytes {
    let mut bytes = request.encode_to_vec();
    encode_key(TAG_FIELD, WireType::Varint, &mut bytes);
    encode_varint(tag, &mut bytes);
    bytes.into()
}

/// Takes a normal entry's data apart.
///
/// # Errors
/// When it is no `InternalRaftRequest`.
pub(super) fn take_apart(data: &Bytes) -> Result<Content, String> {
    let request = InternalRaftRequest::decode(data.clone()).map_err(|e| e.to_string())?;
    let header = request.header.clone().unwrap_or_default();
    let RequestHeader {
        id,
        username,
        auth_revision,
    } = header;
    let tag = fields(data)?
        .into_iter()
        .filter(|(number, _)| *number != HEADER_FIELD)
        .filter_map(|(_, bytes)| tag_of(bytes))
        .next();
    Ok(Content {
        proposer: Proposer {
            request_id: id,
            tag: tag.unwrap_or(0),
        },
        username,
        auth_revision,
        request,
    })
}

/// Finds a mark in a request's own bytes.
fn tag_of(mut bytes: &[u8]) -> Option<u64> {
    let mut tag = None;
    while !bytes.is_empty() {
        let key = decode_varint(&mut bytes).ok()?;
        let value = decode_varint(&mut bytes).ok()?;
        match key & 7 {
            0 if key >> 3 == u64::from(TAG_FIELD) => tag = Some(value),
            0 => {}
            2 => bytes = bytes.get(usize::try_from(value).ok()?..)?,
            _ => return None,
        }
    }
    tag
}

/// Splits a message into its fields of variable length, by number.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, &[u8])>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = decode_varint(&mut bytes).map_err(|e| e.to_string())?;
        let value = decode_varint(&mut bytes).map_err(|e| e.to_string())?;
        match key & 7 {
            0 => {}
            2 => {
                let len = usize::try_from(value).map_err(|e| e.to_string())?;
                let (field, rest) = bytes
                    .split_at_checked(len)
                    .ok_or("a field ends after the data")?;
                found.push((u32::try_from(key >> 3).map_err(|e| e.to_string())?, field));
                bytes = rest;
            }
            other => return Err(format!("a field of wire type {other}")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn a_mark_survives_in_the_log_and_changes_nothing_else() {
        let put = PutRequest {
            key: "k".into(),
            value: "v".into(),
            ..Default::default()
        };
        let raw = tagged(&put, 77);
        assert_eq!(PutRequest::decode(raw.clone()).unwrap(), put);

        let header = RequestHeader {
            id: 9,
            username: "u".into(),
            auth_revision: 3,
        };
        let mut data = vec![4 << 3 | 2];
        encode_varint(raw.len() as u64, &mut data);
        data.extend_from_slice(&raw);
        let whole = InternalRaftRequest {
            header: Some(header),
            ..Default::default()
        };
        data.extend(whole.encode_to_vec());

        let content = take_apart(&data.into()).unwrap();
        assert_eq!(content.request.put, Some(put));
        assert_eq!(
            content.proposer,
            Proposer {
                request_id: 9,
                tag: 77
            }
        );
        assert_eq!((&content.username[..], content.auth_revision), ("u", 3));
    }

    #[test]
    fn a_request_without_a_mark_has_none() {
        let request = InternalRaftRequest {
            put: Some(PutRequest {
                key: "k".into(),
                lease: -1,
                ..Default::default()
            }),
            ..Default::default()
        };
        let content = take_apart(&request.encode_to_vec().into()).unwrap();
        assert_eq!(content.proposer.tag, 0);
        assert!(take_apart(&Bytes::from_static(&[0x22, 0x7f])).is_err());
    }

    #[test]
    fn request_ids_tell_who_proposed() {
        let proposer = Proposer {
            request_id: 0xbeef_0000_0000_0001,
            tag: 0,
        };
        assert!(proposer.is(0x1234_5678_0000_beef) && !proposer.is(0xbee0));
    }
}
