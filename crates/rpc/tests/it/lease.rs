//! The service `Lease` over a real member.
use quorate_proto::etcdserverpb as pb;

use crate::echo::run;
use crate::member::{Served, refused};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

#[test]
fn leases_live_and_end_with_their_keys() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let granted: pb::LeaseGrantResponse = client
            .call(GRANT, &pb::LeaseGrantRequest { ttl: 100, id: 7 })
            .await
            .unwrap();
        assert_eq!(
            (granted.id, granted.ttl, granted.header.unwrap().revision),
            (7, 100, 1)
        );
        let again = client
            .call::<pb::LeaseGrantResponse>(GRANT, &pb::LeaseGrantRequest { ttl: 100, id: 7 })
            .await;
        assert_eq!(again, Err(refused(9, "etcdserver: lease already exists")));
        let picked: pb::LeaseGrantResponse = client
            .call(GRANT, &pb::LeaseGrantRequest { ttl: 100, id: 0 })
            .await
            .unwrap();
        assert!(picked.id > 0);
        let put = pb::PutRequest {
            key: "l".into(),
            lease: 7,
            ..Default::default()
        };
        client
            .call::<pb::PutResponse>("/etcdserverpb.KV/Put", &put)
            .await
            .unwrap();
        let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
        let time: pb::LeaseTimeToLiveResponse = client.call(TIME_TO_LIVE, &ask).await.unwrap();
        assert!((95..=100).contains(&time.ttl), "{}", time.ttl);
        assert_eq!(
            (time.granted_ttl, &time.keys[..]),
            (100, &[bytes::Bytes::from("l")][..])
        );
        let revoke = pb::LeaseRevokeRequest { id: 7 };
        let revoked: pb::LeaseRevokeResponse = client.call(REVOKE, &revoke).await.unwrap();
        assert_eq!(revoked.header.unwrap().revision, 3);
        assert_eq!(client.get("l").await.unwrap().count, 0);
        let gone = client
            .call::<pb::LeaseRevokeResponse>(REVOKE, &revoke)
            .await;
        assert_eq!(
            gone,
            Err(refused(5, "etcdserver: requested lease not found"))
        );
        let time: pb::LeaseTimeToLiveResponse = client.call(TIME_TO_LIVE, &ask).await.unwrap();
        assert_eq!((time.ttl, time.granted_ttl), (-1, 0));
    });
}

#[test]
fn leases_are_renewed_and_listed() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        for id in [7, 9] {
            let grant = pb::LeaseGrantRequest { ttl: 100, id };
            client
                .call::<pb::LeaseGrantResponse>(GRANT, &grant)
                .await
                .unwrap();
        }
        let mut stream = client.open("/etcdserverpb.Lease/LeaseKeepAlive").await;
        for (id, ttl) in [(7, 100), (8, 0), (7, 100)] {
            stream.send(&pb::LeaseKeepAliveRequest { id });
            let kept: pb::LeaseKeepAliveResponse = stream.next().await.unwrap();
            assert_eq!((kept.id, kept.ttl), (id, ttl));
        }
        stream.finish();
        assert_eq!(
            stream.next::<pb::LeaseKeepAliveResponse>().await,
            Err(refused(0, ""))
        );
        let all: pb::LeaseLeasesResponse = client
            .call(
                "/etcdserverpb.Lease/LeaseLeases",
                &pb::LeaseLeasesRequest {},
            )
            .await
            .unwrap();
        assert_eq!(all.leases.len(), 2);
    });
}
