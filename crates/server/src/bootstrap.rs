//! From a data directory to a member: decides between a first start and a restart, opens the log and the backend.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use quorate_backend::{Backend, COPY_SUFFIX, Table};
use quorate_core::{
    BACKEND_FILE, CONF_STATE_KEY, Cluster, ClusterMember, LogStart, RECEIVED_END, Stores,
    image_file, received_file,
};
use quorate_disk::{Disk, File, OpenMode};
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState};
use quorate_proto::{ClusterId, MemberId};
use quorate_snap::Snapshotter;
use quorate_wal::{Batch, Entry, HardState, Recovered, Wal};

use crate::{alone, recovery};

mod error;
mod place;
mod start;

pub use error::Error;
pub use place::Place;
pub use start::Start;

/// Where things are and who the member is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The log's directory; `member/wal` below the data directory unless set.
    pub wal_dir: Option<PathBuf>,
    /// What a directory without a log begins with. One that has a log needs it only when the start that made it ended
    /// before the cluster was founded.
    pub start: Start,
    /// Whether a member that has data is to go on as the only one of its cluster.
    pub alone: bool,
    /// Of the log.
    pub wal: quorate_wal::Options,
    /// Of the backend.
    pub backend: quorate_backend::Options,
    /// Of everything restored.
    pub recovery: recovery::Options,
}

/// An opened data directory.
pub struct Opened {
    /// This member.
    pub member_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// The log, ready to append.
    pub wal: Wal,
    /// What the log held.
    pub log: LogStart,
    /// What was cut of it, if the last write was not complete.
    pub torn_tail: Option<quorate_wal::TornTail>,
    /// Everything replicated.
    pub stores: Stores,
    /// Snapshot files.
    pub snapshotter: Snapshotter,
    /// Whether this was the first start.
    pub is_new: bool,
    /// Where the log is.
    pub wal_dir: PathBuf,
    /// Where the database of a received snapshot goes.
    pub place: Place,
    /// Held while the member runs, so that no second process opens the directory.
    pub lock: Box<dyn File>,
}

/// Term of the entries that found a cluster. Source: etcd v3.7.1 raft Bootstrap.
const FOUNDING_TERM: u64 = 1;
const LOCK_FILE: &str = "lock";
/// End of the name of a received image. Source: etcd v3.7.1 server/etcdserver/api/snap/db.go.
const IMAGE_END: &str = ".snap.db";
/// Beginning of the names of a database that was being made of an image, and of the file that this one was being made of.
const UNFINISHED_FILE: &str = "quorate.db.install";
const ETCD_BACKEND_FILE: &str = "db";
/// Entry type of a configuration change.
const CONF_CHANGE: u8 = 1;

/// Opens a data directory; an empty one is founded or joined as [`Options::start`] says.
///
/// # Errors
/// See [`Error`]. A directory of another program, of a newer format or in use is left as it is.
///
/// # Durability
/// When it returns, the log's head and the founding entries are on stable storage.
pub fn open(disk: &Arc<dyn Disk>, options: &Options) -> Result<Opened, Error> {
    let member_dir = options.data_dir.join("member");
    let snap_dir = member_dir.join("snap");
    let wal_dir = options
        .wal_dir
        .clone()
        .unwrap_or_else(|| member_dir.join("wal"));
    if exists(disk, &snap_dir.join(ETCD_BACKEND_FILE))? {
        return Err(Error::Etcd(options.data_dir.clone()));
    }
    for dir in [&options.data_dir, &member_dir, &snap_dir] {
        make_directory(disk, dir)?;
    }
    if let Some(parent) = wal_dir.parent() {
        make_directory(disk, parent)?;
    }
    let lock = lock(disk, &member_dir.join(LOCK_FILE), &options.data_dir)?;
    // What a start that was killed left behind is no log yet.
    let has_log = Wal::exists(disk.as_ref(), &wal_dir).map_err(Error::Wal)?;
    let backend_path = snap_dir.join(BACKEND_FILE);
    if !has_log {
        refuse_lost_log(disk, &backend_path, &wal_dir, options)?;
    }
    let (mut wal, mut recovered) = if has_log {
        reopen(disk, &wal_dir, options)?
    } else {
        found(disk, &wal_dir, options)?
    };
    let identity = recovered.identity;
    let torn_tail = recovered.torn_tail.take();
    let backend_options = quorate_backend::Options {
        identity: Some(quorate_backend::Identity {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
        }),
        ..options.backend
    };
    let place = Place::new(disk, &snap_dir, backend_path, backend_options);
    let backend = open_backend(&place, &recovered)?;
    let mut log = check(&backend, recovered)?;
    if options.alone && has_log {
        alone::go_on(
            &mut wal,
            &mut log,
            identity.member_id,
            backend.durable().index,
        )
        .map_err(Error::Wal)?;
    }
    let stores = recovery::restore(&backend, &options.recovery).map_err(Error::Recovery)?;
    let snap_identity = quorate_snap::Identity {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
    };
    let snapshotter =
        Snapshotter::open(disk.clone(), &snap_dir, snap_identity).map_err(Error::Snap)?;
    Ok(Opened {
        member_id: MemberId(identity.member_id),
        cluster_id: ClusterId(identity.cluster_id),
        wal,
        log,
        torn_tail,
        stores,
        snapshotter,
        is_new: !has_log,
        wal_dir,
        place,
        lock,
    })
}

