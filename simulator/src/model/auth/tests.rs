use super::*;

fn root() -> Caller {
    Caller {
        name: ROOT.into(),
        revision: u64::MAX,
    }
}

fn apply(
    auth: &mut Auth,
    caller: &Caller,
    set: impl FnOnce(&mut pb::InternalRaftRequest),
) -> Result<AuthReply, Refusal> {
    let mut request = pb::InternalRaftRequest::default();
    set(&mut request);
    auth.apply(caller, &request, 9)
        .expect("it is about users and roles")
}

fn add_user(auth: &mut Auth, caller: &Caller, name: &str) -> Result<AuthReply, Refusal> {
    apply(auth, caller, |r| {
        r.auth_user_add = Some(pb::AuthUserAddRequest {
            name: name.into(),
            ..Default::default()
        });
    })
}

fn add_role(auth: &mut Auth, name: &str) -> Result<AuthReply, Refusal> {
    apply(auth, &root(), |r| {
        r.auth_role_add = Some(pb::AuthRoleAddRequest { name: name.into() });
    })
}

fn grant_role(auth: &mut Auth, user: &str, role: &str) -> Result<AuthReply, Refusal> {
    apply(auth, &root(), |r| {
        r.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        });
    })
}

fn grant(
    auth: &mut Auth,
    role: &str,
    (perm_type, key, end): (i32, &'static str, &'static str),
) -> Result<AuthReply, Refusal> {
    apply(auth, &root(), |r| {
        r.auth_role_grant_permission = Some(pb::AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(Permission {
                perm_type,
                key: key.into(),
                range_end: end.into(),
            }),
        });
    })
}

fn enable(auth: &mut Auth) -> Result<AuthReply, Refusal> {
    apply(auth, &Caller::default(), |r| {
        r.auth_enable = Some(pb::AuthEnableRequest {});
    })
}

/// root, and alice who may read a..c, write c, and both from x on.
fn enabled() -> Auth {
    let mut auth = Auth::default();
    add_user(&mut auth, &Caller::default(), ROOT).unwrap();
    add_user(&mut auth, &Caller::default(), "alice").unwrap();
    grant_role(&mut auth, ROOT, ROOT).unwrap();
    add_role(&mut auth, "r").unwrap();
    for permission in [(0, "a", "b"), (0, "b", "c"), (1, "c", ""), (2, "x", "\0")] {
        grant(&mut auth, "r", permission).unwrap();
    }
    grant_role(&mut auth, "alice", "r").unwrap();
    enable(&mut auth).unwrap();
    auth
}

#[test]
fn enabling_needs_root_with_its_role_and_does_not_count_as_a_change() {
    let mut auth = Auth::default();
    assert_eq!(enable(&mut auth), Err(Refusal::RootUserNotExist));
    add_user(&mut auth, &Caller::default(), ROOT).unwrap();
    assert_eq!(enable(&mut auth), Err(Refusal::RootRoleNotExist));
    grant_role(&mut auth, ROOT, ROOT).unwrap();
    assert_eq!(auth.revision(), 3);
    enable(&mut auth).unwrap();
    assert_eq!((auth.revision(), auth.is_enabled()), (3, true));
    assert_eq!(enable(&mut auth), Err(Refusal::UserEmpty));
}

#[test]
fn spans_that_touch_cover_together() {
    let auth = enabled();
    let alice = Caller {
        name: "alice".into(),
        revision: auth.revision(),
    };
    let may = |kind, key: &'static str, end: &'static str| {
        auth.may(&alice, kind, &Span::new(&key.into(), &end.into()))
            .is_ok()
    };
    assert!(may(Kind::Read, "a", "c") && !may(Kind::Read, "a", "d"));
    assert!(may(Kind::Write, "c", "") && !may(Kind::Write, "c", "d"));
    assert!(!may(Kind::Read, "c", "") && !may(Kind::Read, "a", "\0"));
    assert!(may(Kind::Read, "xyz", "\0") && may(Kind::Write, "x", "z"));
}

