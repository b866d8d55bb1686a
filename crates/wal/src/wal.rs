//! The writer.

use crate::encoder::{Encoder, Item};
use crate::error_at::at;
use crate::fields::file_len;
use crate::head::{HEAD_BYTES, Head};
use crate::record::PAYLOAD_BYTES_MAX;
use crate::recovery::{self, Listing, Opened};
use crate::segment::{PrepareJob, PreparedSegment, segment_len, segment_name, spare_name};
use crate::span::{Disorder, Span};
use crate::{Batch, Error, HardState, Identity, Recovered, SnapshotMark, Synced};
use quorate_disk::{Disk, File};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of a segment made ahead, unless the options say otherwise, in bytes. Source: etcd 3.7.1 `server/storage/wal/wal.go`
/// `SegmentSizeBytes` is 64,000,000; ours is a whole number of blocks.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Part of a segment that is used when the next one is made ahead: one of so many.
const PREPARE_AT_PART: u64 = 4;
/// Largest size of a segment, in bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Size of a segment that is made while an append waits for it, in bytes: filling it with zeros takes milliseconds.
const INLINE_SEGMENT_BYTES: u64 = 8 << 20;
/// Most bytes one append may take.
const APPEND_BYTES_MAX: u64 = 2 << 30;
/// Scratch space that is kept from one append to the next, in bytes.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// How a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment in bytes, at most 1 GiB; a larger append makes a larger one. A log begins with smaller ones, each
    /// twice as large as the one before.
    pub segment_bytes: u64,
    /// Whose log it must be; opening any other fails.
    pub identity: Option<Identity>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            identity: None,
        }
    }
}

/// A log that is open for writing.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    identity: Identity,
    active: Active,
    /// Segments before the active one, oldest first.
    closed: VecDeque<Closed>,
    span: Span,
    hard_state: HardState,
    prepared: Option<PreparedSegment>,
    /// A segment that was released and can be made the next one.
    spare: Option<PathBuf>,
    /// Number of the next job; whether one is out since the last change of segment.
    next_job: u64,
    job_is_out: bool,
    ticket: u64,
    poisoned: bool,
    scratch: Vec<u8>,
}

/// The segment that is written.
struct Active {
    file: Box<dyn File>,
    path: PathBuf,
    sequence: u64,
    seed: u32,
    capacity: u64,
    /// Offset behind the last record, and its checksum. **Invariant:** `synced_to <= position <= capacity`.
    position: u64,
    chain: u32,
    synced_to: u64,
    /// Largest index of its entries.
    max_index: u64,
}

