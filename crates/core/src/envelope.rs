//! The data of a normal log entry: etcd's `InternalRaftRequest`, framed around the client's own request bytes.
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use quorate_auth::Identity;
use quorate_proto::etcdserverpb::{DowngradeVersionTestRequest, RequestHeader};

use crate::Request;
use crate::versions::Version;

const HEADER_FIELD: u32 = 100;
const WIRE_VARINT: u64 = 0;
const WIRE_LEN: u64 = 2;

/// Encodes an entry's data: the request in its field, then the header in field 100.
///
/// The request's bytes are `raw` when given, else encoded from `request`. Field order is that of etcd, so a request a
/// Go client made gives etcd's bytes.
/// Source: etcd v3.7.1 api/etcdserverpb/raft_internal.proto InternalRaftRequest.
pub(crate) fn encode(
    id: u64,
    identity: &Identity,
    request: &Request,
    raw: Option<&Bytes>,
) -> Bytes {
    let header = RequestHeader {
        id,
        username: identity.username.clone(),
        auth_revision: identity.revision,
    };
    let body = raw.cloned().unwrap_or_else(|| request.encode());
    let (field, header_len) = (request.field(), header.encoded_len());
    let mut data = BytesMut::with_capacity(body.len() + header_len + 24);
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut data);
    let header_first = field > HEADER_FIELD;
    if header_first {
        data.clear();
        put_header(&header, header_len, &mut data);
        prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut data);
    }
    prost::encoding::encode_varint(body.len() as u64, &mut data);
    data.put_slice(&body);
    if !header_first {
        put_header(&header, header_len, &mut data);
    }
    data.freeze()
}

fn put_header(header: &RequestHeader, len: usize, data: &mut BytesMut) {
    prost::encoding::encode_key(
        HEADER_FIELD,
        prost::encoding::WireType::LengthDelimited,
        data,
    );
    prost::encoding::encode_varint(len as u64, data);
    header.encode(data).expect("a growing buffer has room");
}

/// What an entry's data says.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) identity: Identity,
    pub(crate) content: Content,
}

/// The request in an entry.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    /// One to apply.
    Request(Box<Request>),
    /// One that changes nothing: a read from an old log, or etcd's test of downgrades.
    NoOp,
    /// One of a version to come: applying it needs knowledge that this version has not.
    Unknown,
}

/// Fields that hold requests without effect: `range` and `downgrade_version_test`.
const NO_OP_FIELDS: [u64; 2] = [3, DOWNGRADE_TEST_FIELD];
const DOWNGRADE_TEST_FIELD: u64 = 9900;
/// Fields that hold no request: the old request id, and the header.
const ID_FIELD: u64 = 1;

/// Decodes an entry's data.
///
/// The request is decoded from its own bytes, as the front door did, and not as a part of the whole message: the decoder's
/// limit on nesting counts from where it starts, and what was accepted at the door must be readable here.
///
/// # Errors
/// When it is not a Protobuf message of this shape.
pub(crate) fn decode(data: &Bytes) -> Result<Envelope, String> {
    let mut envelope = Envelope {
        identity: Identity {
            username: String::new(),
            revision: 0,
        },
        content: Content::Unknown,
    };
    let mut rest = &data[..];
    while !rest.is_empty() {
        let (field, bytes, after) = split_field(rest)?;
        rest = after;
        if field == u64::from(HEADER_FIELD) {
            let header = RequestHeader::decode(bytes).map_err(|e| e.to_string())?;
            envelope.identity = identity_of(header);
        } else if NO_OP_FIELDS.contains(&field) {
            envelope.content = Content::NoOp;
        } else if field != ID_FIELD
            && let Some(request) = Request::decode_field(field, data.slice_ref(bytes))?
        {
            envelope.content = Content::Request(Box::new(request));
        }
    }
    Ok(envelope)
}

