//! A backup into a new data directory.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{Applied, Backend, Revision, Table};
use quorate_disk::Disk;
use quorate_proto::{ClusterId, MemberId, raftpb};
use quorate_snap::{ImageReader, Seal, Snapshot, SnapshotId, Snapshotter};
use quorate_wal::{Batch, HardState, SnapshotMark, Wal};

use super::error::at;
use super::{ImageError, Import, check_image, import_image};
use crate::convert::{conf_state_json, to_conf_state};
use crate::{CONF_STATE_KEY, ClusterMember, cluster_id, member_id};

/// Name of the database in `member/snap`.
pub const BACKEND_FILE: &str = "quorate.db";
/// Its name until it is whole.
const UNFINISHED_FILE: &str = "quorate.db.restore";
/// Term of the entries that found a cluster. Source: etcd v3.7.1 etcdutl/snapshot/v3_snapshot.go `saveWALAndSnap`.
const FOUNDING_TERM: u64 = 1;
const SCHEDULED_COMPACTION_KEY: &[u8] = b"scheduledCompactRev";

/// What is restored, and as what.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// The backup.
    pub backup: PathBuf,
    /// Takes a backup that has no hash behind it, and does not look at one that is there.
    pub skip_hash_check: bool,
    /// The new data directory; it may exist, empty.
    pub data_dir: PathBuf,
    /// The new log's directory; `member/wal` below the data directory unless set.
    pub wal_dir: Option<PathBuf>,
    /// Name of the member whose directory it is.
    pub name: String,
    /// All members of the new cluster.
    pub members: Vec<FoundingMember>,
    /// Mixed into the new ids.
    pub token: String,
    /// Raises the revision by so much and marks everything before as compacted.
    pub bump_revision: Option<u64>,
    /// How the new log is kept.
    pub log: quorate_wal::Options,
}

/// A member of the new cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundingMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Whose directory it is.
    pub member_id: MemberId,
    /// The new cluster.
    pub cluster_id: ClusterId,
    /// The revision its store will begin at, unless a compaction was newer.
    pub revision: i64,
}

/// Founds a data directory on a backup: keys, leases, users, roles, alarms and the cluster's version stay, members are new.
///
/// The whole backup is checked before anything is written. Every member of the new cluster is restored for itself, from the
/// same backup with the same members.
///
/// Source: etcd v3.7.1 etcdutl/snapshot/v3_snapshot.go `Restore`. Differs from etcd: the backup is checked first, so that a bad one
/// leaves nothing behind; the log begins behind the founding entries instead of repeating them.
///
/// # Errors
/// See [`ImageError`]. With [`ImageError::Io`], [`ImageError::Backend`] and [`ImageError::Wal`] an unfinished directory may be left,
/// which no member starts on: its database gets its name when it is whole, and its log is made last.
///
/// # Durability
/// All of it is durable when it returns, given that the directories above the two named are.
pub fn restore_backup(disk: &Arc<dyn Disk>, restore: &Restore) -> Result<Restored, ImageError> {
    let founding = Founding::of(restore)?;
    check_directories(&**disk, restore)?;
    let image = ImageReader::open(&**disk, &restore.backup)?;
    if !restore.skip_hash_check {
        match image.check_seal()? {
            Seal::Whole => {}
            Seal::Broken => return Err(ImageError::BrokenSeal(restore.backup.clone())),
            Seal::Absent => return Err(ImageError::NoSeal(restore.backup.clone())),
        }
    }
    let facts = check_image(&image)?;
    let newest = match restore.bump_revision {
        None => None,
        Some(bump) => Some(bumped(facts.revision, bump)?),
    };
    write_backend(disk, restore, &image, &founding, newest)?;
    write_log(disk, restore, &founding)?;
    Ok(Restored {
        member_id: founding.member_id,
        cluster_id: founding.cluster_id,
        revision: newest.unwrap_or(facts.revision).main,
    })
}

/// The members of a new cluster and what follows from them.
struct Founding {
    member_id: MemberId,
    cluster_id: ClusterId,
    /// Ordered by id.
    members: Vec<ClusterMember>,
    conf_state: raftpb::ConfState,
    /// Index of the last entry that adds a member.
    last_index: u64,
}

impl Founding {
    fn of(restore: &Restore) -> Result<Self, ImageError> {
        let mut members: Vec<ClusterMember> = restore
            .members
            .iter()
            .map(|member| ClusterMember {
                id: member_id(&member.peer_urls, &restore.token, None).0,
                peer_urls: member.peer_urls.clone(),
                name: member.name.clone(),
                ..ClusterMember::default()
            })
            .collect();
        members.sort_by_key(|member| member.id);
        let ids: Vec<MemberId> = members.iter().map(|member| MemberId(member.id)).collect();
        let own = members
            .iter()
            .find(|member| member.name == restore.name)
            .ok_or_else(|| ImageError::UnknownMember(restore.name.clone()))?;
        Ok(Self {
            member_id: MemberId(own.id),
            cluster_id: cluster_id(&ids),
            conf_state: raftpb::ConfState {
                voters: ids.iter().map(|id| id.0).collect(),
                auto_leave: Some(false),
                ..raftpb::ConfState::default()
            },
            last_index: u64::try_from(members.len()).unwrap_or(u64::MAX),
            members,
        })
    }

    /// The rows that make the image the new cluster's.
    fn rows(&self) -> Vec<(Table, Bytes, Bytes)> {
        let mut rows: Vec<_> = self
            .members
            .iter()
            .map(|member| {
                let key = format!("{:x}", member.id);
                let json = serde_json::to_vec(member).expect("a member is plain data");
                (Table::Members, Bytes::from(key), Bytes::from(json))
            })
            .collect();
        let conf_state = conf_state_json(&to_conf_state(&self.conf_state));
        let key = Bytes::from_static(CONF_STATE_KEY);
        rows.push((Table::Meta, key, conf_state.into()));
        rows
    }
}

