//! Opening: what is found on disk, and what becomes of it.

use crate::error_at::at;
use crate::fields::{Fields, all_zero, file_len, memory_len, used_len};
use crate::head::{FORMAT_VERSION, HEAD_BYTES, Head, HeadFault};
use crate::record::{self, Damage, Found, Record, RecordType};
use crate::segment::{is_temporary, parse_segment_name};
use crate::span::{Effect, Span};
use crate::{Corruption, Entry, Error, HardState, Identity, Recovered, SnapshotMark, TornTail};
use bytes::Bytes;
use quorate_disk::{Disk, File, Mapped, OpenMode, read_exact_at};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Names of a directory that concern the log.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sequence numbers and paths of the segments, in order.
    pub(crate) segments: Vec<(u64, PathBuf)>,
    /// Files that never became segments.
    pub(crate) temporary: Vec<PathBuf>,
}

impl Listing {
    /// Lists a directory; one that does not exist is empty.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Listing, Error> {
        let names = match disk.read_dir(dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at("list", dir)(error)),
        };
        let mut listing = Listing::default();
        for name in names {
            if let Some(sequence) = parse_segment_name(&name) {
                listing.segments.push((sequence, dir.join(name)));
            } else if is_temporary(&name) {
                listing.temporary.push(dir.join(name));
            }
        }
        listing.segments.sort();
        Ok(listing)
    }

    /// Removes the files that never became segments.
    pub(crate) fn remove_temporary(&self, disk: &dyn Disk) -> Result<(), Error> {
        for path in &self.temporary {
            disk.remove_file(path).map_err(at("remove", path))?;
        }
        Ok(())
    }
}

/// A segment while it is read.
struct Segment {
    path: PathBuf,
    head: Head,
    head_crc: u32,
    bytes: Mapped,
}

/// An entry that is part of the log as read so far.
struct EntryPlace {
    segment: usize,
    term: u64,
    index: u64,
    kind: u8,
    payload: Range<usize>,
}

/// Everything that the writer goes on from.
pub(crate) struct Opened {
    pub(crate) recovered: Recovered,
    pub(crate) span: Span,
    /// Sequence number, path and largest entry index of each segment, in order; the last one is active.
    pub(crate) segments: Vec<(u64, PathBuf, u64)>,
    pub(crate) file: Box<dyn File>,
    /// Seed of the active segment.
    pub(crate) seed: u32,
    /// Where the active segment goes on, and the checksum of the record before.
    pub(crate) position: u64,
    pub(crate) chain: u32,
    pub(crate) capacity: u64,
}

/// How far the records of a segment go.
#[derive(Debug, Clone, Copy)]
struct Walked {
    /// End of the last complete batch, and the checksum of its last record.
    end: u64,
    chain: u32,
    /// Up to where records say that the segment was durable.
    durable: u64,
    /// Largest entry index in the segment.
    max_index: u64,
}

/// Reads a log, repairs its end and makes all that it returns durable.
pub(crate) fn open(
    disk: &dyn Disk,
    dir: &Path,
    expected: Option<Identity>,
) -> Result<Opened, Error> {
    let listing = Listing::read(disk, dir)?;
    let Some((_, last_path)) = listing.segments.last() else {
        return Err(Error::NotFound {
            dir: dir.to_owned(),
        });
    };
    let opened = disk.open_direct(last_path, OpenMode::ReadWrite);
    let file = opened.map_err(at("open", last_path))?;
    if !file.try_lock().map_err(at("lock", last_path))? {
        return Err(Error::InUse {
            path: last_path.clone(),
        });
    }
    let heads = read_heads(disk, dir, &listing, expected)?;
    let segments = map_segments(disk, heads)?;
    let mut reader = Reader::new(&segments);
    let walked = reader.read_all(dir)?;
    let (mut recovered, span) = reader.finish(dir)?;
    let ends = listing.segments.iter().zip(&walked);
    let ends: Vec<_> = ends
        .map(|((sequence, path), walked)| (*sequence, path.clone(), walked.max_index))
        .collect();
    let (Some(active), Some(end)) = (segments.into_iter().next_back(), walked.last()) else {
        return Err(Error::NotFound {
            dir: dir.to_owned(),
        });
    };
    let (seed, capacity) = (active.head.seed(), file_len(active.bytes.len()));
    recovered.torn_tail = repair(disk, dir, &*file, active, *end)?;
    listing.remove_temporary(disk)?;
    Ok(Opened {
        recovered,
        span,
        segments: ends,
        file,
        seed,
        position: end.end,
        chain: end.chain,
        capacity,
    })
}