#[test]
fn callers_are_refused_in_the_order_of_the_reference() {
    let auth = enabled();
    let may = |name: &str, revision| {
        let caller = Caller {
            name: name.into(),
            revision,
        };
        auth.may(&caller, Kind::Write, &Span::single(&"a".into()))
    };
    assert_eq!(may("", 0), Err(Refusal::UserEmpty));
    assert_eq!(may("bob", 1), Err(Refusal::AuthOldRevision));
    assert_eq!(may("bob", auth.revision()), Err(Refusal::PermissionDenied));
    assert_eq!(
        may("alice", auth.revision()),
        Err(Refusal::PermissionDenied)
    );
    assert_eq!(may(ROOT, auth.revision()), Ok(()));
    let admin = |name: &str| {
        auth.is_admin(&Caller {
            name: name.into(),
            revision: 1,
        })
    };
    assert_eq!(admin(""), Err(Refusal::UserEmpty));
    assert_eq!(admin("bob"), Err(Refusal::UserNotFound));
    assert_eq!(admin("alice"), Err(Refusal::PermissionDenied));
}

#[test]
fn root_cannot_be_disarmed_while_enabled() {
    let mut auth = enabled();
    let delete = |auth: &mut Auth, name: &str| {
        apply(auth, &root(), |r| {
            r.auth_user_delete = Some(pb::AuthUserDeleteRequest { name: name.into() });
        })
    };
    assert_eq!(delete(&mut auth, ROOT), Err(Refusal::InvalidAuthMgmt));
    assert_eq!(delete(&mut auth, "bob"), Err(Refusal::UserNotFound));
    let revoked = apply(&mut auth, &root(), |r| {
        r.auth_user_revoke_role = Some(pb::AuthUserRevokeRoleRequest {
            name: ROOT.into(),
            role: ROOT.into(),
        });
    });
    assert_eq!(revoked, Err(Refusal::InvalidAuthMgmt));
}

#[test]
fn every_change_counts_once_and_repeated_grants_do_not() {
    let mut auth = enabled();
    let before = auth.revision();
    grant_role(&mut auth, "alice", "r").unwrap();
    assert_eq!(auth.revision(), before);
    apply(&mut auth, &root(), |r| {
        r.auth_role_delete = Some(pb::AuthRoleDeleteRequest { role: "r".into() });
    })
    .unwrap();
    assert_eq!(auth.revision(), before + 1);
    let alice = apply(&mut auth, &root(), |r| {
        r.auth_user_get = Some(pb::AuthUserGetRequest {
            name: "alice".into(),
        });
    });
    assert_eq!(alice, Ok(AuthReply::Names(vec![])));
    assert_eq!(
        grant(&mut auth, "r", (0, "", "")),
        Err(Refusal::InvalidAuthMgmt)
    );
    assert_eq!(
        grant(&mut auth, "r", (0, "b", "a")),
        Err(Refusal::InvalidAuthMgmt)
    );
    assert_eq!(
        grant(&mut auth, "r", (0, "b", "")),
        Err(Refusal::RoleNotFound)
    );
}

#[test]
fn tokens_are_assigned_by_the_log_and_go_with_their_users() {
    let mut auth = enabled();
    let log_in = |auth: &mut Auth, name: &str| {
        apply(auth, &Caller::default(), |r| {
            r.authenticate = Some(pb::InternalAuthenticateRequest {
                name: name.into(),
                simple_token: "abc".into(),
                ..Default::default()
            });
        })
    };
    assert_eq!(log_in(&mut auth, "bob"), Err(Refusal::AuthFailed));
    let token = AuthReply::Token("abc.8".into());
    assert_eq!(log_in(&mut auth, "alice"), Ok(token));
    assert_eq!(auth.user_of("abc.8"), Some("alice"));
    apply(&mut auth, &root(), |r| {
        r.auth_user_change_password = Some(pb::AuthUserChangePasswordRequest {
            name: "alice".into(),
            ..Default::default()
        });
    })
    .unwrap();
    assert_eq!(auth.user_of("abc.8"), None);
    let before = auth.revision();
    apply(&mut auth, &root(), |r| {
        r.auth_disable = Some(pb::AuthDisableRequest {});
    })
    .unwrap();
    assert_eq!((auth.revision(), auth.is_enabled()), (before + 1, false));
    assert_eq!(log_in(&mut auth, "alice"), Err(Refusal::AuthNotEnabled));
}
