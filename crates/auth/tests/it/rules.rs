//! What etcd does, one rule at a time.
use quorate_auth::{Error, Identity, Options, TokenProvider};
use quorate_proto::etcdserverpb as pb;

use crate::{READ, READWRITE, WRITE, World, hashed, perm, refused};

#[test]
fn new_store_has_revision_one_and_keeps_it() {
    let mut world = World::new();
    assert_eq!((world.auth.revision(), world.auth.is_enabled()), (1, false));
    world.restart(true);
    assert_eq!(world.auth.revision(), 1);
    let row = world
        .backend()
        .read()
        .unwrap()
        .get(quorate_backend::Table::Auth, b"authRevision")
        .unwrap();
    assert_eq!(row.unwrap()[..], 1u64.to_be_bytes());
}

#[test]
fn enabling_needs_root_with_its_role() {
    let mut world = World::new();
    refused(world.enable(), &Error::RootUserNotExist);
    world.user_add("root").unwrap();
    refused(world.enable(), &Error::RootRoleNotExist);
    // The role object need not exist.
    world.user_grant_role("root", "root").unwrap();
    let before = world.auth.revision();
    world.enable().unwrap();
    world.enable().unwrap();
    assert_eq!(
        (world.auth.revision(), world.auth.is_enabled()),
        (before, true)
    );
    world.restart(true);
    assert!(world.auth.is_enabled() && world.reader().is_enabled());
}

#[test]
fn disabling_counts_as_a_change_once() {
    let mut world = World::enabled();
    let before = world.auth.revision();
    world.disable();
    world.disable();
    assert_eq!(
        (world.auth.revision(), world.auth.is_enabled()),
        (before + 1, false)
    );
    world.restart(true);
    assert!(!world.auth.is_enabled());
}

#[test]
fn what_keeps_root_in_power_stays_while_enabled() {
    let mut world = World::enabled();
    world.role_add("root").unwrap();
    let before = world.auth.revision();
    refused(world.user_delete("root"), &Error::InvalidAuthMgmt);
    refused(world.role_delete("root"), &Error::InvalidAuthMgmt);
    refused(
        world.user_revoke_role("root", "root"),
        &Error::InvalidAuthMgmt,
    );
    assert_eq!(world.auth.revision(), before);
    world.disable();
    world.user_revoke_role("root", "root").unwrap();
    world.role_delete("root").unwrap();
    world.user_delete("root").unwrap();
}

#[test]
fn users_are_added_changed_and_deleted() {
    let mut world = World::new();
    refused(world.user_add(""), &Error::UserEmpty);
    world.user_add("b").unwrap();
    world.user_add("a").unwrap();
    refused(world.user_add("a"), &Error::UserAlreadyExist);
    refused(
        world.user_add_with("c", "not base64".into(), None),
        &Error::NoPasswordUser,
    );
    assert_eq!(world.auth.user_list(), ["a", "b"]);
    refused(world.auth.user_get("c"), &Error::UserNotFound);
    refused(
        world.user_change_password("c", hashed("x")),
        &Error::UserNotFound,
    );
    refused(
        world.user_change_password("a", "*".into()),
        &Error::NoPasswordUser,
    );
    refused(world.user_delete("c"), &Error::UserNotFound);
    assert_eq!(world.auth.revision(), 3, "refusals count nothing");
    world.user_change_password("a", hashed("x")).unwrap();
    world.user_delete("a").unwrap();
    assert_eq!(
        (world.auth.revision(), world.auth.user_list()),
        (5, vec!["b".to_owned()])
    );
}