/// Reads and checks all heads before anything else is looked at, and before anything is changed.
fn read_heads(
    disk: &dyn Disk,
    dir: &Path,
    listing: &Listing,
    expected: Option<Identity>,
) -> Result<Vec<(PathBuf, Head, u32)>, Error> {
    let mut heads: Vec<(PathBuf, Head, u32)> = Vec::new();
    let mut identity = expected;
    let mut next_sequence = None;
    for (sequence, path) in &listing.segments {
        let (head, crc) = read_head(disk, path)?;
        let expected = *identity.get_or_insert(head.identity);
        if head.identity != expected {
            return Err(Error::ForeignIdentity {
                path: path.clone(),
                expected,
                found: head.identity,
            });
        }
        if head.sequence != *sequence {
            return Err(corrupt(
                path,
                0,
                head.next_index,
                "sequence number in the head is not that of the name",
                *sequence,
                head.sequence,
            ));
        }
        if let Some(missing) = next_sequence.filter(|next| next != sequence) {
            return Err(Error::MissingSegment {
                dir: dir.to_owned(),
                sequence: missing,
            });
        }
        next_sequence = sequence.checked_add(1);
        heads.push((path.clone(), head, crc));
    }
    Ok(heads)
}

fn read_head(disk: &dyn Disk, path: &Path) -> Result<(Head, u32), Error> {
    let file = disk.open(path, OpenMode::Read).map_err(at("open", path))?;
    let mut bytes = vec![0; memory_len(HEAD_BYTES)];
    match read_exact_at(&*file, &mut bytes, 0) {
        Ok(()) => {}
        // A file that is too short for a head is damaged as one with a bad head is.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bytes.clear(),
        Err(error) => return Err(at("read", path)(error)),
    }
    Head::decode(&bytes).map_err(|fault| match fault {
        HeadFault::NotOurs => Error::NotALog {
            path: path.to_owned(),
        },
        HeadFault::Newer(found) => Error::NewerFormat {
            path: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        },
        HeadFault::Damaged { expected, found } => {
            let (expected, found) = (u64::from(expected), u64::from(found));
            corrupt(path, 0, 0, "segment head checksum", expected, found)
        }
    })
}

fn map_segments(disk: &dyn Disk, heads: Vec<(PathBuf, Head, u32)>) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::with_capacity(heads.len());
    for (path, head, head_crc) in heads {
        let opened = disk.open(&path, OpenMode::Read);
        let file = opened.map_err(at("open", &path))?;
        let bytes = file.map().map_err(at("map", &path))?;
        segments.push(Segment {
            path,
            head,
            head_crc,
            bytes,
        });
    }
    Ok(segments)
}

/// Reads the records of all segments in order.
struct Reader<'a> {
    segments: &'a [Segment],
    span: Span,
    entries: Vec<EntryPlace>,
    hard_state: HardState,
    identity: Identity,
}