struct Closed {
    path: PathBuf,
    sequence: u64,
    max_index: u64,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .field("segment", &self.active.sequence)
            .field("position", &self.active.position)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Says whether a directory holds a log, of whatever origin.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
        Ok(!Listing::read(disk, dir)?.segments.is_empty())
    }

    /// Makes an empty log, and its directory.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Io`]. A log is then either not there or whole and empty.
    ///
    /// # Durability
    /// The empty log is durable, given that the directory above the one named is.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        options: Options,
    ) -> Result<Wal, Error> {
        disk.create_dir_all(dir).map_err(at("create", dir))?;
        let above = match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        disk.sync_dir(above).map_err(at("sync", above))?;
        let listing = Listing::read(&*disk, dir)?;
        if !listing.segments.is_empty() {
            return Err(Error::AlreadyExists {
                dir: dir.to_owned(),
            });
        }
        listing.remove_temporary(&*disk)?;
        let head = Head {
            identity,
            sequence: 1,
            next_index: 1,
            snapshot: SnapshotMark::default(),
            hard_state: HardState::default(),
            previous_end: 0,
            previous_chain: 0,
        };
        let len = segment_len(inline_len(&options), 0);
        let prepared = PrepareJob::inline(&disk, dir, head.sequence, len).run()?;
        let active = Active::make(&*disk, dir, &head, prepared, &mut false)?;
        Ok(Wal {
            disk,
            dir: dir.to_owned(),
            options,
            identity,
            active,
            closed: VecDeque::new(),
            span: Span::new(SnapshotMark::default(), 1),
            hard_state: HardState::default(),
            prepared: None,
            spare: None,
            next_job: 0,
            job_is_out: false,
            ticket: 0,
            poisoned: false,
            scratch: Vec::new(),
        })
    }

    /// Opens a log, cuts a torn tail and returns what it holds. The time it takes is bounded by the segments not released.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`], [`Error::NotALog`], [`Error::NewerFormat`], [`Error::ForeignIdentity`],
    /// [`Error::MissingSegment`], [`Error::MissingEntries`], [`Error::Corrupt`]: nothing was changed on disk.
    /// [`Error::Io`]: opening again starts over.
    ///
    /// # Durability
    /// All that is returned is durable, also what an earlier process had written without a sync, or with one that failed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Wal, Recovered), Error> {
        let Opened {
            recovered,
            span,
            mut segments,
            file,
            seed,
            position,
            chain,
            capacity,
        } = recovery::open(&*disk, dir, options.identity)?;
        let Some((sequence, path, max_index)) = segments.pop() else {
            return Err(Error::NotFound {
                dir: dir.to_owned(),
            });
        };
        let closed = segments
            .into_iter()
            .map(|(sequence, path, max_index)| Closed {
                path,
                sequence,
                max_index,
            });
        let wal = Wal {
            disk,
            dir: dir.to_owned(),
            options,
            identity: recovered.identity,
            active: Active {
                file,
                path,
                sequence,
                seed,
                capacity,
                position,
                chain,
                synced_to: position,
                max_index,
            },
            closed: closed.collect(),
            span,
            hard_state: recovered.hard_state,
            prepared: None,
            spare: None,
            next_job: 0,
            job_is_out: false,
            ticket: 0,
            poisoned: false,
            scratch: Vec::new(),
        };
        Ok((wal, recovered))
    }

    /// Appends batches, all with one gather write and at most one sync, or none of them.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::TooLarge`]: nothing was written and the log goes on. [`Error::Io`] while a new segment
    /// is made: likewise, so that a full disk can be waited out; [`Wal::is_poisoned`] tells. Any other [`Error::Io`] poisons
    /// the log: what was to be appended may or may not be there after a restart, and all that follows is [`Error::Poisoned`].
    ///
    /// # Durability
    /// If one of the batches must be synced, all that was ever appended is durable; otherwise the batches survive the end of the
    /// process but not a power loss. After a crash each batch is there whole or not at all, and none without those before it.
    pub fn append(&mut self, batches: &[Batch]) -> Result<Synced, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let plan = self.plan(batches)?;
        if plan.len_max > 0 {
            self.make_room(plan.len_max)?;
            self.write(&plan)?;
        }
        if plan.must_sync {
            self.sync()?;
        }
        self.span = plan.span;
        self.hard_state = plan.hard_state;
        self.active.max_index = self.active.max_index.max(plan.max_index);
        if let Some(batch) = batches.last() {
            self.ticket = batch.ticket;
        }
        Ok(Synced {
            ticket: self.ticket,
        })
    }

    /// Removes the oldest segments that hold nothing behind `index`, or behind the newest snapshot mark if that comes first.
    /// One of them is kept under another name, to become the next segment.
    ///
    /// # Errors
    /// [`Error::Io`]: some may be left; calling again goes on. [`Error::Poisoned`].
    ///
    /// # Durability
    /// Each removal is durable before the next, so that a crash leaves no gap.
    pub fn release_to(&mut self, index: u64) -> Result<(), Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let index = index.min(self.span.mark().index);
        while let Some(oldest) = self.closed.front()
            && oldest.max_index <= index
        {
            let spare = self.dir.join(spare_name(oldest.sequence));
            let keep = self.spare.is_none();
            let gone = if keep {
                self.disk.rename(&oldest.path, &spare)
            } else {
                self.disk.remove_file(&oldest.path)
            };
            let is_there = match gone {
                Ok(()) => keep,
                // An earlier call got as far as this.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(at("remove", &oldest.path)(error)),
            };
            self.disk
                .sync_dir(&self.dir)
                .map_err(at("sync", &self.dir))?;
            // Its bytes may change only now: a name that comes back after a crash must lead to the segment as it was.
            self.spare = self.spare.take().or(Some(spare).filter(|_| is_there));
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Returns the work of making the next segment ahead, once after each change of segment, when a quarter of the active one
    /// is used.
    ///
    /// It may run on another thread while the log is written. If it fails, or is dropped, the log makes a segment itself when it
    /// needs one, of at most 8 MiB so that the append does not wait long.
    pub fn take_prepare_job(&mut self) -> Option<PrepareJob> {
        let is_early = self.active.position < self.active.capacity / PREPARE_AT_PART;
        if self.poisoned || self.job_is_out || self.prepared.is_some() || is_early {
            return None;
        }
        self.job_is_out = true;
        self.next_job += 1;
        let largest = self.options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let wanted = self.active.capacity.max(inline_len(&self.options));
        let len = segment_len(wanted.saturating_mul(2).min(largest), 0);
        let spare = self.spare.take();
        Some(PrepareJob::ahead(
            &self.disk,
            &self.dir,
            self.next_job,
            spare,
            len,
        ))
    }

    /// Takes what a job made; the next change of segment uses it.
    pub fn accept_prepared(&mut self, prepared: PreparedSegment) {
        if let Some(unused) = self.prepared.replace(prepared) {
            // A job that was slower than a change of segment; if removing fails, the next opening does it.
            let _ = self.disk.remove_file(&unused.path);
        }
        self.job_is_out = false;
    }

    /// Says whether a write or sync has failed, so that nothing can be appended any more.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Returns whose log it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns how many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.closed.len() + 1
    }

    /// Returns how many bytes the active segment still takes.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.active.capacity - self.active.position
    }

    /// Checks the batches against what the log holds and lists the records to write.
    fn plan<'a>(&self, batches: &'a [Batch]) -> Result<Plan<'a>, Error> {
        let mut plan = Plan {
            items: Vec::with_capacity(batches.iter().map(|batch| batch.entries.len() + 1).sum()),
            span: self.span.clone(),
            hard_state: self.hard_state,
            len_max: 0,
            max_index: 0,
            must_sync: false,
        };
        for batch in batches {
            plan.add(batch)?;
        }
        if plan.len_max > APPEND_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes: plan.len_max,
                bytes_max: APPEND_BYTES_MAX,
            });
        }
        Ok(plan)
    }

    /// Changes to a new segment when the active one has no room for so many bytes.
    fn make_room(&mut self, len_max: u64) -> Result<(), Error> {
        let active = &self.active;
        if active.position.saturating_add(len_max) <= active.capacity {
            return Ok(());
        }
        let fits = |prepared: &PreparedSegment| prepared.len >= HEAD_BYTES + len_max;
        let sequence = active.sequence + 1;
        let prepared = match self.prepared.take() {
            Some(prepared) if fits(&prepared) => prepared,
            kept => {
                // An append too large for the one made ahead gets its own, and the other waits for the next change.
                self.prepared = kept;
                let len = segment_len(inline_len(&self.options), len_max);
                PrepareJob::inline(&self.disk, &self.dir, sequence, len).run()?
            }
        };
        // The head of the new segment says where this one ends, so all of this one is durable first.
        if self.active.synced_to < self.active.position {
            self.sync()?;
        }
        let head = Head {
            identity: self.identity,
            sequence,
            next_index: self.span.next(),
            snapshot: self.span.mark(),
            hard_state: self.hard_state,
            previous_end: self.active.position,
            previous_chain: self.active.chain,
        };
        let mut naming = false;
        let made = Active::make(&*self.disk, &self.dir, &head, prepared, &mut naming);
        // Once the name may have changed, going on in the old segment could leave two that both claim to be the last.
        self.poisoned = made.is_err() && naming;
        let old = std::mem::replace(&mut self.active, made?);
        self.job_is_out = false;
        self.closed.push_back(Closed {
            path: old.path,
            sequence: old.sequence,
            max_index: old.max_index,
        });
        Ok(())
    }

    fn write(&mut self, plan: &Plan<'_>) -> Result<(), Error> {
        let active = &mut self.active;
        let mut encoder = Encoder::new(
            &mut self.scratch,
            plan.items.len(),
            active.seed,
            active.position,
            active.chain,
            active.synced_to,
        );
        for (item, last_of_batch) in &plan.items {
            encoder.add(*item, *last_of_batch);
        }
        let (slices, position, chain) = encoder.finish(active.file.block_bytes().max(1));
        assert!(
            position <= active.capacity,
            "records take at most what was planned"
        );
        let written = active.file.write_all_vectored_at(&slices, active.position);
        self.poisoned = written.is_err();
        written.map_err(at("append to", &active.path))?;
        active.position = position;
        active.chain = chain;
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.active.synced_to == self.active.position {
            return Ok(());
        }
        let synced = self.active.file.sync_data();
        self.poisoned = synced.is_err();
        synced.map_err(at("sync", &self.active.path))?;
        self.active.synced_to = self.active.position;
        Ok(())
    }
}