fn check_directories(disk: &dyn Disk, restore: &Restore) -> Result<(), ImageError> {
    let exists = |path: &Path| disk.exists(path).map_err(at(path));
    // A file in its place cannot be listed, which is as much a reason to stop.
    if exists(&restore.data_dir)?
        && !disk
            .read_dir(&restore.data_dir)
            .is_ok_and(|names| names.is_empty())
    {
        return Err(ImageError::NotEmpty(restore.data_dir.clone()));
    }
    match &restore.wal_dir {
        Some(wal_dir) if exists(wal_dir)? => Err(ImageError::WalDirExists(wal_dir.clone())),
        _ => Ok(()),
    }
}

/// Source: etcd v3.7.1 etcdutl/snapshot/v3_snapshot.go `modifyLatestRevision`.
fn bumped(newest: Revision, bump: u64) -> Result<Revision, ImageError> {
    let bump = i64::try_from(bump).map_err(|_| ImageError::RevisionOverflow)?;
    let main = newest.main.checked_add(bump);
    // The largest number of all stays free for the store's own next.
    main.filter(|main| *main < i64::MAX - 1)
        .map(|main| Revision::new(main, 0))
        .ok_or(ImageError::RevisionOverflow)
}

fn write_backend(
    disk: &Arc<dyn Disk>,
    restore: &Restore,
    image: &ImageReader,
    founding: &Founding,
    newest: Option<Revision>,
) -> Result<(), ImageError> {
    let snap_dir = snap_dir(&restore.data_dir);
    make_directory(&**disk, &snap_dir)?;
    let unfinished = snap_dir.join(UNFINISHED_FILE);
    let options = quorate_backend::Options {
        identity: Some(quorate_backend::Identity {
            cluster_id: founding.cluster_id.0,
            member_id: founding.member_id.0,
        }),
        ..quorate_backend::Options::default()
    };
    let backend = Backend::open(Arc::clone(disk), &unfinished, options)?;
    let mut import = Import {
        applied: Some(Applied {
            index: founding.last_index,
            term: FOUNDING_TERM,
            digest: 0,
        }),
        without: vec![Table::Members, Table::MembersRemoved],
        with: founding.rows(),
        newest: None,
    };
    if let Some(newest) = newest {
        let mark = Bytes::copy_from_slice(newest.table_key(false).as_bytes());
        let key = Bytes::from_static(SCHEDULED_COMPACTION_KEY);
        import.with.push((Table::Meta, key, mark));
        import.newest = Some((newest, Bytes::new()));
    }
    import_image(image, &backend, import)?;
    drop(backend);
    let path = backend_path(&restore.data_dir);
    disk.rename(&unfinished, &path).map_err(at(&path))?;
    disk.sync_dir(&snap_dir).map_err(at(&snap_dir))
}

/// Writes a snapshot of nothing but the members, and a log that begins behind it.
fn write_log(
    disk: &Arc<dyn Disk>,
    restore: &Restore,
    founding: &Founding,
) -> Result<(), ImageError> {
    let (member, cluster) = (founding.member_id.0, founding.cluster_id.0);
    let position = SnapshotId {
        term: FOUNDING_TERM,
        index: founding.last_index,
    };
    let body = raftpb::Snapshot {
        data: Some(
            serde_json::to_vec(&founding.members)
                .expect("members are plain data")
                .into(),
        ),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(founding.conf_state.clone()),
            index: Some(position.index),
            term: Some(position.term),
        }),
    };
    let snap_identity = quorate_snap::Identity {
        cluster_id: cluster,
        member_id: member,
    };
    let snapshotter = Snapshotter::open(
        Arc::clone(disk),
        &snap_dir(&restore.data_dir),
        snap_identity,
    )?;
    snapshotter.save(&Snapshot {
        id: position,
        body: body.encode_to_vec().into(),
    })?;
    let wal_dir = restore
        .wal_dir
        .clone()
        .unwrap_or_else(|| restore.data_dir.join("member").join("wal"));
    if let Some(parent) = wal_dir.parent() {
        make_directory(&**disk, parent)?;
    }
    let wal_identity = quorate_wal::Identity {
        cluster_id: cluster,
        member_id: member,
    };
    let options = restore.log.clone();
    let mut wal = Wal::create(Arc::clone(disk), &wal_dir, wal_identity, options)?;
    let batch = Batch {
        snapshot: Some(SnapshotMark {
            index: position.index,
            term: position.term,
        }),
        hard_state: Some(HardState {
            term: FOUNDING_TERM,
            // All members of the new cluster name the same one, as if they had voted.
            vote: founding.members.first().map_or(0, |first| first.id),
            commit: founding.last_index,
        }),
        must_sync: true,
        ..Batch::default()
    };
    let _synced = wal.append(&[batch])?;
    Ok(())
}

/// Returns where the database of a member is.
#[must_use]
pub fn backend_path(data_dir: &Path) -> PathBuf {
    snap_dir(data_dir).join(BACKEND_FILE)
}

fn snap_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("snap")
}

/// Makes a directory with those above it, and their names durable.
fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), ImageError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !disk.exists(parent).map_err(at(parent))? {
        make_directory(disk, parent)?;
    }
    disk.create_dir_all(path).map_err(at(path))?;
    disk.sync_dir(parent).map_err(at(parent))
}
