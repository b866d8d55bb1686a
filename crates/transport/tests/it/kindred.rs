//! What only members of our own kind ask each other.
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::{LeaseId, MemberId};
use quorate_transport::{Error, Refusal};

use crate::PATIENCE;
use crate::member::{TestMember, config, runtime, wait_for_links};
use crate::proxy::{Proxy, Weather};

#[test]
fn leases_are_renewed_and_told_of_in_batches_by_our_own_and_one_by_one_by_others() {
    for checksums in [true, false] {
        let runtime = runtime();
        let start = |id| {
            let mut config = config(id);
            // Who offers no checksums is taken for a member of etcd.
            config.checksums = checksums;
            TestMember::start(&runtime, config)
        };
        let (one, two) = (start(1), start(2));
        one.add(&two);
        two.add(&one);
        wait_for_links(&runtime, &[&one, &two]);
        assert_eq!(one.transport.is_kindred(MemberId(2)), checksums);
        let leases = (1..=1000).filter(|id| id % 3 != 0).map(|id| (id, id * 10));
        two.mouth.leases.lock().unwrap().extend(leases);
        let renewing: Vec<_> = (1..=1000)
            .map(|id| {
                let (transport, urls) = (one.transport.clone(), vec![two.url.clone()]);
                let renewal =
                    async move { transport.renew_lease_on(urls, LeaseId(id), PATIENCE).await };
                (id, runtime.spawn(renewal))
            })
            .collect();
        let telling: Vec<_> = (1..=1000)
            .map(|id| {
                let (transport, urls) = (one.transport.clone(), vec![two.url.clone()]);
                let keys = id % 5 == 0;
                let asking = async move {
                    transport
                        .time_to_live_on(urls, LeaseId(id), keys, PATIENCE)
                        .await
                };
                (id, runtime.spawn(asking))
            })
            .collect();
        for (id, told) in telling {
            match runtime.block_on(told).unwrap() {
                Ok(told) => {
                    assert_eq!(
                        (told.ttl_s, told.granted_ttl_s, id % 3 == 0),
                        (3, 10, false)
                    );
                    assert_eq!(told.keys.len(), usize::from(id % 5 == 0));
                }
                Err(Error::Refused(Refusal::LeaseNotFound)) => assert_eq!(id % 3, 0),
                Err(error) => panic!("{id} {error}"),
            }
        }
        for (id, renewed) in renewing {
            match runtime.block_on(renewed).unwrap() {
                Ok(ttl) => assert_eq!((ttl, id % 3 == 0), (id * 10, false)),
                Err(Error::Refused(Refusal::LeaseNotFound)) => assert_eq!(id % 3, 0),
                Err(error) => panic!("{id} {error}"),
            }
        }
        *two.mouth.refusal.lock().unwrap() = Some(Refusal::NotPrimary);
        let urls = vec![two.url.clone()];
        let asked = runtime.block_on(one.transport.renew_lease_on(urls, LeaseId(1), PATIENCE));
        assert!(
            matches!(asked, Err(Error::Refused(Refusal::NotPrimary))),
            "{asked:?}"
        );
    }
}

#[test]
fn own_kind_exchanges_bytes_and_others_are_not_asked() {
    let runtime = runtime();
    let (one, two) = (
        TestMember::start(&runtime, config(1)),
        TestMember::start(&runtime, config(2)),
    );
    let proxy = Proxy::start(&runtime, &two.url);
    one.add_at(2, &proxy.url);
    two.add(&one);
    wait_for_links(&runtime, &[&one, &two]);
    let ask = |id| {
        let body = Bytes::from_static(b"?");
        let timeout = Duration::from_secs(5);
        runtime.block_on(
            one.transport
                .exchange(MemberId(id), "digest", body, timeout),
        )
    };
    assert_eq!(ask(2).unwrap(), "digest?");
    *two.mouth.refusal.lock().unwrap() = Some(Refusal::Other("no".to_owned()));
    assert!(matches!(ask(2), Err(Error::Refused(Refusal::Other(why))) if why == "no"));
    assert!(matches!(
        ask(3),
        Err(Error::Refused(Refusal::MemberNotFound))
    ));
    *two.mouth.refusal.lock().unwrap() = None;
    for every in [30, 100, 300] {
        proxy.set(Weather::Spoil(every));
        let answered = ask(2);
        assert!(answered.is_err() || answered.is_ok_and(|answer| answer == "digest?"));
    }
}
