//! From a data directory to a member: decides between a first start and a restart, opens the log and the backend.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use quorate_backend::{Backend, Table};
use quorate_core::{
    CONF_STATE_KEY, Cluster, ClusterMember, ImageError, LogStart, Stores, cluster_id, image_file,
    install_image, member_id,
};
use quorate_disk::{Disk, File, OpenMode};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState};
use quorate_proto::{ClusterId, MemberId};
use quorate_snap::{ImageReader, Snapshotter};
use quorate_wal::{Batch, Entry, HardState, Identity, Recovered, Wal};

use crate::recovery;

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
    /// Of the log.
    pub wal: quorate_wal::Options,
    /// Of the backend.
    pub backend: quorate_backend::Options,
    /// Of everything restored.
    pub recovery: recovery::Options,
}

/// What a member without data begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Nothing is known: only a directory with data can be opened.
    Restart,
    /// A new cluster of these members, ordered by id.
    Found {
        /// This member.
        member_id: MemberId,
        /// All of them.
        members: Vec<ClusterMember>,
    },
    /// A running cluster that has this member in its list already; its log comes from the others.
    Join {
        /// This member.
        member_id: MemberId,
        /// The cluster.
        cluster_id: ClusterId,
        /// Its members, which know more than this one until the log has come.
        members: Vec<pb::Member>,
    },
}

impl Start {
    /// Makes the start of a new cluster of members with these names and peer URLs, of which `name` is this one.
    ///
    /// # Panics
    /// When `name` is not among them.
    pub fn found<'a>(
        members: impl IntoIterator<Item = (&'a str, Vec<String>)>,
        token: &str,
        name: &str,
    ) -> Self {
        let mut own = None;
        let mut founders: Vec<ClusterMember> = members
            .into_iter()
            .map(|(member, peer_urls)| {
                let id = member_id(&peer_urls, token, None);
                own = own.or((member == name).then_some(id));
                ClusterMember {
                    id: id.0,
                    peer_urls,
                    name: member.to_owned(),
                    ..ClusterMember::default()
                }
            })
            .collect();
        founders.sort_by_key(|m| m.id);
        Self::Found {
            member_id: own.expect("the member is among the founders"),
            members: founders,
        }
    }

    /// Returns who the member is to be; `None` when only its data knows.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Restart => None,
            Self::Found { member_id, members } => {
                let ids: Vec<_> = members.iter().map(|m| MemberId(m.id)).collect();
                Some(Identity {
                    cluster_id: cluster_id(&ids).0,
                    member_id: member_id.0,
                })
            }
            Self::Join {
                member_id,
                cluster_id,
                ..
            } => Some(Identity {
                cluster_id: cluster_id.0,
                member_id: member_id.0,
            }),
        }
    }
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

/// Why a data directory cannot be opened. Nothing in it was changed unless the variant says so.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory or a file in it cannot be used.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses it.
    InUse(PathBuf),
    /// It belongs to etcd.
    Etcd(PathBuf),
    /// There is no data, and nobody said what to begin with.
    NothingToStart,
    /// There is a database but no log: acknowledged writes may be missing.
    LogMissing {
        /// Where the log should be.
        wal_dir: PathBuf,
        /// What the database says was applied.
        applied: u64,
    },
    /// The database is ahead of the log: acknowledged writes may be missing.
    LogTooShort {
        /// Last index of the log.
        last: u64,
        /// What the database says was applied.
        applied: u64,
    },
    /// The log begins after what the database holds: the database is an older copy.
    BackendTooOld {
        /// What the database says was applied.
        applied: u64,
        /// Where the log begins.
        first: u64,
    },
    /// The log.
    Wal(quorate_wal::Error),
    /// The database.
    Backend(quorate_backend::Error),
    /// Snapshot files.
    Snap(quorate_snap::Error),
    /// The state in the database.
    Recovery(recovery::Error),
    /// The image of a received snapshot.
    Install(ImageError),
    /// The stored configuration of the cluster is damaged.
    ConfState,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::InUse(path) => write!(
                f,
                "data directory {} is in use by another process",
                path.display()
            ),
            Self::Etcd(path) => write!(
                f,
                "data directory {} belongs to etcd; opening etcd's files is not built yet",
                path.display()
            ),
            Self::NothingToStart => f.write_str("there is no data and no initial cluster"),
            Self::LogMissing { wal_dir, applied } => write!(
                f,
                "no write-ahead log in {}, but the database holds entries up to {applied}",
                wal_dir.display()
            ),
            Self::LogTooShort { last, applied } => {
                write!(
                    f,
                    "the write-ahead log ends at {last}, but the database holds entries up to {applied}"
                )
            }
            Self::BackendTooOld { applied, first } => {
                write!(
                    f,
                    "the database ends at {applied}, but the write-ahead log begins after {first}"
                )
            }
            Self::Wal(e) => e.fmt(f),
            Self::Backend(e) => e.fmt(f),
            Self::Snap(e) => e.fmt(f),
            Self::Recovery(e) => e.fmt(f),
            Self::Install(e) => write!(f, "cannot install a snapshot from the leader: {e}"),
            Self::ConfState => f.write_str("the stored configuration of the cluster is damaged"),
        }
    }
}

