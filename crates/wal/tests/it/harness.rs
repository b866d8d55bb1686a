//! A model of the log, and scripts that drive both.

use bytes::Bytes;
use quorate_disk::{Disk, SimDisk};
use quorate_wal::{
    Batch, Entry, Error, HardState, Identity, Options, Recovered, SnapshotMark, Wal,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const IDENTITY: Identity = Identity {
    cluster_id: 0xc1,
    member_id: 0x3e,
};

/// Makes a disk whose blocks differ by seed.
pub(crate) fn sim_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.set_block_bytes(match seed % 3 {
        0 => 1,
        1 => 512,
        _ => 4096,
    });
    disk
}

pub(crate) fn dir() -> &'static Path {
    Path::new("/wal")
}

pub(crate) fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        identity: Some(IDENTITY),
    }
}

pub(crate) fn create(disk: &SimDisk, options: &Options) -> Result<Wal, Error> {
    Wal::create(Arc::new(disk.clone()), dir(), IDENTITY, options.clone())
}

pub(crate) fn open(disk: &SimDisk, options: &Options) -> Result<(Wal, Recovered), Error> {
    Wal::open(Arc::new(disk.clone()), dir(), options.clone())
}

/// Segment files of the log, in order.
pub(crate) fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.read_dir(dir()).unwrap().into_iter();
    let names = names.filter(|name| name.to_str().unwrap().ends_with(".wal"));
    names.map(|name| dir().join(name)).collect()
}

pub(crate) fn entry(term: u64, index: u64, data: impl Into<Bytes>) -> Entry {
    Entry {
        term,
        index,
        kind: u8::try_from(index % 3).unwrap(),
        data: data.into(),
    }
}

/// Bytes that differ by seed and hold no zero.
pub(crate) fn filler(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len)
        .map(|_| u8::try_from(random.below(255) + 1).unwrap())
        .collect()
}

pub(crate) fn entries_batch(ticket: u64, entries: Vec<Entry>) -> Batch {
    Batch {
        ticket,
        entries,
        must_sync: true,
        ..Batch::default()
    }
}

/// What a log should hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotMark>,
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn of(recovered: Recovered) -> Model {
        Model {
            hard_state: recovered.hard_state,
            snapshot: recovered.snapshot,
            entries: recovered.entries,
        }
    }

    pub(crate) fn last_index(&self) -> u64 {
        let mark = self.snapshot.map_or(0, |mark| mark.index);
        self.entries.last().map_or(mark, |entry| entry.index)
    }

    pub(crate) fn apply(&mut self, batch: &Batch) {
        if let Some(mark) = batch.snapshot {
            let held = self.entries.iter().find(|entry| entry.index == mark.index);
            if held.is_some_and(|entry| entry.term == mark.term) {
                self.entries.retain(|entry| entry.index > mark.index);
            } else if self.snapshot != Some(mark) {
                self.entries.clear();
            }
            self.snapshot = Some(mark);
        }
        for entry in &batch.entries {
            self.entries.retain(|held| held.index < entry.index);
            self.entries.push(entry.clone());
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
    }
}

/// One step of a script.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Append(Vec<Batch>),
    Release(u64),
    Prepare,
    Reopen,
}

/// A script with the states it goes through.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) options: Options,
    pub(crate) steps: Vec<Step>,
    /// State before the first batch and after each.
    pub(crate) states: Vec<Model>,
}

/// How far a script got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Whether the log was made.
    pub(crate) created: bool,
    /// Batches handed to the log.
    pub(crate) tried: usize,
    /// Batches that are durable by what the log said.
    pub(crate) durable: usize,
}

impl Script {
    /// Draws a script of so many steps.
    pub(crate) fn draw(seed: u64, steps: u64, segment_bytes: u64, data_len_max: u64) -> Script {
        let mut random = Random(seed);
        let mut script = Script {
            options: options(segment_bytes),
            steps: Vec::new(),
            states: vec![Model::default()],
        };
        for ticket in 0..steps {
            let state = script.states.last().unwrap().clone();
            let step = match random.below(12) {
                0 => Step::Release(state.snapshot.map_or(0, |mark| mark.index)),
                1 => Step::Prepare,
                2 => Step::Reopen,
                _ => {
                    let count = 1 + random.below(3) * random.below(2);
                    let batches = (0..count)
                        .map(|_| script.draw_batch(&mut random, ticket, data_len_max))
                        .collect();
                    Step::Append(batches)
                }
            };
            script.steps.push(step);
        }
        script
    }

