//! Mistakes that etcd once made, by issue or advisory number.
use bytes::Bytes;
use quorate_auth::{AuthStore, Error, Identity, Operation, Stage, password};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::{READ, READWRITE, WRITE, World, hashed, options, refused};

fn no_keys(_: LeaseId) -> Vec<Bytes> {
    Vec::new()
}

fn range(key: &[u8], range_end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::copy_from_slice(range_end),
        ..Default::default()
    }
}

/// etcd issue 14571: what permissions mean was not derived anew when the store came with a snapshot, so the member denied
/// what others allowed.
#[test]
fn permissions_are_derived_anew_when_the_store_comes_with_a_snapshot() {
    let mut behind = World::new();
    let reader = behind.reader();
    let mut ahead = World::enabled();
    ahead.grant("r", READ, b"a", b"c").unwrap();
    // The snapshot: the other member's rows, restored, then put in the place of the store that was behind.
    behind.auth = AuthStore::restore(ahead.backend(), options()).unwrap();
    behind.auth.adopt(&reader);
    assert_eq!(
        (reader.is_enabled(), reader.revision()),
        (true, ahead.auth.revision())
    );
    for who in ["root", "u", "nobody"] {
        for request in [
            range(b"a", b"c"),
            range(b"b", b""),
            range(b"c", b""),
            range(b"a", b"\0"),
        ] {
            let decide = |auth: &AuthStore| {
                let operation = Operation::Range(&request);
                auth.gate(&ahead.identity(who), Stage::Apply, &operation, no_keys)
                    .map_err(|e| e.to_string())
            };
            assert_eq!(
                decide(&behind.auth),
                decide(&ahead.auth),
                "{who} {request:?}"
            );
        }
    }
    assert!(reader.check_password("u", "pw").is_ok());
}

/// A snapshot brings the effect of entries that this member never saw, so tokens of before must not outlive them.
#[test]
fn tokens_of_before_a_snapshot_go_when_anything_has_changed() {
    let mut world = World::enabled();
    let reader = world.reader();
    let token = world.auth.authenticate("u", "letters", 1, 0).unwrap();
    let mut same = AuthStore::restore(world.backend(), options()).unwrap();
    same.adopt(&reader);
    assert!(reader.identity_of_token(Some(&token), 0).is_ok());
    world.auth = same;
    world.user_delete("u").unwrap();
    world.user_add("u").unwrap();
    let token = world.auth.authenticate("u", "letters", 2, 0).unwrap();
    let mut other = World::enabled();
    other.role_add("another").unwrap();
    let mut changed = AuthStore::restore(other.backend(), options()).unwrap();
    changed.adopt(&reader);
    refused(
        reader.identity_of_token(Some(&token), 0),
        &Error::InvalidAuthToken,
    );
}

/// etcd issue 11651: the auth revision was not stored together with the change, so a replay judged by another revision.
#[test]
fn revision_is_stored_with_every_change() {
    let mut world = World::enabled();
    type Change = fn(&mut World) -> Result<(), Error>;
    let changes: [Change; 10] = [
        |w| w.user_add("x"),
        |w| w.user_change_password("x", hashed("y")),
        |w| w.role_add("s"),
        |w| w.grant("s", READ, b"a", b""),
        |w| w.user_grant_role("x", "s"),
        |w| w.user_revoke_role("x", "s"),
        |w| w.revoke("s", b"a", b""),
        |w| w.role_delete("s"),
        |w| w.user_delete("x"),
        |w| {
            w.disable();
            Ok(())
        },
    ];
    for (n, change) in changes.iter().enumerate() {
        let before = world.auth.revision();
        change(&mut world).unwrap();
        assert_eq!(world.auth.revision(), before + 1, "change {n}");
        let (users, roles) = (world.auth.user_list(), world.auth.role_list());
        world.restart(n % 2 == 0);
        assert_eq!(
            world.auth.revision(),
            before + 1,
            "change {n} after restart"
        );
        assert_eq!(
            (world.auth.user_list(), world.auth.role_list()),
            (users, roles)
        );
    }
}

/// A crash loses whole entries, never a part of one: users, roles and revision are of the same moment.
#[test]
fn crash_keeps_the_store_of_one_moment() {
    let mut world = World::enabled();
    world.grant("r", READ, b"a", b"b").unwrap();
    world.backend().seal().unwrap().run().unwrap();
    let durable = (world.auth.revision(), world.auth.user_list());
    world.user_add("lost").unwrap();
    world.backend = None;
    world.backend = Some(crate::open(&world.disk));
    world.auth = AuthStore::restore(world.backend(), options()).unwrap();
    assert_eq!((world.auth.revision(), world.auth.user_list()), durable);
}

