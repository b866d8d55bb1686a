//! `snapshot save`: a backup of one server's database into a file.
//!
//! Source: etcd v3.7.1 `client/v3/snapshot/v3_snapshot.go` `SaveWithVersion`. Differs from etcd: the hash behind the image is compared.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use quorate_snap::{IMAGE_HASH_BYTES, ImageHash};
use tokio::time::Instant;

use crate::client::{Deadline, within};
use crate::failure::{Failure, Outcome, status};
use crate::go::duration;
use crate::log;
use crate::print::humanized;
use crate::run::Session;
use crate::run::session::Connected;
use crate::terminal::print;

/// A whole sector; with the hash behind it, the file has that many bytes more than some of them.
const SECTOR_BYTES: u64 = 512;
/// How often the progress line is drawn.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub(in crate::run) async fn save(session: Session) -> Outcome {
    if session.args.len() != 1 {
        return Err(Failure::bad_args(
            "snapshot save expects one argument <filename>",
        ));
    }
    let s = session.connect().await?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(s.args[0].clone()));
    let failed = |text: String| Failure::new(status::INTERRUPTED, text);
    let [endpoint] = s.settings.endpoints.as_slice() else {
        return Err(failed(format!(
            "snapshot must be requested to one selected node, not multiple [{}]",
            s.settings.endpoints.join(" ")
        )));
    };
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = fetch(&s, endpoint, &part, &path).await;
    if saved.is_err() {
        // It may never have been made.
        let _ = std::fs::remove_file(&part);
    }
    let version = saved.map_err(failed)?;
    let mut text = format!("Snapshot saved at {}\n", path.display());
    if !version.is_empty() {
        text += &format!("Server version {version}\n");
    }
    print(text.as_bytes());
    Ok(())
}

/// Fetches into `part`, then renames it; returns the version that the server says.
async fn fetch(s: &Connected, endpoint: &str, part: &Path, path: &Path) -> Result<String, String> {
    let shown = part.display().to_string();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(|e| format!("could not open {shown} ({e})"))?;
    log::write("info", "created temporary db file", &[("path", &shown)]);
    let begun = Instant::now();
    // Only a time that was asked for: how long this takes depends on the database.
    let deadline = if s.flags.is_given("command-timeout") {
        s.deadline()
    } else {
        None
    };
    log::write("info", "fetching snapshot", &[("endpoint", endpoint)]);
    let mut download = Download::new(file);
    let received = download.receive(s, deadline).await;
    download.end_progress();
    received?;
    let size = download.size;
    if size % SECTOR_BYTES != HASH_BYTES {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    if !download.hash_is_right() {
        return Err("sha256 checksum does not match the snapshot".to_owned());
    }
    let synced = download.file.sync_all();
    synced.map_err(|e| format!("could not fsync snapshot: {e}"))?;
    log::write(
        "info",
        "fetched snapshot",
        &[
            ("endpoint", endpoint),
            ("size", &humanized(size)),
            ("took", &duration::format(begun.elapsed())),
            ("etcd-version", &download.version),
        ],
    );
    let renamed = std::fs::rename(part, path);
    let to = path.display();
    renamed.map_err(|e| format!("could not rename {shown} to {to} ({e})"))?;
    log::write("info", "saved", &[("path", &to.to_string())]);
    Ok(download.version)
}

const HASH_BYTES: u64 = IMAGE_HASH_BYTES as u64;

/// A file being filled.
struct Download {
    file: File,
    size: u64,
    version: String,
    hash: ImageHash,
    /// The last bytes, which may be the hash and are not hashed before others follow.
    tail: Vec<u8>,
    drawn: Option<Instant>,
}

impl Download {
    fn new(file: File) -> Download {
        Download {
            file,
            size: 0,
            version: String::new(),
            hash: ImageHash::default(),
            tail: Vec::new(),
            drawn: None,
        }
    }

    async fn receive(&mut self, s: &Connected, deadline: Deadline) -> Result<(), String> {
        let stream = s
            .client
            .server_stream("Maintenance/Snapshot", SnapshotRequest {}, deadline)
            .await;
        let mut stream = stream.map_err(|e| e.to_string())?;
        loop {
            let message = within(deadline, stream.message()).await;
            let message: Option<SnapshotResponse> = message.map_err(|e| match self.size {
                0 => e.to_string(),
                _ => format!("could not write snapshot: {e}"),
            })?;
            let Some(message) = message else {
                return Ok(());
            };
            let written = self.file.write_all(&message.blob);
            written.map_err(|e| format!("could not write snapshot: {e}"))?;
            self.size += u64::try_from(message.blob.len()).unwrap_or(u64::MAX);
            self.tail.extend_from_slice(&message.blob);
            let whole = self.tail.len().saturating_sub(IMAGE_HASH_BYTES);
            self.hash.update(&self.tail[..whole]);
            self.tail.drain(..whole);
            if self.version.is_empty() {
                self.version = message.version;
            }
            self.draw_progress(message.remaining_bytes);
        }
    }

    fn hash_is_right(&self) -> bool {
        self.tail == self.hash.clone().finish()
    }

    fn draw_progress(&mut self, remaining: u64) {
        let now = Instant::now();
        let due = self.drawn.is_none_or(|drawn| now - drawn >= PROGRESS_EVERY);
        if !due || !std::io::stderr().is_terminal() {
            return;
        }
        self.drawn = Some(now);
        let (done, all) = (humanized(self.size), humanized(self.size + remaining));
        // Nobody is left to tell when standard error is gone.
        let _ = write!(std::io::stderr(), "\r\x1b[K{done} of {all}");
    }

    fn end_progress(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