impl<'a> Reader<'a> {
    fn new(segments: &'a [Segment]) -> Reader<'a> {
        let head = segments.first().map(|segment| &segment.head);
        let mark = head.map(|head| head.snapshot).unwrap_or_default();
        Reader {
            segments,
            span: Span::new(mark, head.map_or(1, |head| head.next_index)),
            entries: Vec::new(),
            hard_state: head.map(|head| head.hard_state).unwrap_or_default(),
            identity: head.map_or(
                Identity {
                    cluster_id: 0,
                    member_id: 0,
                },
                |head| head.identity,
            ),
        }
    }

    fn read_all(&mut self, dir: &Path) -> Result<Vec<Walked>, Error> {
        let mut walked = Vec::with_capacity(self.segments.len());
        for (number, segment) in self.segments.iter().enumerate() {
            let end = match self.segments.get(number + 1) {
                Some(after) => self.read_closed(number, segment, &after.head)?,
                None => self.read_active(number, segment)?,
            };
            walked.push(end);
        }
        if self.hard_state.commit >= self.span.next() {
            return Err(Error::MissingEntries {
                dir: dir.to_owned(),
                first_index: self.span.next(),
                last_index: self.hard_state.commit,
            });
        }
        Ok(walked)
    }

    /// Reads a segment that another one follows: it was durable as a whole before that one got its name.
    fn read_closed(
        &mut self,
        number: usize,
        segment: &Segment,
        after: &Head,
    ) -> Result<Walked, Error> {
        let mut walk = Walk::new(segment);
        while walk.position < after.previous_end {
            match walk.step() {
                Found::Record(record) => self.take(number, segment, &mut walk, record)?,
                Found::Damaged(damage) => return Err(self.damaged(&walk, damage)),
                Found::Blank | Found::Torn => {
                    return Err(self.corrupt(
                        &walk,
                        "segment ends too early",
                        after.previous_end,
                        walk.position,
                    ));
                }
            }
        }
        let end = walk.complete;
        if (end.end, end.chain) != (after.previous_end, after.previous_chain) {
            return Err(self.corrupt(
                &walk,
                "segment does not end as the next one says",
                u64::from(after.previous_chain),
                u64::from(end.chain),
            ));
        }
        Ok(end)
    }

    /// Reads the last segment, whose end may be torn.
    fn read_active(&mut self, number: usize, segment: &Segment) -> Result<Walked, Error> {
        let mut walk = Walk::new(segment);
        loop {
            match walk.step() {
                Found::Record(record) => self.take(number, segment, &mut walk, record)?,
                Found::Damaged(damage) => return Err(self.damaged(&walk, damage)),
                Found::Blank | Found::Torn => break,
            }
        }
        // Whatever was durable once must be there: a record behind that knows of more proves that this end is damage.
        let used = used_len(&segment.bytes);
        let bytes = segment.bytes.get(..used).unwrap_or_default();
        let end = walk.complete;
        if let Some(proof) = record::find_proof(bytes, walk.position, walk.seed, end.end) {
            let what = "bytes that were durable are missing before a valid record";
            return Err(self.corrupt(&walk, what, proof.synced_to, end.end));
        }
        Ok(end)
    }

    /// Takes a record; the batch takes effect with its last one.
    fn take(
        &mut self,
        number: usize,
        segment: &Segment,
        walk: &mut Walk<'_>,
        record: Record,
    ) -> Result<(), Error> {
        let last = record.header.last_of_batch;
        walk.advance(&record);
        walk.batch.push(record);
        if !last {
            return Ok(());
        }
        for record in std::mem::take(&mut walk.batch) {
            let index = record.header.index;
            if let Err((what, expected, found)) = self.apply(number, segment, record, walk) {
                let offset = walk.complete.end;
                return Err(corrupt(&segment.path, offset, index, what, expected, found));
            }
        }
        walk.batch_is_complete();
        Ok(())
    }

    fn apply(
        &mut self,
        number: usize,
        segment: &Segment,
        record: Record,
        walk: &mut Walk<'_>,
    ) -> Result<(), (&'static str, u64, u64)> {
        let header = record.header;
        let effect = match header.record_type {
            RecordType::HardState => {
                let payload = segment.bytes.get(record.payload).unwrap_or_default();
                let vote = Fields(payload).u64();
                self.hard_state = HardState {
                    term: header.term,
                    vote: vote.ok_or(("hard state is too short", 8, file_len(payload.len())))?,
                    commit: header.index,
                };
                return Ok(());
            }
            RecordType::Snapshot => self.span.set_mark(SnapshotMark {
                index: header.index,
                term: header.term,
            }),
            RecordType::Entry => self.span.push(header.index, header.term),
        };
        match effect.map_err(|disorder| (disorder.what, disorder.bound, disorder.found))? {
            Effect::KeepFront(count) => self.entries.truncate(memory_len(count)),
            Effect::DropFront(count) => {
                let count = memory_len(count).min(self.entries.len());
                self.entries.drain(..count);
            }
        }
        if header.record_type == RecordType::Entry {
            walk.max_index = walk.max_index.max(header.index);
            self.entries.push(EntryPlace {
                segment: number,
                term: header.term,
                index: header.index,
                kind: header.kind,
                payload: record.payload,
            });
        }
        Ok(())
    }

    /// Copies the entries out of the maps.
    fn finish(self, dir: &Path) -> Result<(Recovered, Span), Error> {
        let mark = self.span.mark();
        if self.span.first() != mark.index.saturating_add(1) {
            return Err(Error::MissingEntries {
                dir: dir.to_owned(),
                first_index: mark.index.saturating_add(1),
                last_index: self.span.first().saturating_sub(1),
            });
        }
        let entries = self.entries.into_iter().map(|place| {
            let segment = self.segments.get(place.segment);
            let payload = segment.and_then(|segment| segment.bytes.get(place.payload));
            Entry {
                term: place.term,
                index: place.index,
                kind: place.kind,
                data: Bytes::copy_from_slice(payload.unwrap_or_default()),
            }
        });
        let recovered = Recovered {
            identity: self.identity,
            hard_state: self.hard_state,
            snapshot: Some(mark).filter(|mark| *mark != SnapshotMark::default()),
            entries: entries.collect(),
            torn_tail: None,
        };
        Ok((recovered, self.span))
    }

    fn damaged(&self, walk: &Walk<'_>, damage: Damage) -> Error {
        let index = damage.index.unwrap_or(self.span.next());
        let Damage {
            what,
            expected,
            found,
            ..
        } = damage;
        corrupt(
            &walk.segment.path,
            walk.position,
            index,
            what,
            expected,
            found,
        )
    }

    fn corrupt(&self, walk: &Walk<'_>, what: &'static str, expected: u64, found: u64) -> Error {
        let index = self.span.next();
        corrupt(
            &walk.segment.path,
            walk.position,
            index,
            what,
            expected,
            found,
        )
    }
}

/// The way through the records of one segment.
struct Walk<'a> {
    segment: &'a Segment,
    seed: u32,
    /// Where the next record belongs, and the checksum it must follow.
    position: u64,
    chain: u32,
    max_index: u64,
    durable: u64,
    complete: Walked,
    /// Records of the batch that is not complete yet.
    batch: Vec<Record>,
    end: u64,
}

