//! Backups over the wire.
use std::path::Path;

use quorate_core::{ImageHash, check_image};
use quorate_disk::{Disk as _, OpenMode, SimDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_snap::{ImageReader, Seal};

use crate::echo::run;
use crate::member::{Client, Refused, Served};

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const CHUNK_BYTES: usize = 32 << 10;

async fn fetch(client: &Client) -> Result<Vec<pb::SnapshotResponse>, Refused> {
    let mut stream = client.open(SNAPSHOT).await;
    stream.send(&pb::SnapshotRequest {});
    stream.finish();
    let mut messages: Vec<pb::SnapshotResponse> = Vec::new();
    loop {
        let is_whole = messages
            .last()
            .is_some_and(|last| last.remaining_bytes == 0 && last.blob.len() == 32);
        if is_whole {
            return Ok(messages);
        }
        messages.push(stream.next().await?);
    }
}

#[test]
fn snapshot_is_an_image_in_equal_messages_with_its_hash_behind_it() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        for n in 0..40 {
            let value = "v".repeat(n * 300);
            client.put(&format!("key {n}"), &value).await.unwrap();
        }
        let messages = fetch(&client).await.unwrap();
        let (hash, chunks) = messages.split_last().unwrap();
        let mut whole: Vec<u8> = Vec::new();
        for (n, chunk) in chunks.iter().enumerate() {
            let is_last = n + 1 == chunks.len();
            assert!(chunk.blob.len() == CHUNK_BYTES || is_last, "{n}");
            assert!(chunk.header.is_none());
            assert_eq!(chunk.version, hash.version);
            whole.extend(&chunk.blob[..]);
            let sent = u64::try_from(whole.len()).unwrap();
            assert_eq!(
                chunk.remaining_bytes + sent,
                chunks[0].remaining_bytes + 32_768
            );
        }
        assert!(chunks.len() > 3);
        let mut found = ImageHash::default();
        found.update(&whole);
        assert_eq!(hash.blob, &found.finish()[..]);

        let disk = SimDisk::new(1);
        let path = Path::new("/backup");
        let file = disk.open(path, OpenMode::Create).unwrap();
        whole.extend(&hash.blob[..]);
        file.write_all_at(&whole, 0).unwrap();
        let image = ImageReader::open(&disk, path).unwrap();
        assert_eq!(image.check_seal().unwrap(), Seal::Whole);
        let facts = check_image(&image).unwrap();
        assert_eq!(facts.revision.main, 41);
        assert_eq!(image.rows(b"key").count(), 40);
    });
}

/// A client that reads nothing holds up nobody, and its snapshot stays as it was when it began.
#[test]
fn slow_reader_gets_the_state_of_the_beginning() {
    let served = Served::start();
    run(async {
        let client = served.client().await;
        let value = "v".repeat(100_000);
        for n in 0..30 {
            client.put(&format!("key {n}"), &value).await.unwrap();
        }
        let mut stream = client.open(SNAPSHOT).await;
        stream.send(&pb::SnapshotRequest {});
        stream.finish();
        let first: pb::SnapshotResponse = stream.next().await.unwrap();
        let other = served.client().await;
        for n in 0..10 {
            other.put(&format!("later {n}"), &value).await.unwrap();
        }
        let mut size = first.blob.len();
        let mut remaining = first.remaining_bytes;
        while remaining > 0 {
            let next: pb::SnapshotResponse = stream.next().await.unwrap();
            size += next.blob.len();
            remaining = next.remaining_bytes;
        }
        assert_eq!(
            size,
            first.blob.len() + usize::try_from(first.remaining_bytes).unwrap()
        );
        assert!((3_000_000..3_900_000).contains(&size), "{size}");
    });
}
