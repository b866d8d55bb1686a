//! Starting and stopping.

use quorate_integration_tests::{Binary, Client, Site};
use quorate_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

async fn value(client: &Client, key: &'static str) -> String {
    let request = RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call("KV/Range", request).await.unwrap();
    answer
        .kvs
        .first()
        .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
        .unwrap_or_default()
}

async fn stops_and_starts(binary: &Binary) {
    let site = Site::new(binary).unwrap();
    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    let answer: PutResponse = client.call("KV/Put", put("a", "1")).await.unwrap();
    assert_eq!(
        answer.header.unwrap().revision,
        2,
        "the first write of an empty store has revision 2"
    );
    server.terminate().unwrap();

    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    assert_eq!(value(&client, "a").await, "1");
    let answer: PutResponse = client.call("KV/Put", put("a", "2")).await.unwrap();
    assert_eq!(answer.header.unwrap().revision, 3);
    server.kill().unwrap();

    let _server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    assert_eq!(value(&client, "a").await, "2");
}

#[tokio::test]
async fn a_server_goes_on_after_sigterm_and_after_sigkill() {
    stops_and_starts(&Binary::quorate().unwrap()).await;
}

#[tokio::test]
async fn the_reference_goes_on_too() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    stops_and_starts(&etcd).await;
}
