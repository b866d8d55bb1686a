//! What the gate says to whom, and in which order it says it.
use bytes::Bytes;
use quorate_auth::{Access, Error, Identity, Operation, Span, Stage};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::{READ, WRITE, World, refused};

fn no_keys(_: LeaseId) -> Vec<Bytes> {
    Vec::new()
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        ..Default::default()
    }
}

fn ask(world: &World, who: &Identity, operation: Operation<'_>) -> Result<(), Error> {
    world.auth.gate(who, Stage::Apply, &operation, no_keys)
}

#[test]
fn identity_is_judged_before_permission() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"a", b"b").unwrap();
    let (a, b) = (put("a"), put("b"));
    let put = |who: &Identity, request| ask(&world, who, Operation::Put(request));
    refused(put(&Identity::NONE, &a), &Error::UserEmpty);
    let mut old = world.identity("u");
    old.revision -= 1;
    refused(put(&old, &a), &Error::AuthOldRevision);
    refused(put(&old, &b), &Error::AuthOldRevision);
    old.username = "root".into();
    refused(put(&old, &a), &Error::AuthOldRevision);
    old.username = "nobody".into();
    refused(put(&old, &a), &Error::AuthOldRevision);
    refused(put(&world.identity("nobody"), &a), &Error::PermissionDenied);
    refused(put(&world.identity(""), &a), &Error::PermissionDenied);
    put(&world.identity("root"), &b).unwrap();
    put(&world.identity("u"), &a).unwrap();
    refused(put(&world.identity("u"), &b), &Error::PermissionDenied);
    // An identity from a member that is ahead is good.
    let mut ahead = world.identity("u");
    ahead.revision += 1;
    put(&ahead, &a).unwrap();
}

#[test]
fn administration_does_not_look_at_the_revision() {
    let world = World::enabled();
    let manage = |who: &Identity| ask(&world, who, Operation::AuthManagement);
    refused(manage(&Identity::NONE), &Error::UserEmpty);
    refused(manage(&world.identity("nobody")), &Error::UserNotFound);
    refused(manage(&world.identity("u")), &Error::PermissionDenied);
    let old = Identity {
        username: "root".into(),
        revision: 1,
    };
    manage(&old).unwrap();
    for operation in [
        Operation::Compact,
        Operation::Maintenance,
        Operation::MemberChange,
    ] {
        refused(
            world
                .auth
                .gate(&world.identity("u"), Stage::Door, &operation, no_keys),
            &Error::PermissionDenied,
        );
        world
            .auth
            .gate(&old, Stage::Door, &operation, no_keys)
            .unwrap();
    }
}

#[test]
fn users_may_look_at_themselves_and_their_roles() {
    let world = World::enabled();
    let u = world.identity("u");
    ask(&world, &u, Operation::UserGet("u")).unwrap();
    refused(
        ask(&world, &u, Operation::UserGet("root")),
        &Error::PermissionDenied,
    );
    ask(&world, &u, Operation::RoleGet("r")).unwrap();
    refused(
        ask(&world, &u, Operation::RoleGet("root")),
        &Error::PermissionDenied,
    );
    refused(
        ask(&world, &Identity::NONE, Operation::RoleGet("r")),
        &Error::UserEmpty,
    );
    refused(
        ask(&world, &world.identity("x"), Operation::RoleGet("r")),
        &Error::UserNotFound,
    );
    ask(&world, &world.identity("root"), Operation::RoleGet("none")).unwrap();
    // The name is compared before anything else is.
    ask(&world, &Identity::NONE, Operation::UserGet("")).unwrap();
}

#[test]
fn lease_is_his_who_may_write_all_its_keys() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"a", b"c").unwrap();
    let keys = |id: LeaseId| match id.0 {
        1 => vec![Bytes::from("a"), Bytes::from("b")],
        2 => vec![Bytes::from("a"), Bytes::from("x")],
        _ => vec![],
    };
    let u = world.identity("u");
    let revoke = |who: &Identity, id| {
        world.auth.gate(
            who,
            Stage::Apply,
            &Operation::LeaseRevoke(LeaseId(id)),
            keys,
        )
    };
    revoke(&u, 1).unwrap();
    refused(revoke(&u, 2), &Error::PermissionDenied);
    revoke(&u, 3).unwrap();
    revoke(&world.identity("root"), 2).unwrap();
    revoke(
        &Identity {
            username: "root".into(),
            revision: 1,
        },
        2,
    )
    .unwrap();
    refused(
        revoke(
            &Identity {
                username: "u".into(),
                revision: 1,
            },
            1,
        ),
        &Error::AuthOldRevision,
    );
    refused(revoke(&Identity::NONE, 1), &Error::UserEmpty);
    revoke(&Identity::NONE, 3).unwrap();
    // A put may not hang a key on a lease that its writer could not revoke.
    let put = |lease| {
        let request = pb::PutRequest { lease, ..put("a") };
        world
            .auth
            .gate(&u, Stage::Apply, &Operation::Put(&request), keys)
    };
    put(1).unwrap();
    refused(put(2), &Error::PermissionDenied);
}

