//! The service `Auth`, and what it does to the others.
use quorate_proto::authpb::Permission;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

use crate::echo::run;
use crate::member::{Client, Served, refused};

async fn done(client: &Client, method: &str, request: &impl prost::Message) {
    let answer: pb::AuthEnableResponse = client
        .call(&format!("/etcdserverpb.Auth/{method}"), request)
        .await
        .unwrap();
    assert_eq!(answer.header.unwrap().cluster_id, 7, "{method}");
}

async fn login(client: &Client, name: &str, password: &str) -> Result<Client, (u8, String)> {
    let request = pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let answer: pb::AuthenticateResponse = client
        .call("/etcdserverpb.Auth/Authenticate", &request)
        .await?;
    Ok(client.with_token(&answer.token))
}

/// Makes root, and alice who may read and write `a`, and turns authentication on.
async fn enable(client: &Client) {
    for name in ["root", "alice"] {
        let add = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: "pw".to_owned(),
            ..Default::default()
        };
        done(client, "UserAdd", &add).await;
    }
    done(
        client,
        "UserGrantRole",
        &pb::AuthUserGrantRoleRequest {
            user: "root".into(),
            role: "root".into(),
        },
    )
    .await;
    done(
        client,
        "RoleAdd",
        &pb::AuthRoleAddRequest { name: "r".into() },
    )
    .await;
    let perm = Permission {
        perm_type: 2,
        key: "a".into(),
        range_end: bytes::Bytes::new(),
    };
    done(
        client,
        "RoleGrantPermission",
        &pb::AuthRoleGrantPermissionRequest {
            name: "r".into(),
            perm: Some(perm),
        },
    )
    .await;
    done(
        client,
        "UserGrantRole",
        &pb::AuthUserGrantRoleRequest {
            user: "alice".into(),
            role: "r".into(),
        },
    )
    .await;
    done(client, "AuthEnable", &pb::AuthEnableRequest {}).await;
}

#[test]
fn users_may_do_what_their_roles_say_and_no_more() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let early = login(&client, "alice", "pw").await.map(|_| ());
        assert_eq!(
            early,
            Err(refused(9, "etcdserver: authentication is not enabled"))
        );
        enable(&client).await;
        let denied = refused(7, "etcdserver: permission denied");
        assert_eq!(
            client.get("a").await.unwrap_err(),
            refused(3, "etcdserver: user name is empty")
        );
        let wrong = login(&client, "alice", "wrong").await.map(|_| ());
        assert_eq!(
            wrong,
            Err(refused(
                3,
                "etcdserver: authentication failed, invalid user ID or password"
            ))
        );
        let alice = login(&client, "alice", "pw").await.unwrap();
        alice.put("a", "1").await.unwrap();
        assert_eq!(alice.get("a").await.unwrap().count, 1);
        assert_eq!(alice.put("b", "1").await.unwrap_err(), denied);
        assert_eq!(alice.get("b").await.unwrap_err(), denied);
    });
}

#[test]
fn management_needs_root_and_users_may_ask_about_themselves() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        enable(&client).await;
        let denied = refused(7, "etcdserver: permission denied");
        let alice = login(&client, "alice", "pw").await.unwrap();
        let add = pb::AuthUserAddRequest {
            name: "eve".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            alice
                .call::<pb::AuthUserAddResponse>("/etcdserverpb.Auth/UserAdd", &add)
                .await
                .unwrap_err(),
            denied
        );
        let status = pb::StatusRequest {};
        assert!(
            alice
                .call::<pb::StatusResponse>("/etcdserverpb.Maintenance/Status", &status)
                .await
                .is_ok()
        );
        let hash = pb::HashKvRequest { revision: 0 };
        let answer = alice
            .call::<pb::HashKvResponse>("/etcdserverpb.Maintenance/HashKV", &hash)
            .await;
        assert_eq!(answer.unwrap_err(), denied);
        let root = login(&client, "root", "pw").await.unwrap();
        let users: pb::AuthUserListResponse = root
            .call("/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {})
            .await
            .unwrap();
        assert_eq!(users.users, ["alice", "root"]);
        let mine: pb::AuthUserGetResponse = alice
            .call(
                "/etcdserverpb.Auth/UserGet",
                &pb::AuthUserGetRequest {
                    name: "alice".into(),
                },
            )
            .await
            .unwrap();
        assert_eq!(mine.roles, ["r"]);
        let forged = client.with_token("aaaaaaaaaaaaaaaa.1");
        assert_eq!(
            forged.get("a").await.unwrap_err(),
            refused(16, "etcdserver: invalid auth token")
        );
        let status: pb::AuthStatusResponse = client
            .call("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {})
            .await
            .unwrap();
        assert!(status.enabled);
    });
}

