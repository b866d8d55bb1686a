//! The `etcd-client` crate: keys, transactions, watches, leases, users and roles, maintenance.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions,
    LeaseTimeToLiveOptions, Permission, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, WatchOptions,
};
use quorate_integration_tests::{Binary, Server, Site};

type Outcome = Result<(), Error>;

/// Runs a test against the server under test and, where one is at hand, a real etcd.
macro_rules! against_servers {
    ($($test:ident)*) => {$(
        #[tokio::test]
        async fn $test() {
            let mut binaries = vec![Binary::quorate().unwrap()];
            binaries.extend(Binary::reference().unwrap());
            for binary in binaries {
                let (site, _server) = start(&binary);
                let client = Client::connect([site.endpoint()], None).await.unwrap();
                checks::$test(client, &site.endpoint()).await.unwrap();
            }
        }
    )*};
}

against_servers! {
    keys_are_put_read_and_deleted
    ranges_are_sorted_limited_and_paged
    transactions_choose_a_branch
    watches_show_changes_and_end
    leases_take_their_keys_along
    users_may_do_what_their_roles_allow
    the_server_describes_itself
    history_is_kept_until_it_is_compacted
}

fn start(binary: &Binary) -> (Site, Server) {
    let site = Site::new(binary).unwrap();
    let server = site.start().unwrap();
    (site, server)
}

fn message(error: Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => panic!("not an answer of the server: {other}"),
    }
}

mod checks {
    use super::*;

    pub async fn keys_are_put_read_and_deleted(mut client: Client, _: &str) -> Outcome {
        assert!(
            client
                .put("greeting", "hello", None)
                .await?
                .prev_key()
                .is_none()
        );
        let options = PutOptions::new().with_prev_key();
        let answer = client.put("greeting", "hi", Some(options)).await?;
        assert_eq!(answer.prev_key().unwrap().value_str()?, "hello");
        let answer = client.get("greeting", None).await?;
        let kv = &answer.kvs()[0];
        assert_eq!(
            (
                kv.value_str()?,
                kv.version(),
                kv.create_revision(),
                kv.mod_revision()
            ),
            ("hi", 2, 2, 3)
        );
        assert_eq!(client.delete("greeting", None).await?.deleted(), 1);
        assert_eq!(client.get("greeting", None).await?.count(), 0);
        let refused = client.put("", "x", None).await.unwrap_err();
        assert_eq!(message(refused), "etcdserver: key is not provided");
        Ok(())
    }