/// Returns the version that an entry of etcd's test of downgrades says it needs; `None` for any other entry.
///
/// Source: etcd v3.7.1 server/storage/wal/version.go visitEntryData.
pub(crate) fn tested_version(data: &[u8]) -> Option<Version> {
    let mut rest = data;
    while !rest.is_empty() {
        let (field, bytes, after) = split_field(rest).ok()?;
        if field == DOWNGRADE_TEST_FIELD {
            let test = DowngradeVersionTestRequest::decode(bytes).ok()?;
            return Version::parse(&test.ver);
        }
        rest = after;
    }
    None
}

/// Splits the first field off a message: its number, its bytes when it is of variable length, and the rest.
fn split_field(mut data: &[u8]) -> Result<(u64, &[u8], &[u8]), String> {
    let key = prost::encoding::decode_varint(&mut data).map_err(|e| e.to_string())?;
    let value = prost::encoding::decode_varint(&mut data).map_err(|e| e.to_string())?;
    match key & 7 {
        WIRE_VARINT => Ok((key >> 3, &[], data)),
        WIRE_LEN => {
            let len = usize::try_from(value).unwrap_or(usize::MAX);
            match (data.get(..len), data.get(len..)) {
                (Some(bytes), Some(rest)) => Ok((key >> 3, bytes, rest)),
                _ => Err("a field ends after the data".to_owned()),
            }
        }
        _ => Err("a field of fixed size".to_owned()),
    }
}

/// Reads the header in an entry's data without decoding the request; `None` when there is none or the data is damaged.
pub(crate) fn header(data: &[u8]) -> Option<RequestHeader> {
    RequestHeader::decode(find_header(data)?).ok()
}

/// Returns who proposed an entry.
pub(crate) fn identity_of(header: RequestHeader) -> Identity {
    Identity {
        username: header.username,
        revision: header.auth_revision,
    }
}

/// Finds the request id in an entry's data; 0 when there is none or the data is damaged.
pub(crate) fn peek_id(data: &[u8]) -> u64 {
    header(data).map_or(0, |header| header.id)
}

fn find_header(mut data: &[u8]) -> Option<&[u8]> {
    while !data.is_empty() {
        let (field, bytes, rest) = split_field(data).ok()?;
        if field == u64::from(HEADER_FIELD) {
            return Some(bytes);
        }
        data = rest;
    }
    None
}

macro_rules! requests {
    ($($number:literal $variant:ident;)*) => {
        impl Request {
            /// Returns the request's field number in `InternalRaftRequest`.
            pub(crate) fn field(&self) -> u32 {
                match self {
                    $(Self::$variant(_) => $number,)*
                }
            }

            fn encode(&self) -> Bytes {
                match self {
                    $(Self::$variant(m) => m.encode_to_vec().into(),)*
                }
            }

            /// Decodes the request of a field; `None` when the field is none of these.
            fn decode_field(field: u64, bytes: Bytes) -> Result<Option<Self>, String> {
                Ok(Some(match field {
                    $($number => Self::$variant(prost::Message::decode(bytes).map_err(|e| e.to_string())?),)*
                    _ => return Ok(None),
                }))
            }

            /// Returns the request's name as etcd labels it in metrics and logs.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)*
                }
            }
        }
    };
}