/// CVE-2021-28235: passwords in debug output.
#[test]
fn no_secret_is_ever_shown() {
    let mut world = World::enabled();
    world.user_add_with("s", hashed("sesame"), None).unwrap();
    let reader = world.reader();
    let token = world.auth.authenticate("s", "secretletters", 1, 0).unwrap();
    let shown = [
        format!("{:?} {reader:?}", world.auth),
        format!("{:?}", reader.password_check("s").unwrap()),
        format!("{:?}", reader.check_password("s", "open").unwrap_err()),
        reader
            .identity_of_token(Some("bogus"), 0)
            .unwrap_err()
            .to_string(),
        format!("{:?}", reader.identity_of_token(Some(&token), 0).unwrap()),
    ];
    for text in shown {
        assert!(
            !["sesame", "open", "secretletters", "$2a$", "bogus"]
                .iter()
                .any(|s| text.contains(s)),
            "{text}"
        );
    }
}

/// CVE-2021-28235 again: nothing that goes into the log carries a password.
#[test]
fn nothing_for_the_log_carries_a_password() {
    for no_password in [None, Some(false), Some(true)] {
        let mut request = pb::AuthUserAddRequest {
            password: "sesame".into(),
            options: no_password
                .map(|no_password| quorate_proto::authpb::UserAddOptions { no_password }),
            ..Default::default()
        };
        password::prepare_user_add(&mut request, 4, [1; 16]).unwrap();
        assert!(
            !prost::Message::encode_to_vec(&request)
                .windows(6)
                .any(|w| w == b"sesame")
        );
    }
}

/// CVE-2026-33413: maintenance and membership without permission.
#[test]
fn maintenance_and_membership_need_root() {
    let world = World::enabled();
    let raise = pb::AlarmRequest {
        action: 1,
        ..Default::default()
    };
    let admin = [
        Operation::Maintenance,
        Operation::MemberChange,
        Operation::Compact,
        Operation::Alarm(&raise),
    ];
    let any = [
        Operation::MemberList,
        Operation::Status,
        Operation::Alarm(&pb::AlarmRequest { action: 0, ..raise }),
    ];
    for operation in admin {
        let gate = |who: &Identity| world.auth.gate(who, Stage::Door, &operation, no_keys);
        refused(gate(&Identity::NONE), &Error::UserEmpty);
        refused(gate(&world.identity("u")), &Error::PermissionDenied);
        gate(&world.identity("root")).unwrap();
    }
    for operation in any {
        let gate = |who: &Identity| world.auth.gate(who, Stage::Door, &operation, no_keys);
        refused(gate(&Identity::NONE), &Error::UserEmpty);
        gate(&world.identity("u")).unwrap();
    }
}

fn put(key: &'static str, lease: i64, prev_kv: bool) -> Request {
    Request::RequestPut(pb::PutRequest {
        key: key.into(),
        lease,
        prev_kv,
        ..Default::default()
    })
}

fn delete(key: &'static str, range_end: &'static str, prev_kv: bool) -> Request {
    Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv,
    })
}

fn compare(key: &'static str) -> pb::Compare {
    pb::Compare {
        key: key.into(),
        ..Default::default()
    }
}

/// A transaction that hides compares and an operation at a depth, on either branch in turn.
fn nest(compares: Vec<pb::Compare>, op: Option<Request>, depth: usize) -> pb::TxnRequest {
    let ops = |request| vec![pb::RequestOp { request }];
    let mut txn = pb::TxnRequest {
        compare: compares,
        success: vec![],
        failure: ops(op),
    };
    for n in 0..depth {
        let inner = ops(Some(Request::RequestTxn(txn)));
        txn = pb::TxnRequest::default();
        if n % 2 == 0 {
            txn.success = inner;
        } else {
            txn.failure = inner;
        }
    }
    txn
}