#[test]
fn passwords_are_checked_as_in_etcd() {
    let mut world = World::enabled();
    let reader = world.reader();
    let revision = world.auth.revision();
    assert_eq!(reader.check_password("u", "pw").unwrap(), revision);
    refused(reader.check_password("u", "wrong"), &Error::AuthFailed);
    refused(reader.check_password("nobody", "pw"), &Error::AuthFailed);
    // A change without hash leaves a user who cannot log in, not even without password.
    world.user_change_password("u", String::new()).unwrap();
    refused(reader.check_password("u", ""), &Error::AuthFailed);
    world.user_change_password("u", hashed("")).unwrap();
    assert_eq!(reader.check_password("u", "").unwrap(), revision + 2);
    // A user without password has no hash, whatever is sent.
    world.user_add_with("n", hashed("pw"), Some(true)).unwrap();
    world.user_change_password("n", hashed("pw")).unwrap();
    world
        .user_change_password("n", "not base64".into())
        .unwrap();
    refused(reader.check_password("n", "pw"), &Error::NoPasswordUser);
    refused(
        world.auth.authenticate("n", "letters", 9, 0),
        &Error::AuthFailed,
    );
    world.disable();
    refused(reader.check_password("u", ""), &Error::AuthNotEnabled);
    refused(
        world.auth.authenticate("u", "letters", 9, 0),
        &Error::AuthNotEnabled,
    );
}

#[test]
fn roles_are_granted_once_and_listed_in_order() {
    let mut world = World::new();
    world.user_add("u").unwrap();
    for role in ["z", "a", "m"] {
        world.role_add(role).unwrap();
        world.user_grant_role("u", role).unwrap();
    }
    let before = world.auth.revision();
    world.user_grant_role("u", "a").unwrap();
    assert_eq!(
        world.auth.revision(),
        before,
        "granting again changes nothing"
    );
    assert_eq!(world.auth.user_get("u").unwrap(), ["a", "m", "z"]);
    assert_eq!(world.auth.role_list(), ["a", "m", "z"]);
    refused(world.user_grant_role("v", "a"), &Error::UserNotFound);
    refused(world.user_grant_role("u", "x"), &Error::RoleNotFound);
    refused(world.user_revoke_role("v", "a"), &Error::UserNotFound);
    refused(world.user_revoke_role("u", "x"), &Error::RoleNotGranted);
    world.user_revoke_role("u", "m").unwrap();
    world.restart(true);
    assert_eq!(world.auth.user_get("u").unwrap(), ["a", "z"]);
}

#[test]
fn deleting_a_role_takes_it_from_all_in_one_change() {
    let mut world = World::new();
    world.role_add("r").unwrap();
    world.role_add("s").unwrap();
    for user in ["a", "b", "c"] {
        world.user_add(user).unwrap();
        world.user_grant_role(user, "s").unwrap();
    }
    world.user_grant_role("a", "r").unwrap();
    world.user_grant_role("c", "r").unwrap();
    let before = world.auth.revision();
    refused(world.role_delete("x"), &Error::RoleNotFound);
    world.role_delete("r").unwrap();
    assert_eq!(world.auth.revision(), before + 1);
    world.restart(true);
    for user in ["a", "b", "c"] {
        assert_eq!(world.auth.user_get(user).unwrap(), ["s"]);
    }
    refused(world.role_add(""), &Error::RoleEmpty);
    refused(world.role_add("s"), &Error::RoleAlreadyExist);
}

#[test]
fn permissions_are_checked_in_order_and_sorted_by_key() {
    let mut world = World::new();
    let request = pb::AuthRoleGrantPermissionRequest::default();
    refused(
        world.apply(|auth, txn| auth.role_grant_permission(txn, &request)),
        &Error::PermissionNotGiven,
    );
    for (key, end) in [
        ("", ""),
        ("", "\0"),
        ("b", "a"),
        ("b", "b"),
        ("\u{1}", "\0x"),
    ] {
        refused(
            world.grant("r", READ, key.as_bytes(), end.as_bytes()),
            &Error::InvalidAuthMgmt,
        );
    }
    refused(world.grant("r", READ, b"a", b"b"), &Error::RoleNotFound);
    world.role_add("r").unwrap();
    world.grant("r", READ, b"b", b"c").unwrap();
    world.grant("r", WRITE, b"a", b"").unwrap();
    world.grant("r", READWRITE, b"c", b"\0").unwrap();
    let before = world.auth.revision();
    world.grant("r", WRITE, b"b", b"c").unwrap();
    world.grant("r", WRITE, b"b", b"c").unwrap();
    assert_eq!(
        world.auth.revision(),
        before + 2,
        "granting the same again is a change all the same"
    );
    let want = [
        perm(WRITE, b"a", b""),
        perm(WRITE, b"b", b"c"),
        perm(READWRITE, b"c", b"\0"),
    ];
    assert_eq!(world.auth.role_get("r").unwrap(), want);
    world.restart(true);
    assert_eq!(world.auth.role_get("r").unwrap(), want);
}

