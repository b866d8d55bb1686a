//! Data directories that are wrong: a clear refusal that touches nothing, or everything acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_integration_tests::{Binary, Client, Random, Site};
use quorate_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};

fn new_site() -> Site {
    Site::new(&Binary::quorate().unwrap()).unwrap()
}

/// Every file below `dir` with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn restore(dir: &Path, kept: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(dir).unwrap();
    for (path, bytes) in kept {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

async fn put(client: &Client, n: usize, len: usize) -> Result<PutResponse, tonic::Status> {
    let value = format!("{n:08}").into_bytes().repeat(len.div_ceil(8));
    let request = PutRequest {
        key: Bytes::from(format!("k{n:05}")),
        value: value.into(),
        ..PutRequest::default()
    };
    client.call("KV/Put", request).await
}

/// The keys that are there, whole.
async fn count(site: &Site, len: usize) -> usize {
    let client = Client::connect(&site.endpoint()).await.unwrap();
    let mut count = 0;
    loop {
        let request = RangeRequest {
            key: Bytes::from(format!("k{count:05}")),
            ..RangeRequest::default()
        };
        let answer: RangeResponse = client.call("KV/Range", request).await.unwrap();
        let Some(kv) = answer.kvs.first() else {
            return count;
        };
        assert_eq!(
            kv.value,
            format!("{count:08}").into_bytes().repeat(len.div_ceil(8)),
            "k{count:05}"
        );
        count += 1;
    }
}

/// The server refuses to run and says why in words of its own.
fn assert_refused(site: &Site, words: &[&str]) {
    let (status, log) = site.start_refused().unwrap();
    assert!(
        !status.success() && status.code().is_some(),
        "ended with {status}: {log}"
    );
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        words.iter().any(|word| log.contains(word)),
        "none of {words:?} in: {log}"
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let site = new_site();
    let _server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    put(&client, 0, 100).await.unwrap();
    assert_refused(&site.twin().unwrap(), &["in use"]);
    put(&client, 1, 100).await.unwrap();
    assert_eq!(count(&site, 100).await, 2);
}

#[test]
fn a_directory_of_etcd_is_refused_and_left_alone() {
    let site = new_site();
    let member = site.data_dir().join("member");
    fs::create_dir_all(member.join("snap")).unwrap();
    fs::create_dir_all(member.join("wal")).unwrap();
    // As far as etcd's files can be told: two meta pages with bbolt's magic, and a log by its name.
    let mut page = vec![0; 4_096];
    page[16..20].copy_from_slice(&0xed0c_daed_u32.to_le_bytes());
    fs::write(member.join("snap/db"), page.repeat(4)).unwrap();
    fs::write(
        member.join("wal/0000000000000000-0000000000000000.wal"),
        vec![0; 65_536],
    )
    .unwrap();
    let before = files(&site.data_dir());
    assert_refused(&site, &["etcd"]);
    assert_eq!(
        files(&site.data_dir()),
        before,
        "files of etcd were touched"
    );
}

/// The same with files that a real etcd wrote, where one is at hand.
#[tokio::test]
async fn a_directory_that_etcd_wrote_is_refused_and_left_alone() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    let theirs = Site::new(&etcd).unwrap();
    let mut server = theirs.start().unwrap();
    put(&Client::connect(&theirs.endpoint()).await.unwrap(), 0, 100)
        .await
        .unwrap();
    server.terminate().unwrap();
    let before = files(&theirs.data_dir());
    assert_refused(&new_site().with_data_dir(&theirs.data_dir()), &["etcd"]);
    assert_eq!(
        files(&theirs.data_dir()),
        before,
        "files of etcd were touched"
    );
    let _server = theirs.start().unwrap();
    assert_eq!(count(&theirs, 100).await, 1);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let words = ["cannot", "denied", "directory", "Read-only"];
    let site = new_site();
    fs::write(site.data_dir(), "a file").unwrap();
    assert_refused(&site, &words);
    assert_eq!(fs::read_to_string(site.data_dir()).unwrap(), "a file");
    assert_refused(
        &new_site().with_data_dir(Path::new("/dev/null/data")),
        &words,
    );
    // Nothing can be made there, whoever asks.
    assert_refused(
        &new_site().with_data_dir(Path::new("/proc/quorate")),
        &words,
    );
}