/// CVE-2026-33343, pull requests 21681 and 21685: nested transactions, the value before, and the lease were not checked.
#[test]
fn nothing_hides_in_a_nested_transaction() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"w", b"").unwrap();
    world.grant("r", READWRITE, b"a", b"").unwrap();
    let keys = |id: LeaseId| {
        if id.0 == 1 {
            vec![Bytes::from("x")]
        } else {
            vec![]
        }
    };
    let ask = |txn: pb::TxnRequest| {
        world.auth.gate(
            &world.identity("u"),
            Stage::Apply,
            &Operation::Txn(&txn),
            keys,
        )
    };
    for depth in 0..6 {
        ask(nest(vec![compare("a")], Some(put("w", 2, false)), depth)).unwrap();
        ask(nest(vec![], Some(put("a", 0, true)), depth)).unwrap();
        ask(nest(vec![], Some(delete("a", "", true)), depth)).unwrap();
        ask(nest(vec![], None, depth)).unwrap();
        for hidden in [
            nest(vec![compare("w")], None, depth),
            nest(vec![], Some(put("x", 0, false)), depth),
            nest(vec![], Some(put("w", 0, true)), depth),
            nest(vec![], Some(put("a", 1, false)), depth),
            nest(vec![], Some(delete("w", "", true)), depth),
            nest(vec![], Some(delete("a", "\0", false)), depth),
            nest(vec![], Some(Request::RequestRange(range(b"w", b""))), depth),
        ] {
            refused(ask(hidden), &Error::PermissionDenied);
        }
    }
}

/// GHSA-xg4h-6gfc-h4m8: a watch from a key on was judged as a watch of the key.
#[test]
fn watch_from_a_key_on_needs_everything_from_it_on() {
    let mut world = World::enabled();
    world.grant("r", READ, b"b", b"c").unwrap();
    let watch = |key: &[u8], end: &[u8]| {
        let request = pb::WatchCreateRequest {
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(end),
            ..Default::default()
        };
        world.reader().gate(
            &world.identity("u"),
            Stage::Door,
            &Operation::Watch(&request),
            no_keys,
        )
    };
    watch(b"b", b"").unwrap();
    watch(b"b", b"c").unwrap();
    for (key, end) in [
        (&b"b"[..], &b"\0"[..]),
        (b"", b"\0"),
        (b"", b""),
        (b"", b"c"),
        (b"b", b"c\0"),
    ] {
        refused(watch(key, end), &Error::PermissionDenied);
    }
}

/// Pull request 15815: keys of leases were listed to whoever asked.
#[test]
fn keys_of_leases_need_to_be_readable() {
    let mut world = World::enabled();
    world.grant("r", READ, b"a", b"").unwrap();
    let keys = |id: LeaseId| vec![Bytes::from(if id.0 == 1 { "a" } else { "b" })];
    let ask = |id, wanted| {
        let operation = Operation::LeaseTimeToLive {
            id: LeaseId(id),
            keys: wanted,
        };
        world
            .reader()
            .gate(&world.identity("u"), Stage::Door, &operation, keys)
    };
    ask(1, true).unwrap();
    ask(2, false).unwrap();
    refused(ask(2, true), &Error::PermissionDenied);
}

/// Catalogue row A2: a role is revoked, or a user deleted, while a request is on its way.
#[test]
fn request_on_its_way_is_judged_by_the_store_it_meets() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"a", b"").unwrap();
    let put = pb::PutRequest {
        key: "a".into(),
        ..Default::default()
    };
    let on_its_way = world.identity("u");
    let meet = |world: &World| {
        world
            .auth
            .gate(&on_its_way, Stage::Apply, &Operation::Put(&put), no_keys)
    };
    meet(&world).unwrap();
    world.user_revoke_role("u", "r").unwrap();
    refused(meet(&world), &Error::AuthOldRevision);
    world.user_delete("u").unwrap();
    world.user_add("u").unwrap();
    refused(meet(&world), &Error::AuthOldRevision);
    world.disable();
    meet(&world).unwrap();
    world.enable().unwrap();
    refused(meet(&world), &Error::AuthOldRevision);
}

/// Catalogue row A3: whatever is shown as a token, only the right one is.
#[test]
fn no_made_up_token_is_accepted() {
    let world = World::enabled();
    let reader = world.reader();
    let token = world
        .auth
        .authenticate("u", "abcdefghijklmnop", 7, 0)
        .unwrap();
    let huge = "a".repeat(1 << 20);
    let made_up = [
        "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QifQ.",
        "abcdefghijklmnop",
        "abcdefghijklmnop.",
        "abcdefghijklmnop.07",
        "abcdefghijklmnop.7 ",
        " abcdefghijklmnop.7",
        "abcdefghijklmnop.7.7",
        "ABCDEFGHIJKLMNOP.7",
        ".7",
        "root",
        "\0",
        &huge,
    ];
    for text in made_up {
        refused(
            reader.identity_of_token(Some(text), 0),
            &Error::InvalidAuthToken,
        );
    }
    assert!(reader.identity_of_token(Some(&token), 0).is_ok());
    refused(
        reader.identity_of_token(Some(&token), 300_001),
        &Error::InvalidAuthToken,
    );
}