impl std::error::Error for Error {}

/// Term of the entries that found a cluster. Source: etcd v3.7.1 raft Bootstrap.
const FOUNDING_TERM: u64 = 1;
const LOCK_FILE: &str = "lock";
const BACKEND_FILE: &str = "quorate.db";
/// End of the name of a received image. Source: etcd v3.7.1 server/etcdserver/api/snap/db.go.
const IMAGE_END: &str = ".snap.db";
/// A database that was being made of an image.
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
    if !has_log && exists(disk, &backend_path)? {
        let backend =
            Backend::open(disk.clone(), &backend_path, options.backend).map_err(Error::Backend)?;
        let applied = backend.durable().index;
        if applied > 0 {
            return Err(Error::LogMissing { wal_dir, applied });
        }
    }
    let (wal, recovered) = if has_log {
        reopen(disk, &wal_dir, options)?
    } else {
        found(disk, &wal_dir, options)?
    };
    let identity = recovered.identity;
    let backend_options = quorate_backend::Options {
        identity: Some(quorate_backend::Identity {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
        }),
        ..options.backend
    };
    let place = Place {
        disk: disk.clone(),
        snap_dir: snap_dir.clone(),
        backend_path,
        options: backend_options,
    };
    let backend = open_backend(&place, &recovered)?;
    let log = check(&backend, recovered)?;
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
        stores,
        snapshotter,
        is_new: !has_log,
        wal_dir,
        place,
        lock,
    })
}

/// Where the database of a received snapshot goes.
#[derive(Clone)]
pub struct Place {
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// The directory of snapshots and of the database.
    pub snap_dir: PathBuf,
    /// The database's path in it.
    pub backend_path: PathBuf,
    /// Of the database.
    pub options: quorate_backend::Options,
}

impl Place {
    /// Puts the image of a snapshot in the place of the database and opens it.
    ///
    /// # Errors
    /// As [`install_image`].
    pub fn install(&self, index: u64) -> Result<Backend, ImageError> {
        install_image(&self.disk, &self.snap_dir, index, self.options)
    }
}

/// Opens the database. One that is behind a snapshot from the leader gives way to its image: the member ended before that
/// was done. Images that nobody needs are removed.
fn open_backend(place: &Place, recovered: &Recovered) -> Result<Backend, Error> {
    let mut backend = Backend::open(place.disk.clone(), &place.backend_path, place.options)
        .map_err(Error::Backend)?;
    let mark = recovered.snapshot.unwrap_or_default().index;
    let image = place.snap_dir.join(image_file(mark));
    if backend.durable().index < mark && exists(&place.disk, &image)? {
        drop(backend);
        backend = place.install(mark).map_err(Error::Install)?;
    }
    let io = |source| Error::Io {
        path: place.snap_dir.clone(),
        source,
    };
    for name in place.disk.read_dir(&place.snap_dir).map_err(io)? {
        let text = name.to_string_lossy();
        if text.ends_with(IMAGE_END) || text == UNFINISHED_FILE {
            place
                .disk
                .remove_file(&place.snap_dir.join(&name))
                .map_err(io)?;
        }
    }
    Ok(backend)
}

/// Where an image's database is in the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImagePosition {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) conf_state: ConfState,
}

/// Reads where an image is in the log, without looking at the rest.
///
/// # Errors
/// When it is no image, is damaged or does not say.
pub(crate) fn image_position(disk: &dyn Disk, path: &Path) -> Result<ImagePosition, String> {
    let image = ImageReader::open(disk, path).map_err(|e| e.to_string())?;
    let (mut index, mut term, mut conf_state) = (None, None, None);
    for row in image.rows(Table::Meta.name().as_bytes()) {
        let (key, value) = row.map_err(|e| e.to_string())?;
        let number = || <[u8; 8]>::try_from(&value[..]).ok().map(u64::from_be_bytes);
        match &key[..] {
            quorate_backend::CONSISTENT_INDEX_KEY => index = number(),
            quorate_backend::TERM_KEY => term = number(),
            CONF_STATE_KEY => conf_state = parse_conf_state(&value).ok(),
            _ => {}
        }
    }
    match (index, term, conf_state) {
        (Some(index), Some(term), Some(conf_state)) => Ok(ImagePosition {
            index,
            term,
            conf_state,
        }),
        _ => Err("the image does not say where it is in the log".to_owned()),
    }
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