/// One byte changed anywhere: the server refuses, or everything is there.
#[tokio::test]
async fn a_flipped_byte_is_noticed_or_harmless() {
    const KEYS: usize = 40;
    const LEN: usize = 3_000;
    const FLIPS: u64 = 6;
    let site = new_site();
    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    for n in 0..KEYS {
        put(&client, n, LEN).await.unwrap();
    }
    server.terminate().unwrap();
    let whole = files(&site.data_dir());
    let mut random = Random::new(7);
    let mut refused = 0;
    for (path, bytes) in &whole {
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        for _ in 0..FLIPS.min(u64::try_from(used).unwrap()) {
            let at = usize::try_from(random.below(u64::try_from(used).unwrap())).unwrap();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << random.below(8);
            fs::write(path, damaged).unwrap();
            refused += u32::from(
                !serves_all(
                    &site,
                    KEYS,
                    LEN,
                    &format!("byte {at} of {}", path.display()),
                )
                .await,
            );
            restore(&site.data_dir(), &whole);
        }
    }
    assert!(refused > 0, "no damage was noticed at all");
}

/// A file gone, empty or cut in half: the server refuses, or everything is there.
#[tokio::test]
async fn missing_and_shortened_files_are_noticed_or_harmless() {
    const KEYS: usize = 40;
    const LEN: usize = 3_000;
    let site = new_site();
    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    for n in 0..KEYS {
        put(&client, n, LEN).await.unwrap();
    }
    server.terminate().unwrap();
    let whole = files(&site.data_dir());
    for (path, bytes) in &whole {
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        for keep in [None, Some(0), Some(used / 2), Some(used.saturating_sub(1))] {
            match keep {
                None => fs::remove_file(path).unwrap(),
                Some(len) => fs::write(path, &bytes[..len]).unwrap(),
            }
            serves_all(
                &site,
                KEYS,
                LEN,
                &format!("{} cut to {keep:?}", path.display()),
            )
            .await;
            restore(&site.data_dir(), &whole);
        }
    }
}

/// Bytes behind the log's end, as a write leaves them that a crash interrupts: they are cut, and it is said.
#[tokio::test]
async fn a_torn_tail_is_cut_and_told() {
    const LEN: usize = 100;
    let site = new_site();
    let mut server = site.start().unwrap();
    assert!(!server.log_since_start().contains("repaired WAL"));
    let client = Client::connect(&site.endpoint()).await.unwrap();
    put(&client, 0, LEN).await.unwrap();
    server.kill().unwrap();
    let is_log = |path: &Path| path.extension().is_some_and(|end| end == "wal");
    let mut logs = files(&site.data_dir());
    logs.retain(|path, _| is_log(path));
    let (path, mut bytes) = logs.pop_last().unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end + 100] = 1;
    fs::write(&path, bytes).unwrap();
    let server = site.start().unwrap();
    assert_eq!(count(&site, LEN).await, 1);
    let log = server.log_since_start();
    let line = log.lines().find(|line| line.contains("repaired WAL"));
    let line = line.unwrap_or_else(|| panic!("nothing is said: {log}"));
    for part in ["warn", &*path.to_string_lossy(), "offset", "bytes"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// Starts on damaged files: true when everything is there, false when it is refused, clearly.
async fn serves_all(site: &Site, keys: usize, len: usize, damage: &str) -> bool {
    let mut server = site.spawn().unwrap();
    if server.wait_ready().is_err() {
        let log = server.log_since_start();
        let ended = server.poll().unwrap();
        assert!(
            ended.is_some_and(|status| status.code().is_some_and(|code| code != 0)),
            "{damage}: ended {ended:?}: {log}"
        );
        assert!(!log.contains("panicked"), "{damage}: {log}");
        return false;
    }
    assert_eq!(
        count(site, len).await,
        keys,
        "{damage}: keys are lost without a word"
    );
    server.kill().unwrap();
    true
}

/// No space: the server stops acknowledging and ends; what it had acknowledged is there when there is space again.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    const LEN: usize = 1_000_000;
    const PUTS_MAX: usize = 300;
    const LIMIT_BYTES: u64 = 96 << 20;
    let site = new_site().with_file_limit(Some(LIMIT_BYTES));
    let mut server = site.start().unwrap();
    let client = Client::connect(&site.endpoint()).await.unwrap();
    let mut acknowledged = 0;
    while acknowledged < PUTS_MAX && put(&client, acknowledged, LEN).await.is_ok() {
        acknowledged += 1;
    }
    assert!(
        acknowledged < PUTS_MAX,
        "the limit of the files is not felt"
    );
    let log = site.log();
    assert!(!log.contains("panicked"), "{log}");
    if server.poll().unwrap().is_none() {
        server.kill().unwrap();
    }
    let site = site.with_file_limit(None);
    let _server = site.start().unwrap();
    let there = count(&site, LEN).await;
    assert!(
        there >= acknowledged,
        "{acknowledged} puts were acknowledged and {there} are there"
    );
}