impl Active {
    fn make(
        disk: &dyn Disk,
        dir: &Path,
        head: &Head,
        prepared: PreparedSegment,
        naming: &mut bool,
    ) -> Result<Active, Error> {
        let (bytes, crc) = head.encode();
        let path = dir.join(segment_name(head.sequence, head.next_index));
        let capacity = prepared.len;
        let file = prepared.become_segment(disk, &path, &bytes, naming)?;
        Ok(Active {
            file,
            path,
            sequence: head.sequence,
            seed: head.seed(),
            capacity,
            position: HEAD_BYTES,
            chain: crc,
            synced_to: HEAD_BYTES,
            max_index: 0,
        })
    }
}

/// What an append is going to write, and what the log holds then.
struct Plan<'a> {
    /// Records, and whether each is the last of its batch.
    items: Vec<(Item<'a>, bool)>,
    span: Span,
    hard_state: HardState,
    len_max: u64,
    max_index: u64,
    must_sync: bool,
}

impl<'a> Plan<'a> {
    fn add(&mut self, batch: &'a Batch) -> Result<(), Error> {
        let start = self.items.len();
        self.must_sync |= batch.must_sync || batch.snapshot.is_some();
        if let Some(mark) = batch.snapshot
            && mark != self.span.mark()
        {
            self.span.set_mark(mark)?;
            self.items.push((Item::Snapshot(mark), false));
        }
        for entry in &batch.entries {
            let bytes = file_len(entry.data.len());
            if bytes > PAYLOAD_BYTES_MAX {
                return Err(Error::TooLarge {
                    bytes,
                    bytes_max: PAYLOAD_BYTES_MAX,
                });
            }
            if entry.index <= self.hard_state.commit {
                return Err(out_of_order(
                    "entry replaces a committed one",
                    self.hard_state.commit,
                    entry.index,
                ));
            }
            self.span.push(entry.index, entry.term)?;
            self.max_index = self.max_index.max(entry.index);
            self.items.push((Item::Entry(entry), false));
        }
        if let Some(state) = batch.hard_state
            && state != self.hard_state
        {
            self.set_hard_state(state)?;
        }
        if self.items.len() > start
            && let Some((_, last_of_batch)) = self.items.last_mut()
        {
            *last_of_batch = true;
        }
        let added = self.items.get(start..).unwrap_or_default();
        self.len_max += added.iter().map(|(item, _)| item.len_max()).sum::<u64>();
        Ok(())
    }

    fn set_hard_state(&mut self, state: HardState) -> Result<(), Error> {
        if state.term < self.hard_state.term {
            let bound = self.hard_state.term;
            return Err(out_of_order("term goes back", bound, state.term));
        }
        if state.commit >= self.span.next() {
            let bound = self.span.next() - 1;
            return Err(out_of_order(
                "commit lies behind the last entry",
                bound,
                state.commit,
            ));
        }
        self.hard_state = state;
        self.items.push((Item::HardState(state), false));
        Ok(())
    }
}

impl From<Disorder> for Error {
    fn from(disorder: Disorder) -> Error {
        out_of_order(disorder.what, disorder.bound, disorder.found)
    }
}

fn out_of_order(what: &'static str, bound: u64, found: u64) -> Error {
    Error::OutOfOrder { what, bound, found }
}

/// Returns the size of a segment that is made while an append waits.
fn inline_len(options: &Options) -> u64 {
    options.segment_bytes.min(INLINE_SEGMENT_BYTES)
}