    fn draw_batch(&mut self, random: &mut Random, ticket: u64, data_len_max: u64) -> Batch {
        let mut state = self.states.last().unwrap().clone();
        let mut batch = Batch {
            ticket,
            must_sync: random.below(4) > 0,
            ..Batch::default()
        };
        let mut term = state.hard_state.term.max(1) + u64::from(random.below(5) == 0);
        if random.below(8) == 0 && state.last_index() > 0 {
            batch.snapshot = Some(draw_mark(random, &state, &mut term));
        }
        state.apply(&batch);
        let mark = state.snapshot.map_or(0, |mark| mark.index);
        let floor = state.hard_state.commit.max(mark);
        if random.below(5) > 0 {
            let back = random.below(3) * random.below(2);
            let from = state.last_index().saturating_sub(back).max(floor) + 1;
            for index in from..from + 1 + random.below(3) {
                let len = usize::try_from(random.below(data_len_max + 1)).unwrap();
                let data = match random.below(4) {
                    0 => vec![0; len],
                    _ => filler(term << 32 | index, len),
                };
                batch.entries.push(entry(term, index, data));
            }
        }
        state.apply(&batch);
        if random.below(3) > 0 {
            let ahead = state.last_index() - floor.min(state.last_index());
            batch.hard_state = Some(HardState {
                term,
                vote: random.below(3),
                commit: floor + random.below(ahead + 1),
            });
        }
        state.apply(&batch);
        self.states.push(state);
        batch
    }

    /// Makes a script in which segments are released and used again, round after round.
    pub(crate) fn rotate(seed: u64, rounds: u64) -> Script {
        let mut random = Random(seed);
        let mut script = Script {
            options: options(4096),
            steps: Vec::new(),
            states: vec![Model::default()],
        };
        for round in 0..rounds {
            for _ in 0..2 + random.below(3) {
                let mut state = script.states.last().unwrap().clone();
                let index = state.last_index() + 1;
                let len = usize::try_from(600 + random.below(700)).unwrap();
                let mut batch = entries_batch(round, vec![entry(1, index, filler(index, len))]);
                batch.must_sync = random.below(4) > 0;
                state.apply(&batch);
                script.states.push(state);
                script.steps.push(Step::Append(vec![batch]));
            }
            let mut state = script.states.last().unwrap().clone();
            let index = state.last_index();
            let mark = Batch {
                ticket: round,
                snapshot: Some(SnapshotMark { index, term: 1 }),
                ..Batch::default()
            };
            state.apply(&mark);
            script.states.push(state);
            script.steps.push(Step::Append(vec![mark]));
            script.steps.push(Step::Release(index));
            script.steps.push(Step::Prepare);
        }
        script
    }

    /// Runs the script until it ends or something fails.
    pub(crate) fn run(&self, disk: &SimDisk) -> (Progress, Result<(), Error>) {
        let mut progress = Progress::default();
        let result = self.run_steps(disk, &mut progress);
        (progress, result)
    }

    fn run_steps(&self, disk: &SimDisk, progress: &mut Progress) -> Result<(), Error> {
        let mut wal = create(disk, &self.options)?;
        progress.created = true;
        for step in &self.steps {
            match step {
                Step::Append(batches) => {
                    let syncs = batches
                        .iter()
                        .any(|batch| batch.must_sync || batch.snapshot.is_some());
                    progress.tried += batches.len();
                    let synced = wal.append(batches)?;
                    assert_eq!(synced.ticket(), batches.last().unwrap().ticket);
                    if syncs {
                        progress.durable = progress.tried;
                    }
                }
                Step::Release(index) => wal.release_to(*index)?,
                Step::Prepare => {
                    if let Some(job) = wal.take_prepare_job() {
                        wal.accept_prepared(job.run()?);
                    }
                }
                Step::Reopen => {
                    drop(wal);
                    let (opened, recovered) = open(disk, &self.options)?;
                    assert_eq!(Model::of(recovered), self.states[progress.tried]);
                    wal = opened;
                    // What was opened is durable.
                    progress.durable = progress.tried;
                }
            }
        }
        Ok(())
    }

    /// Checks what is found after a run: a state not older than what was durable, and not newer than what was tried.
    pub(crate) fn check(&self, progress: Progress, found: &Model) {
        let states = &self.states[progress.durable..=progress.tried];
        assert!(
            states.contains(found),
            "found {found:?}, durable {:?}",
            self.states[progress.durable]
        );
    }
}

fn draw_mark(random: &mut Random, state: &Model, term: &mut u64) -> SnapshotMark {
    let mark = state.snapshot.unwrap_or_default();
    match random.below(4) {
        // A snapshot from a leader that is far ahead.
        0 => {
            *term += 1;
            SnapshotMark {
                index: state.last_index() + 1 + random.below(50),
                term: *term,
            }
        }
        // One of our own.
        _ => {
            let count = u64::try_from(state.entries.len()).unwrap();
            let at = usize::try_from(random.below(count)).unwrap();
            state.entries.get(at).map_or(mark, |entry| SnapshotMark {
                index: entry.index,
                term: entry.term,
            })
        }
    }
}

/// A small generator of seeded numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(limit).unwrap_or(0)
    }
}
