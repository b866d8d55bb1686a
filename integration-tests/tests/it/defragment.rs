//! Defragmentation, as clients and operators see it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_integration_tests::{Binary, Client, Site};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    StatusRequest, StatusResponse,
};
use quorate_proto::grpc::health::v1::health_check_response::ServingStatus;
use quorate_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::runtime::Builder;
use tonic::metadata::MetadataMap;
use tonic_prost::ProstCodec;

/// Values that are deleted again, and their bytes: 20 MB.
const VALUES: u64 = 200;
const VALUE_BYTES: usize = 100_000;

async fn put(client: &Client, key: String, value: Vec<u8>) {
    let request = PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    };
    let _: PutResponse = client.call("KV/Put", request).await.unwrap();
}

async fn status(client: &Client) -> StatusResponse {
    let status = client.call("Maintenance/Status", StatusRequest {}).await;
    status.unwrap()
}

/// Writes keys of its own until it is told to stop; each must be acknowledged.
async fn write_on(client: Client, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let number = written.load(Ordering::Relaxed);
        put(&client, format!("on{number:06}"), b"x".to_vec()).await;
        written.store(number + 1, Ordering::Relaxed);
    }
}

async fn fill_and_delete(client: &Client) {
    for key in 0..VALUES {
        put(client, format!("big{key}"), vec![7; VALUE_BYTES]).await;
    }
    let request = DeleteRangeRequest {
        key: "big".into(),
        range_end: "bih".into(),
        prev_kv: false,
    };
    let deleted: DeleteRangeResponse = client.call("KV/DeleteRange", request).await.unwrap();
    assert_eq!(deleted.deleted, i64::try_from(VALUES).unwrap());
    let request = CompactionRequest {
        revision: deleted.header.unwrap().revision,
        physical: true,
    };
    let _: CompactionResponse = client.call("KV/Compact", request).await.unwrap();
}

#[test]
fn the_database_shrinks_and_writes_go_on_meanwhile() {
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let mut server = site.start().unwrap();
    let endpoint = site.endpoint();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let file = site.data_dir().join("member/snap/quorate.db");
    let written = runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        fill_and_delete(&client).await;
        let before = status(&client).await;
        let file_before = fs::metadata(&file).unwrap().len();
        assert!(before.db_size > 20_000_000, "{}", before.db_size);
        assert!(before.db_size_in_use < 2_000_000);

        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let writer = Client::connect(&endpoint).await.unwrap();
        let writing = tokio::spawn(write_on(writer, stop.clone(), Arc::clone(&written)));
        for _ in 0..3 {
            let until = written.load(Ordering::Relaxed) + 20;
            let defragmented: DefragmentResponse = client
                .call("Maintenance/Defragment", DefragmentRequest {})
                .await
                .unwrap();
            assert_eq!(defragmented.header, None);
            while written.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        writing.await.unwrap();
        let after = status(&client).await;
        assert!(after.db_size < before.db_size / 5, "{}", after.db_size);
        let file_after = fs::metadata(&file).unwrap().len();
        assert!(
            file_after < file_before / 2,
            "{file_before} bytes, then {file_after}"
        );
        written.load(Ordering::Relaxed)
    });
    // All of it is in the file that has the name.
    server.terminate().unwrap();
    let _server = site.start().unwrap();
    let counted: RangeResponse = runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        let request = RangeRequest {
            key: "on".into(),
            range_end: "oo".into(),
            count_only: true,
            ..RangeRequest::default()
        };
        client.call("KV/Range", request).await.unwrap()
    });
    assert_eq!(counted.count, i64::try_from(written).unwrap());
}

#[test]
fn a_start_defragments_what_is_worth_it_and_says_so_when_not() {
    let binary = Binary::quorate().unwrap();
    let site = Site::new(&binary).unwrap();
    let site = site.with_args(&["--bootstrap-defrag-threshold-megabytes=5"]);
    let mut server = site.start().unwrap();
    assert!(
        server
            .log_since_start()
            .contains("Skipping defragmentation")
    );
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = site.endpoint();
    runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        fill_and_delete(&client).await;
    });
    server.terminate().unwrap();
    let server = site.start().unwrap();
    let log = server.log_since_start();
    assert!(log.contains("finished defragmenting directory"), "{log}");
    let after = runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        status(&client).await
    });
    assert!(after.db_size < 2_000_000, "{}", after.db_size);
}

/// Whether health said NOT_SERVING while the database was defragmented again and again, some times or until it did.
fn stops_serving(args: &[&str], times: usize) -> bool {
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let site = site.with_args(args);
    let _server = site.start().unwrap();
    let endpoint = site.endpoint();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&endpoint).await.unwrap();
        for key in 0..VALUES {
            put(&client, format!("kept{key}"), vec![7; VALUE_BYTES]).await;
        }
        let health = async || -> i32 {
            let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
            let (path, nothing) = ("/grpc.health.v1.Health/Check", MetadataMap::new());
            let asked = client.unary(path, HealthCheckRequest::default(), codec, nothing);
            asked.await.unwrap().status
        };
        let mut stopped = false;
        for _ in 0..times {
            assert_eq!(health().await, ServingStatus::Serving as i32);
            let other = Client::connect(&endpoint).await.unwrap();
            let working = tokio::spawn(async move {
                let _: DefragmentResponse = other
                    .call("Maintenance/Defragment", DefragmentRequest {})
                    .await
                    .unwrap();
            });
            while !working.is_finished() {
                stopped |= health().await == ServingStatus::NotServing as i32;
                put(&client, "served".to_owned(), b"all along".to_vec()).await;
            }
            working.await.unwrap();
            if stopped {
                break;
            }
        }
        assert_eq!(health().await, ServingStatus::Serving as i32);
        stopped
    })
}

#[test]
fn health_says_that_nothing_is_served_meanwhile_if_it_is_to() {
    let gate = "--feature-gates=StopGRPCServiceOnDefrag=true";
    assert!(stops_serving(&[gate], 50));
    assert!(!stops_serving(&[], 3));
}