/// Refuses a database that holds something while its log is gone.
fn refuse_lost_log(
    disk: &Arc<dyn Disk>,
    backend_path: &Path,
    wal_dir: &Path,
    options: &Options,
) -> Result<(), Error> {
    if !exists(disk, backend_path)? {
        return Ok(());
    }
    let backend =
        Backend::open(disk.clone(), backend_path, options.backend).map_err(Error::Backend)?;
    match backend.durable().index {
        0 => Ok(()),
        applied => Err(Error::LogMissing {
            wal_dir: wal_dir.to_owned(),
            applied,
        }),
    }
}

/// Opens the database. One that is behind a snapshot from the leader gives way to what was received: the member ended before that
/// was done. Images and copies that nobody needs are removed.
fn open_backend(place: &Place, recovered: &Recovered) -> Result<Backend, Error> {
    let mut backend = Backend::open(place.disk.clone(), &place.backend_path, place.options)
        .map_err(Error::Backend)?;
    let mark = recovered.snapshot.unwrap_or_default().index;
    let has = |name: String| exists(&place.disk, &place.snap_dir.join(name));
    let applied = backend.durable().index;
    if applied >= mark {
        tracing::info!(
            "consistent-index" = applied,
            "snapshot-index" = mark,
            "Skipping snapshot backend"
        );
    } else if has(received_file(mark))? || has(image_file(mark))? {
        tracing::info!(
            "consistent-index" = applied,
            "snapshot-index" = mark,
            "Recovering from snapshot backend"
        );
        drop(backend);
        backend = place.install(mark).map_err(Error::Install)?;
    }
    let io = |source| Error::Io {
        path: place.snap_dir.clone(),
        source,
    };
    for name in place.disk.read_dir(&place.snap_dir).map_err(io)? {
        let text = name.to_string_lossy();
        if text.ends_with(IMAGE_END)
            || text.contains(RECEIVED_END)
            || text.starts_with(UNFINISHED_FILE)
            || text.ends_with(COPY_SUFFIX)
        {
            place
                .disk
                .remove_file(&place.snap_dir.join(&name))
                .map_err(io)?;
        }
    }
    Ok(backend)
}

/// Makes a directory and its name durable, those above it too: a log in a directory that a crash takes away is lost.
fn make_directory(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !exists(disk, parent)? {
        make_directory(disk, parent)?;
    }
    disk.create_dir_all(path).map_err(io)?;
    disk.sync_dir(parent).map_err(io)
}