requests! {
    4 Put;
    5 DeleteRange;
    6 Txn;
    7 Compaction;
    8 LeaseGrant;
    9 LeaseRevoke;
    10 Alarm;
    11 LeaseCheckpoint;
    1000 AuthEnable;
    1011 AuthDisable;
    1012 Authenticate;
    1013 AuthStatus;
    1100 AuthUserAdd;
    1101 AuthUserDelete;
    1102 AuthUserGet;
    1103 AuthUserChangePassword;
    1104 AuthUserGrantRole;
    1105 AuthUserRevokeRole;
    1106 AuthUserList;
    1107 AuthRoleList;
    1200 AuthRoleAdd;
    1201 AuthRoleDelete;
    1202 AuthRoleGet;
    1203 AuthRoleGrantPermission;
    1204 AuthRoleRevokePermission;
    1300 ClusterVersionSet;
    1301 ClusterMemberAttrSet;
    1302 DowngradeInfoSet;
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb as pb;
    use quorate_proto::etcdserverpb::InternalRaftRequest;
    use quorate_proto::etcdserverpb::request_op;

    use super::*;

    fn identity() -> Identity {
        Identity {
            username: "u".into(),
            revision: 3,
        }
    }

    #[test]
    fn framing_gives_the_bytes_of_the_whole_message() {
        let put = pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: -1,
            ..Default::default()
        };
        let raw = Bytes::from(put.encode_to_vec());
        let header = Some(RequestHeader {
            id: 7,
            username: "u".into(),
            auth_revision: 3,
        });
        let whole = InternalRaftRequest {
            header: header.clone(),
            put: Some(put.clone()),
            ..Default::default()
        };
        assert_eq!(
            encode(7, &identity(), &Request::Put(put), Some(&raw)),
            whole.encode_to_vec()
        );
        let list = pb::AuthUserListRequest {};
        let whole = InternalRaftRequest {
            header,
            auth_user_list: Some(list),
            ..Default::default()
        };
        assert_eq!(
            encode(7, &identity(), &Request::AuthUserList(list), None),
            whole.encode_to_vec()
        );
    }

    #[test]
    fn decode_gives_back_id_identity_and_request() {
        let request = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: -5 });
        let data = encode(u64::MAX, &identity(), &request, None);
        assert_eq!(peek_id(&data), u64::MAX);
        let envelope = decode(&data).unwrap();
        assert_eq!(envelope.identity, identity());
        assert_eq!(envelope.content, Content::Request(Box::new(request)));
    }

    #[test]
    fn peek_survives_any_truncation() {
        let put = pb::PutRequest {
            key: "k".into(),
            value: vec![7; 200].into(),
            ..Default::default()
        };
        let data = encode(9, &identity(), &Request::Put(put), None);
        for end in 0..data.len() {
            let _ = peek_id(&data[..end]);
        }
        assert_eq!(peek_id(&data), 9);
    }

    #[test]
    fn every_body_the_door_accepts_can_be_read_from_the_log() {
        let mut accepted = 0;
        let mut op = pb::RequestOp {
            request: Some(request_op::Request::RequestPut(pb::PutRequest {
                key: "k".into(),
                ..Default::default()
            })),
        };
        for _ in 0..70 {
            let txn = pb::TxnRequest {
                success: vec![op],
                ..Default::default()
            };
            let body = Bytes::from(txn.encode_to_vec());
            if let Ok(request) = pb::TxnRequest::decode(body.clone()) {
                accepted += 1;
                let data = encode(1, &identity(), &Request::Txn(request.clone()), Some(&body));
                let content = decode(&data)
                    .expect("what was accepted is readable")
                    .content;
                assert_eq!(content, Content::Request(Box::new(Request::Txn(request))));
            }
            op = pb::RequestOp {
                request: Some(request_op::Request::RequestTxn(txn)),
            };
        }
        assert!(
            (40..70).contains(&accepted),
            "the depth limit lies within what is tried: {accepted}"
        );
    }

    #[test]
    fn unknown_requests_are_told_from_those_without_effect() {
        let of = |field: u32| {
            let mut data = Vec::new();
            prost::encoding::encode_key(
                field,
                prost::encoding::WireType::LengthDelimited,
                &mut data,
            );
            data.push(0);
            decode(&data.into()).unwrap().content
        };
        assert_eq!(of(3), Content::NoOp);
        assert_eq!(of(9900), Content::NoOp);
        assert_eq!(of(777), Content::Unknown);
        assert!(decode(&Bytes::from_static(&[0x22, 0x7f])).is_err());
    }
}