impl<'a> Walk<'a> {
    fn new(segment: &'a Segment) -> Walk<'a> {
        Walk {
            segment,
            seed: segment.head.seed(),
            position: record::slot(HEAD_BYTES),
            chain: segment.head_crc,
            max_index: 0,
            durable: HEAD_BYTES,
            complete: Walked {
                end: HEAD_BYTES,
                chain: segment.head_crc,
                durable: HEAD_BYTES,
                max_index: 0,
            },
            batch: Vec::new(),
            end: HEAD_BYTES,
        }
    }

    fn step(&self) -> Found {
        record::read(&self.segment.bytes, self.position, self.seed, self.chain)
    }

    fn advance(&mut self, record: &Record) {
        self.end = record.end;
        self.position = record::slot(record.end);
        self.chain = record.header.crc;
        self.durable = self.durable.max(record.header.synced_to);
    }

    fn batch_is_complete(&mut self) {
        self.complete = Walked {
            end: self.end,
            chain: self.chain,
            durable: self.durable,
            max_index: self.max_index,
        };
    }
}

/// Sets what lies behind the last complete batch to zero and makes everything before it durable.
///
/// What is returned as part of the log must survive the next power loss, whatever the process before this one left in memory
/// of the system. So all that no record proves durable is written again: a sync that failed then may have left bytes that can
/// be read and would never be written. The name of the segment is made durable for the same reason.
fn repair(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn File,
    segment: Segment,
    end: Walked,
) -> Result<Option<TornTail>, Error> {
    let bytes = &segment.bytes;
    let (from, stop) = (memory_len(end.durable), memory_len(end.end));
    let again = bytes.get(from..stop).unwrap_or_default().to_vec();
    let behind = bytes.get(stop..).unwrap_or_default();
    let torn_len = used_len(behind);
    let path = segment.path.clone();
    // The map must not be alive when the file is written.
    drop(segment);
    if !all_zero(&again) {
        file.write_all_at(&again, end.durable)
            .map_err(at("write again the end of", &path))?;
    }
    if torn_len > 0 {
        file.write_all_at(&vec![0; torn_len], end.end)
            .map_err(at("cut the torn tail of", &path))?;
    }
    file.sync_data().map_err(at("sync", &path))?;
    disk.sync_dir(dir).map_err(at("sync", dir))?;
    Ok((torn_len > 0).then_some(TornTail {
        path,
        offset: end.end,
        bytes: file_len(torn_len),
    }))
}

fn corrupt(
    path: &Path,
    offset: u64,
    index: u64,
    what: &'static str,
    expected: u64,
    found: u64,
) -> Error {
    Error::Corrupt(Box::new(Corruption {
        path: path.to_owned(),
        offset,
        index,
        what,
        expected,
        found,
    }))
}