#[test]
fn writing_the_keys_of_a_lease_is_not_reading_them() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"a", b"c").unwrap();
    let u = world.identity("u");
    let keys = |id: LeaseId| {
        if id.0 == 1 {
            vec![Bytes::from("a")]
        } else {
            vec![]
        }
    };
    let ttl = |keys_wanted| {
        let operation = Operation::LeaseTimeToLive {
            id: LeaseId(1),
            keys: keys_wanted,
        };
        world.auth.gate(&u, Stage::Door, &operation, keys)
    };
    ttl(false).unwrap();
    refused(ttl(true), &Error::PermissionDenied);
    let all = [LeaseId(3), LeaseId(1)];
    refused(
        world
            .auth
            .gate(&u, Stage::Door, &Operation::LeaseLeases(&all), keys),
        &Error::PermissionDenied,
    );
    world
        .auth
        .gate(&u, Stage::Door, &Operation::LeaseLeases(&all[..1]), keys)
        .unwrap();
    refused(
        world.auth.gate(
            &Identity::NONE,
            Stage::Door,
            &Operation::LeaseLeases(&[]),
            keys,
        ),
        &Error::UserEmpty,
    );
}

#[test]
fn touching_permissions_of_several_roles_cover_a_range() {
    let mut world = World::enabled();
    world.role_add("s").unwrap();
    world.grant("r", READ, b"a", b"c").unwrap();
    world.grant("s", READ, b"c", b"e").unwrap();
    let range = |key: &'static [u8], end: &'static [u8]| pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    let ask = |world: &World, request: &pb::RangeRequest| {
        ask(world, &world.identity("u"), Operation::Range(request))
    };
    refused(ask(&world, &range(b"a", b"e")), &Error::PermissionDenied);
    world.user_grant_role("u", "s").unwrap();
    ask(&world, &range(b"a", b"e")).unwrap();
    refused(ask(&world, &range(b"a", b"e\0")), &Error::PermissionDenied);
    refused(ask(&world, &range(b"a", b"\0")), &Error::PermissionDenied);
    world.grant("s", READ, b"d", b"\0").unwrap();
    ask(&world, &range(b"a", b"\0")).unwrap();
    refused(ask(&world, &range(b"\0", b"\0")), &Error::PermissionDenied);
}

/// A permission of a kind that no member knows yet gives nothing.
#[test]
fn permission_of_unknown_kind_gives_nothing() {
    let mut world = World::enabled();
    world.grant("r", 7, b"a", b"").unwrap();
    refused(
        ask(&world, &world.identity("u"), Operation::Put(&put("a"))),
        &Error::PermissionDenied,
    );
    assert_eq!(world.auth.role_get("r").unwrap()[0].perm_type, 7);
}

#[test]
fn both_branches_of_a_transaction_need_permission() {
    let mut world = World::enabled();
    world.grant("r", WRITE, b"a", b"").unwrap();
    let op = |key| pb::RequestOp {
        request: Some(Request::RequestPut(put(key))),
    };
    let txn = |success, failure| pb::TxnRequest {
        compare: vec![],
        success: vec![op(success)],
        failure: vec![op(failure)],
    };
    let u = world.identity("u");
    ask(&world, &u, Operation::Txn(&txn("a", "a"))).unwrap();
    refused(
        ask(&world, &u, Operation::Txn(&txn("b", "a"))),
        &Error::PermissionDenied,
    );
    refused(
        ask(&world, &u, Operation::Txn(&txn("a", "b"))),
        &Error::PermissionDenied,
    );
}

#[test]
fn nothing_is_refused_while_authentication_is_off() {
    let mut world = World::enabled();
    world.disable();
    let everything = Span {
        key: &[0],
        range_end: &[0],
    };
    let accesses = [
        Access::Write(everything),
        Access::Read(everything),
        Access::Admin,
        Access::AnyUser,
    ];
    world
        .auth
        .check(&Identity::NONE, &accesses, no_keys)
        .unwrap();
    world
        .reader()
        .check(&Identity::NONE, &accesses, no_keys)
        .unwrap();
    world.enable().unwrap();
    for access in accesses {
        assert!(
            world
                .auth
                .check(&Identity::NONE, &[access], no_keys)
                .is_err()
        );
        assert!(
            world
                .reader()
                .check(&Identity::NONE, &[access], no_keys)
                .is_err()
        );
    }
}