fn exists(disk: &Arc<dyn Disk>, path: &Path) -> Result<bool, Error> {
    disk.exists(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

fn lock(disk: &Arc<dyn Disk>, path: &Path, data_dir: &Path) -> Result<Box<dyn File>, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = disk.open(path, OpenMode::CreateOrOpen).map_err(io)?;
    if file.try_lock().map_err(io)? {
        Ok(file)
    } else {
        Err(Error::InUse(data_dir.to_owned()))
    }
}

/// Opens an existing log. One without any entry is that of a member that has joined and has heard nothing yet, or was
/// made by a start that ended before it founded the cluster, which is done now: the ids tell which.
fn reopen(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(Wal, Recovered), Error> {
    let (mut wal, mut recovered) =
        Wal::open(disk.clone(), dir, options.wal.clone()).map_err(Error::Wal)?;
    let is_empty = recovered.entries.is_empty() && recovered.snapshot.is_none();
    if is_empty
        && recovered.hard_state == HardState::default()
        && options.start.identity() == Some(recovered.identity)
    {
        write_founding(&mut wal, &mut recovered, options)?;
    }
    Ok((wal, recovered))
}

/// Makes the log of a member without data.
fn found(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(Wal, Recovered), Error> {
    let identity = options.start.identity().ok_or(Error::NothingToStart)?;
    let mut wal =
        Wal::create(disk.clone(), dir, identity, options.wal.clone()).map_err(Error::Wal)?;
    let mut recovered = Recovered {
        identity,
        hard_state: HardState::default(),
        snapshot: None,
        entries: Vec::new(),
        torn_tail: None,
    };
    write_founding(&mut wal, &mut recovered, options)?;
    Ok((wal, recovered))
}

/// Writes the head of a new cluster's log: the entries that add its members, committed. The same on every founder.
///
/// Source: etcd v3.7.1 server/etcdserver/bootstrap.go, raft v3.7.0 bootstrap.go.
fn write_founding(
    wal: &mut Wal,
    recovered: &mut Recovered,
    options: &Options,
) -> Result<(), Error> {
    let Start::Found { members, .. } = &options.start else {
        return Ok(());
    };
    let entry = |(index, member): (u64, &ClusterMember)| {
        let change = ConfChange {
            id: None,
            r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
            node_id: Some(member.id),
            context: Some(Cluster::founding_context(member)),
        };
        Entry {
            term: FOUNDING_TERM,
            index,
            kind: CONF_CHANGE,
            data: change.encode_to_vec().into(),
        }
    };
    recovered.entries = (1..).zip(members).map(entry).collect();
    recovered.hard_state = HardState {
        term: FOUNDING_TERM,
        vote: 0,
        commit: members.len() as u64,
    };
    let batch = Batch {
        ticket: 0,
        entries: recovered.entries.clone(),
        hard_state: Some(recovered.hard_state),
        snapshot: None,
        must_sync: true,
    };
    let _synced = wal.append(&[batch]).map_err(Error::Wal)?;
    Ok(())
}

/// Checks that the log and the backend belong together, and finds the configuration at the applied index.
fn check(backend: &Backend, recovered: Recovered) -> Result<LogStart, Error> {
    let applied = backend.durable().index;
    let snapshot = recovered.snapshot.unwrap_or_default();
    let last = recovered.entries.last().map_or(snapshot.index, |e| e.index);
    if applied < snapshot.index {
        return Err(Error::BackendTooOld {
            applied,
            first: snapshot.index,
        });
    }
    if applied > last {
        return Err(Error::LogTooShort { last, applied });
    }
    let stored = backend
        .read()
        .and_then(|txn| txn.get(Table::Meta, CONF_STATE_KEY))
        .map_err(Error::Backend)?;
    let conf_state = match stored {
        Some(json) => parse_conf_state(&json)?,
        None => founders(&recovered.entries),
    };
    Ok(LogStart {
        snapshot,
        entries: recovered.entries,
        hard_state: recovered.hard_state,
        conf_state,
    })
}

/// The founding members: those that the configuration changes at the head of the log add.
fn founders(entries: &[Entry]) -> ConfState {
    let voters = entries
        .iter()
        .take_while(|e| e.kind == CONF_CHANGE && e.term == FOUNDING_TERM)
        .filter_map(|e| ConfChange::decode(e.data.clone()).ok()?.node_id)
        .collect();
    ConfState {
        voters,
        ..ConfState::default()
    }
}

fn parse_conf_state(json: &[u8]) -> Result<ConfState, Error> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| Error::ConfState)?;
    let list = |name: &str| -> Result<Vec<u64>, Error> {
        let Some(ids) = value.get(name) else {
            return Ok(Vec::new());
        };
        let ids = ids.as_array().ok_or(Error::ConfState)?;
        ids.iter()
            .map(|id| id.as_u64().ok_or(Error::ConfState))
            .collect()
    };
    Ok(ConfState {
        voters: list("voters")?,
        learners: list("learners")?,
        voters_outgoing: list("voters_outgoing")?,
        learners_next: list("learners_next")?,
        auto_leave: value.get("auto_leave").and_then(serde_json::Value::as_bool),
    })
}
