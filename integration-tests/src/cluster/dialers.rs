//! Which process has opened a connection, told from the system's table of connections: that works for any program.
//!
//! Looking takes a while where the machine is busy, and after a start everybody connects at once: a thread of its own looks once for
//! all who ask meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::proxy::Place;

/// A connection as the one who accepted it sees it: the other end, and the own.
type Ends = (SocketAddr, SocketAddr);

/// Finds out who connects. Cheap to clone; its thread ends with the last.
#[derive(Debug, Clone)]
pub(super) struct Dialers {
    processes: Arc<Mutex<BTreeMap<Place, u32>>>,
    questions: mpsc::UnboundedSender<(Ends, oneshot::Sender<Option<Place>>)>,
}

impl Dialers {
    /// Knows nobody yet.
    pub(super) fn new() -> io::Result<Dialers> {
        let processes: Arc<Mutex<BTreeMap<Place, u32>>> = Arc::default();
        let (questions, mut asked) = mpsc::unbounded_channel();
        let of_thread = Arc::clone(&processes);
        thread::Builder::new()
            .name("dialers".to_owned())
            .spawn(move || {
                while let Some(first) = asked.blocking_recv() {
                    let mut all = vec![first];
                    while let Ok(next) = asked.try_recv() {
                        all.push(next);
                    }
                    let processes = of_thread
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone();
                    answer(&processes, all);
                }
            })?;
        Ok(Dialers {
            processes,
            questions,
        })
    }

    /// Says which process a member is.
    pub(super) fn set_process(&self, place: Place, pid: u32) {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place, pid);
    }

    /// Returns the member whose process has the other end of a connection.
    pub(super) async fn find(&self, from: SocketAddr, local: SocketAddr) -> Option<Place> {
        let (sender, found) = oneshot::channel();
        self.questions.send(((from, local), sender)).ok()?;
        found.await.ok()?
    }
}

fn answer(
    processes: &BTreeMap<Place, u32>,
    questions: Vec<(Ends, oneshot::Sender<Option<Place>>)>,
) {
    // Without a table, or without descriptors, nobody is found, and whoever asks asks again.
    let inodes = inodes().unwrap_or_default();
    let owners = owners(processes);
    for ((from, local), sender) in questions {
        let inode = inodes.get(&(from.port(), local.port()));
        let place = inode.and_then(|inode| owners.get(inode)).copied();
        // Who asked may have gone.
        let _ = sender.send(place);
    }
}

/// The inodes of all connected sockets, by their own port and the other's.
fn inodes() -> io::Result<BTreeMap<(u16, u16), u64>> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = fields.get(9)?.parse().ok().filter(|inode| *inode != 0)?;
        Some(((port(fields.get(1)?)?, port(fields.get(2)?)?), inode))
    };
    Ok(table.lines().skip(1).filter_map(entry).collect())
}

/// Who has the socket of an inode.
fn owners(processes: &BTreeMap<Place, u32>) -> BTreeMap<u64, Place> {
    let mut owners = BTreeMap::new();
    for (place, pid) in processes {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for entry in descriptors.flatten() {
            // A descriptor may be closed meanwhile.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let inode = link.to_str().and_then(|link| {
                let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
                inode.parse().ok()
            });
            owners.extend(inode.map(|inode: u64| (inode, *place)));
        }
    }
    owners
}