    pub async fn ranges_are_sorted_limited_and_paged(mut client: Client, _: &str) -> Outcome {
        for (key, value) in [("p/a", "3"), ("p/b", "1"), ("p/c", "2"), ("q", "0")] {
            client.put(key, value, None).await?;
        }
        let by_value = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Value, SortOrder::Descend);
        let answer = client.get("p/", Some(by_value)).await?;
        let keys: Vec<&str> = answer
            .kvs()
            .iter()
            .map(|kv| kv.key_str().unwrap())
            .collect();
        assert_eq!(keys, ["p/a", "p/c", "p/b"]);
        let page = GetOptions::new().with_prefix().with_limit(2);
        let answer = client.get("p/", Some(page)).await?;
        assert_eq!(
            (answer.kvs().len(), answer.count(), answer.more()),
            (2, 3, true)
        );
        let keys_only = GetOptions::new().with_from_key().with_keys_only();
        let answer = client.get("p/c", Some(keys_only)).await?;
        assert_eq!(answer.kvs().len(), 2);
        assert!(answer.kvs().iter().all(|kv| kv.value().is_empty()));
        let count = client
            .get(
                "p/",
                Some(GetOptions::new().with_prefix().with_count_only()),
            )
            .await?;
        assert_eq!((count.count(), count.kvs().len()), (3, 0));
        Ok(())
    }

    pub async fn transactions_choose_a_branch(mut client: Client, _: &str) -> Outcome {
        let txn = || {
            Txn::new()
                .when([Compare::version("lock", CompareOp::Equal, 0)])
                .and_then([TxnOp::put("lock", "mine", None), TxnOp::get("lock", None)])
                .or_else([TxnOp::get("lock", None)])
        };
        let answer = client.txn(txn()).await?;
        assert!(answer.succeeded());
        assert_eq!(answer.op_responses().len(), 2);
        let answer = client.txn(txn()).await?;
        assert!(!answer.succeeded());
        let responses = answer.op_responses();
        let [TxnOpResponse::Get(found)] = responses.as_slice() else {
            panic!("not the other branch: {responses:?}");
        };
        assert_eq!(found.kvs()[0].value_str()?, "mine");
        let nested = Txn::new().and_then([TxnOp::txn(txn()), TxnOp::put("after", "1", None)]);
        assert_eq!(client.txn(nested).await?.op_responses().len(), 2);
        let twice = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)]);
        let refused = client.txn(twice).await.unwrap_err();
        assert_eq!(
            message(refused),
            "etcdserver: duplicate key given in txn request"
        );
        Ok(())
    }

    pub async fn watches_show_changes_and_end(mut client: Client, _: &str) -> Outcome {
        client.put("w/a", "1", None).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(2)
            .with_prev_key();
        let mut stream = client.watch("w/", Some(options)).await?;
        client.put("w/a", "2", None).await?;
        client.delete("w/a", None).await?;
        let (mut seen, mut id) = (Vec::new(), 0);
        while seen.len() < 3 {
            let answer = stream.message().await?.expect("the watch goes on");
            id = answer.watch_id();
            for event in answer.events() {
                let before = event.prev_kv().map(|kv| kv.value_str().unwrap().to_owned());
                seen.push((
                    event.event_type(),
                    event.kv().unwrap().mod_revision(),
                    before,
                ));
            }
        }
        assert_eq!(
            seen,
            [
                (EventType::Put, 2, None),
                (EventType::Put, 3, Some("1".to_owned())),
                (EventType::Delete, 4, Some("2".to_owned())),
            ]
        );
        stream.request_progress().await?;
        let progress = stream.message().await?.unwrap();
        assert_eq!(
            (
                progress.events().len(),
                progress.header().unwrap().revision()
            ),
            (0, 4)
        );
        stream.cancel(id).await?;
        assert!(stream.message().await?.unwrap().canceled());
        Ok(())
    }

    pub async fn leases_take_their_keys_along(mut client: Client, _: &str) -> Outcome {
        let lease = client.lease_grant(60, None).await?.id();
        let options = || Some(PutOptions::new().with_lease(lease));
        client.put("l/a", "1", options()).await?;
        client.put("l/b", "1", options()).await?;
        let with_keys = LeaseTimeToLiveOptions::new().with_keys();
        let shown = client.lease_time_to_live(lease, Some(with_keys)).await?;
        assert_eq!((shown.granted_ttl(), shown.keys().len()), (60, 2));
        let (mut keeper, mut stream) = client.lease_keep_alive(lease).await?;
        keeper.keep_alive().await?;
        assert_eq!(stream.message().await?.unwrap().ttl(), 60);
        assert_eq!(client.leases().await?.leases().len(), 1);
        client.lease_revoke(lease).await?;
        assert_eq!(
            client
                .get("l/", Some(GetOptions::new().with_prefix()))
                .await?
                .count(),
            0
        );
        let refused = client.put("l/c", "1", options()).await.unwrap_err();
        assert_eq!(message(refused), "etcdserver: requested lease not found");

        let short = client.lease_grant(1, None).await?.id();
        client
            .put("l/short", "1", Some(PutOptions::new().with_lease(short)))
            .await?;
        let mut stream = client.watch("l/short", None).await?;
        let gone = async {
            while let Some(answer) = stream.message().await? {
                if answer
                    .events()
                    .iter()
                    .any(|event| event.event_type() == EventType::Delete)
                {
                    return Ok::<(), Error>(());
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("the lease does not end")?;
        Ok(())
    }

    pub async fn users_may_do_what_their_roles_allow(
        mut client: Client,
        endpoint: &str,
    ) -> Outcome {
        client.user_add("root", "secret", None).await?;
        client.role_add("root").await?;
        client.user_grant_role("root", "root").await?;
        client.user_add("reader", "word", None).await?;
        client.role_add("readers").await?;
        client
            .role_grant_permission("readers", Permission::read("r/").with_prefix())
            .await?;
        client.user_grant_role("reader", "readers").await?;
        client.put("r/a", "1", None).await?;
        client.auth_enable().await?;

        let refused = client.put("r/a", "2", None).await.unwrap_err();
        assert_eq!(message(refused), "etcdserver: user name is empty");
        let connect = |name: &'static str, password: &'static str| {
            Client::connect(
                [endpoint.to_owned()],
                Some(ConnectOptions::new().with_user(name, password)),
            )
        };
        let Err(refused) = connect("reader", "wrong").await else {
            panic!("a wrong password is taken");
        };
        assert_eq!(
            message(refused),
            "etcdserver: authentication failed, invalid user ID or password"
        );
        let mut reader = connect("reader", "word").await?;
        assert_eq!(reader.get("r/a", None).await?.kvs()[0].value_str()?, "1");
        let refused = reader.put("r/a", "2", None).await.unwrap_err();
        assert_eq!(message(refused), "etcdserver: permission denied");
        let refused = reader.get("s", None).await.unwrap_err();
        assert_eq!(message(refused), "etcdserver: permission denied");

        let mut root = connect("root", "secret").await?;
        assert_eq!(root.user_get("reader").await?.roles(), ["readers"]);
        assert_eq!(root.role_list().await?.roles(), ["readers", "root"]);
        assert_eq!(root.role_get("readers").await?.permissions().len(), 1);
        root.auth_disable().await?;
        client.put("r/a", "2", None).await?;
        Ok(())
    }

    pub async fn the_server_describes_itself(mut client: Client, endpoint: &str) -> Outcome {
        let status = client.status().await?;
        assert_eq!(status.version(), "3.7.1");
        assert_eq!(status.leader(), status.header().unwrap().member_id());
        assert!(status.errors().is_empty() && !status.is_learner());
        let members = client.member_list().await?;
        assert_eq!(
            members.members()[0].client_urls(),
            [format!("http://{endpoint}")]
        );
        assert_eq!(members.members()[0].name(), "default");
        client.put("a", "1", None).await?;
        let hash = client.hash_kv(0).await?;
        assert_eq!(hash.hash(), client.hash_kv(2).await?.hash());
        Ok(())
    }

    pub async fn history_is_kept_until_it_is_compacted(mut client: Client, _: &str) -> Outcome {
        for value in ["1", "2", "3"] {
            client.put("h", value, None).await?;
        }
        let at = |revision| Some(GetOptions::new().with_revision(revision));
        assert_eq!(client.get("h", at(2)).await?.kvs()[0].value_str()?, "1");
        client.compact(3, None).await?;
        let refused = client.get("h", at(2)).await.unwrap_err();
        assert_eq!(
            message(refused),
            "etcdserver: mvcc: required revision has been compacted"
        );
        assert_eq!(client.get("h", at(3)).await?.kvs()[0].value_str()?, "2");
        let refused = client.get("h", at(99)).await.unwrap_err();
        assert_eq!(
            message(refused),
            "etcdserver: mvcc: required revision is a future revision"
        );
        let mut stream = client
            .watch("h", Some(WatchOptions::new().with_start_revision(2)))
            .await?;
        loop {
            let answer = stream.message().await?.expect("an answer before the end");
            if answer.canceled() {
                assert_eq!(answer.compact_revision(), 3);
                return Ok(());
            }
        }
    }
}
