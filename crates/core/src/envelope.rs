//! The data of a normal log entry: etcd's `InternalRaftRequest`, framed around the client's own request bytes.
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use quorate_auth::Identity;
use quorate_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

use crate::Request;

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
    pub(crate) request: Option<Request>,
}

/// Decodes an entry's data. `request` is `None` when it holds a request this version does not know or replays nothing for.
///
/// # Errors
/// When it is not a Protobuf message of this shape.
pub(crate) fn decode(data: Bytes) -> Result<Envelope, prost::DecodeError> {
    let mut message = InternalRaftRequest::decode(data)?;
    let header = message.header.take().unwrap_or_default();
    Ok(Envelope {
        identity: Identity {
            username: header.username,
            revision: header.auth_revision,
        },
        request: Request::take_from(message),
    })
}

/// Reads who proposed an entry without decoding the request; `None` when there is no header or the data is damaged.
pub(crate) fn decode_header(data: &[u8]) -> Option<Identity> {
    let header = RequestHeader::decode(find_header(data)?).ok()?;
    Some(Identity {
        username: header.username,
        revision: header.auth_revision,
    })
}

/// Finds the request id in an entry's data without decoding the request; 0 when there is none or the data is damaged.
pub(crate) fn peek_id(data: &[u8]) -> u64 {
    find_header(data)
        .and_then(|header| RequestHeader::decode(header).ok())
        .map_or(0, |h| h.id)
}

fn find_header(mut data: &[u8]) -> Option<&[u8]> {
    while !data.is_empty() {
        let key = prost::encoding::decode_varint(&mut data).ok()?;
        match key & 7 {
            WIRE_LEN => {
                let len = usize::try_from(prost::encoding::decode_varint(&mut data).ok()?).ok()?;
                let field = data.get(..len)?;
                if key >> 3 == u64::from(HEADER_FIELD) {
                    return Some(field);
                }
                data = &data[len..];
            }
            WIRE_VARINT => {
                prost::encoding::decode_varint(&mut data).ok()?;
            }
            _ => return None,
        }
    }
    None
}

macro_rules! requests {
    ($($number:literal $field:ident $variant:ident;)*) => {
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

            fn take_from(message: InternalRaftRequest) -> Option<Self> {
                $(if let Some(m) = message.$field {
                    return Some(Self::$variant(m));
                })*
                None
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
    4 put Put;
    5 delete_range DeleteRange;
    6 txn Txn;
    7 compaction Compaction;
    8 lease_grant LeaseGrant;
    9 lease_revoke LeaseRevoke;
    10 alarm Alarm;
    11 lease_checkpoint LeaseCheckpoint;
    1000 auth_enable AuthEnable;
    1011 auth_disable AuthDisable;
    1012 authenticate Authenticate;
    1013 auth_status AuthStatus;
    1100 auth_user_add AuthUserAdd;
    1101 auth_user_delete AuthUserDelete;
    1102 auth_user_get AuthUserGet;
    1103 auth_user_change_password AuthUserChangePassword;
    1104 auth_user_grant_role AuthUserGrantRole;
    1105 auth_user_revoke_role AuthUserRevokeRole;
    1106 auth_user_list AuthUserList;
    1107 auth_role_list AuthRoleList;
    1200 auth_role_add AuthRoleAdd;
    1201 auth_role_delete AuthRoleDelete;
    1202 auth_role_get AuthRoleGet;
    1203 auth_role_grant_permission AuthRoleGrantPermission;
    1204 auth_role_revoke_permission AuthRoleRevokePermission;
    1300 cluster_version_set ClusterVersionSet;
    1301 cluster_member_attr_set ClusterMemberAttrSet;
    1302 downgrade_info_set DowngradeInfoSet;
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb as pb;

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
        let envelope = decode(data).unwrap();
        assert_eq!(
            (envelope.identity, envelope.request),
            (identity(), Some(request))
        );
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
}