#[test]
fn only_the_first_permission_of_a_key_is_replaced() {
    let mut world = World::new();
    world.role_add("r").unwrap();
    world.grant("r", READ, b"a", b"b").unwrap();
    world.grant("r", READ, b"a", b"c").unwrap();
    world.grant("r", WRITE, b"a", b"b").unwrap();
    world.grant("r", WRITE, b"a", b"c").unwrap();
    let want = [
        perm(WRITE, b"a", b"b"),
        perm(READ, b"a", b"c"),
        perm(WRITE, b"a", b"c"),
    ];
    assert_eq!(
        world.auth.role_get("r").unwrap(),
        want,
        "the second range is there twice"
    );
    refused(world.revoke("x", b"a", b"c"), &Error::RoleNotFound);
    refused(world.revoke("r", b"a", b""), &Error::PermissionNotGranted);
    world.revoke("r", b"a", b"c").unwrap();
    assert_eq!(
        world.auth.role_get("r").unwrap(),
        [perm(WRITE, b"a", b"b")],
        "both are revoked at once"
    );
}

#[test]
fn role_root_shows_everything() {
    let mut world = World::new();
    refused(world.auth.role_get("root"), &Error::RoleNotFound);
    world.role_add("root").unwrap();
    world.grant("root", READ, b"a", b"").unwrap();
    assert_eq!(
        world.auth.role_get("root").unwrap(),
        [perm(READWRITE, b"", b"\0")]
    );
}

#[test]
fn tokens_are_letters_and_the_index_of_the_login() {
    let mut world = World::enabled();
    let reader = world.reader();
    let letters = reader.token_prefix(&[0; 16]);
    let token = world.auth.authenticate("u", &letters, 42, 0).unwrap();
    assert_eq!(token, "aaaaaaaaaaaaaaaa.42");
    assert_eq!(reader.token_waits_for(&token), Some(42));
    assert_eq!(
        reader.identity_of_token(Some(&token), 0).unwrap(),
        world.identity("u")
    );
    assert_eq!(reader.identity_of_token(None, 0).unwrap(), Identity::NONE);
    for bad in [
        "",
        "wrong",
        "wrong.1",
        "aaaaaaaaaaaaaaaa.43",
        "AAAAAAAAAAAAAAAA.42",
    ] {
        refused(
            reader.identity_of_token(Some(bad), 0),
            &Error::InvalidAuthToken,
        );
    }
    refused(
        world.auth.authenticate("nobody", "x", 43, 0),
        &Error::AuthFailed,
    );
    // The identity follows the auth revision, since a simple token is judged by the store itself.
    world.role_add("another").unwrap();
    assert_eq!(
        reader.identity_of_token(Some(&token), 0).unwrap(),
        world.identity("u")
    );
    assert_eq!(reader.root_identity(), world.identity("root"));
    assert_eq!(reader.identity_of_common_name("cn"), world.identity("cn"));
}