#[test]
fn watches_and_leases_are_checked_too() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        enable(&client).await;
        let alice = login(&client, "alice", "pw").await.unwrap();
        let root = login(&client, "root", "pw").await.unwrap();
        let create = |key: &str| pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: key.to_owned().into(),
                ..Default::default()
            })),
        };
        let mut stream = alice.open("/etcdserverpb.Watch/Watch").await;
        stream.send(&create("b"));
        let answer: pb::WatchResponse = stream.next().await.unwrap();
        assert!(answer.canceled);
        assert_eq!(
            answer.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
        stream.send(&create("a"));
        assert!(!stream.next::<pb::WatchResponse>().await.unwrap().canceled);
        let grant = pb::LeaseGrantRequest { ttl: 100, id: 5 };
        root.call::<pb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", &grant)
            .await
            .unwrap();
        let put = pb::PutRequest {
            key: "b".into(),
            lease: 5,
            ..Default::default()
        };
        root.call::<pb::PutResponse>("/etcdserverpb.KV/Put", &put)
            .await
            .unwrap();
        let mut keep = alice.open("/etcdserverpb.Lease/LeaseKeepAlive").await;
        keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        let denied = refused(7, "etcdserver: permission denied");
        assert_eq!(
            keep.next::<pb::LeaseKeepAliveResponse>().await,
            Err(denied.clone())
        );
        let leases = alice.call::<pb::LeaseLeasesResponse>(
            "/etcdserverpb.Lease/LeaseLeases",
            &pb::LeaseLeasesRequest {},
        );
        assert_eq!(leases.await, Err(denied.clone()));
        let revoke = pb::LeaseRevokeRequest { id: 5 };
        let revoked = alice
            .call::<pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", &revoke)
            .await;
        assert_eq!(revoked, Err(denied));
        let mut keep = root.open("/etcdserverpb.Lease/LeaseKeepAlive").await;
        keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        assert_eq!(
            keep.next::<pb::LeaseKeepAliveResponse>().await.unwrap().ttl,
            100
        );
    });
}

#[test]
fn passwords_are_hashed_only_for_those_who_may_set_them() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        enable(&client).await;
        let too_long = "x".repeat(73);
        let add = pb::AuthUserAddRequest {
            name: "bob".into(),
            password: too_long.clone(),
            ..Default::default()
        };
        let change = pb::AuthUserChangePasswordRequest {
            name: "root".into(),
            password: too_long,
            ..Default::default()
        };
        let as_alice = login(&client, "alice", "pw").await.unwrap();
        let as_root = login(&client, "root", "pw").await.unwrap();
        // That the password is too long is found out by hashing it, and that is not tried.
        let denied = refused(7, "etcdserver: permission denied");
        let nobody = refused(3, "etcdserver: user name is empty");
        let hashed = refused(2, "bcrypt: password length exceeds 72 bytes");
        for (caller, expected) in [(&as_alice, denied), (&client, nobody), (&as_root, hashed)] {
            let added: Result<pb::AuthUserAddResponse, _> =
                caller.call("/etcdserverpb.Auth/UserAdd", &add).await;
            assert_eq!(added.unwrap_err(), expected);
            let changed: Result<pb::AuthUserChangePasswordResponse, _> = caller
                .call("/etcdserverpb.Auth/UserChangePassword", &change)
                .await;
            assert_eq!(changed.unwrap_err(), expected);
        }
    });
}