#[test]
fn tokens_end_with_what_they_stand_for() {
    let mut world = World::enabled();
    let reader = world.reader();
    let mut index = 100;
    let mut login = |world: &World, name: &str| {
        index += 1;
        world.auth.authenticate(name, "letters", index, 0).unwrap()
    };
    let is_valid = |token: &str, now_ms| reader.identity_of_token(Some(token), now_ms).is_ok();
    let (u, root) = (login(&world, "u"), login(&world, "root"));
    world.user_change_password("u", hashed("new")).unwrap();
    assert!(!is_valid(&u, 0) && is_valid(&root, 0));
    let u = login(&world, "u");
    world.user_delete("u").unwrap();
    assert!(!is_valid(&u, 0) && is_valid(&root, 0));
    // Sliding: valid 300 s after the last use, on this member.
    assert!(is_valid(&root, 300_000) && is_valid(&root, 600_000));
    assert_eq!(reader.sweep_tokens(900_000), 0);
    assert_eq!(reader.sweep_tokens(900_001), 1);
    assert!(!is_valid(&root, 900_001));
    let root = login(&world, "root");
    world.disable();
    assert!(is_valid(&root, 0), "ignored while authentication is off");
    assert_eq!(
        reader.identity_of_token(Some("nonsense"), 0).unwrap(),
        Identity::NONE
    );
    world.enable().unwrap();
    assert!(!is_valid(&root, 0));
    let root = login(&world, "root");
    world.restart(true);
    refused(
        world.reader().identity_of_token(Some(&root), 0),
        &Error::InvalidAuthToken,
    );
}

#[test]
fn without_tokens_nobody_logs_in() {
    let mut world = World::with(Options {
        bcrypt_cost: 4,
        token_provider: TokenProvider::Noop,
    });
    world.user_add("root").unwrap();
    world.user_grant_role("root", "root").unwrap();
    world.enable().unwrap();
    let reader = world.reader();
    assert_eq!(reader.token_prefix(&[0; 16]), "");
    refused(
        world.auth.authenticate("root", "", 1, 0),
        &Error::AuthFailed,
    );
    refused(
        reader.identity_of_token(Some(".1"), 0),
        &Error::InvalidAuthToken,
    );
    assert_eq!(reader.token_waits_for(".1"), None);
    assert_eq!(reader.sweep_tokens(u64::MAX), 0);
    world.disable();
}

#[test]
fn cost_out_of_range_is_replaced() {
    let cost = |bcrypt_cost| {
        World::with(Options {
            bcrypt_cost,
            ..Options::default()
        })
        .reader()
        .bcrypt_cost()
    };
    assert_eq!([cost(0), cost(4), cost(31), cost(32)], [10, 4, 31, 10]);
}

#[test]
fn readers_see_only_what_is_published() {
    let mut world = World::new();
    let reader = world.reader();
    let add = pb::AuthUserAddRequest {
        name: "root".into(),
        ..Default::default()
    };
    let grant = pb::AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    world.index += 1;
    let mut txn = world.backend.as_ref().unwrap().begin_apply(world.index, 1);
    world.auth.user_add(&mut txn, &add).unwrap();
    world.auth.user_grant_role(&mut txn, &grant).unwrap();
    world.auth.enable(&mut txn).unwrap();
    assert_eq!((reader.is_enabled(), reader.revision()), (false, 1));
    assert_eq!((world.auth.is_enabled(), world.auth.revision()), (true, 3));
    txn.commit(0);
    assert_eq!((reader.is_enabled(), reader.revision()), (false, 1));
    world.auth.publish();
    assert_eq!((reader.is_enabled(), reader.revision()), (true, 3));
}

#[test]
fn answer_is_withheld_when_the_store_changed_meanwhile() {
    let mut world = World::enabled();
    let reader = world.reader();
    let identity = world.identity("u");
    reader.recheck(&identity).unwrap();
    world.role_add("x").unwrap();
    refused(reader.recheck(&identity), &Error::AuthOldRevision);
    reader.recheck(&Identity::NONE).unwrap();
    let identity = world.identity("u");
    world.disable();
    refused(reader.recheck(&identity), &Error::AuthOldRevision);
}
